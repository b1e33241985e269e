//! Which result of a key counts: the lock's, then the last one, then the newest.
//!
//! Promises: the common case, that the last result is whole, costs one look at its record's name and one at
//! each of its blobs.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use cache::{Digest, KeyParts, Lack, Record, Tree};

use super::decide::Planner;
use super::error::PlanError;
use super::last::LastResult;
use super::reason::Reason;
use crate::config::StageSpec;

/// What the store has of a key.
pub(super) enum Found<'l> {
    /// The last result.
    Last(&'l LastResult),
    /// A result, and whether it is another than the last one.
    Here(Box<Record>, bool),
    /// The last result, whose bytes were left at the remote.
    There(&'l LastResult),
    /// None, and why one must be made.
    Nothing(Vec<Reason>),
}

/// Which results count for a stage.
struct Counting<'a> {
    /// The outputs that the lock names.
    locked: Option<&'a BTreeMap<String, Digest>>,
    /// Whether only those count.
    strict: bool,
    /// Whether the lock vouches for what somebody accepted by hand.
    vouched: bool,
}

impl Counting<'_> {
    fn in_lock(&self, outputs: &BTreeMap<String, Tree>) -> bool {
        self.locked.is_some_and(|wanted| {
            let same = |(name, digest): (&String, &Digest)| {
                outputs.get(name).map(Tree::digest) == Some(*digest)
            };
            wanted.len() == outputs.len() && wanted.iter().all(same)
        })
    }

    /// What somebody vouches for counts under `--locked` only where the lock says so.
    fn permits(&self, accepted: bool) -> bool {
        !self.strict || !accepted || self.vouched
    }

    /// Whether the last result is the one to take, if it is whole.
    fn takes(&self, last: &LastResult) -> bool {
        (self.locked.is_none() || self.in_lock(&last.outputs)) && self.permits(last.made.accepted)
    }
}

impl Planner<'_> {
    /// The result to use for `key`, or the reasons to make one.
    pub(super) fn find(
        &self,
        spec: &StageSpec,
        key: Digest,
        parts: &KeyParts,
    ) -> Result<Found<'_>, PlanError> {
        let counting = self.counting(spec, key);
        if counting.strict && counting.locked.is_none() {
            return self.not_locked(spec);
        }
        let last = self.last.get(&spec.id).filter(|last| last.key == key);
        let mut lacks = Vec::new();
        if let Some(last) = last.filter(|last| counting.takes(last))
            && let Some(found) = self.lacks_of(last)?
        {
            if found.is_empty() {
                return Ok(Found::Last(last));
            }
            lacks = found;
        }
        for (record, is_last) in self.candidates(spec, key, last, &counting)? {
            let lacking = self.store.lacking(&record.outputs)?;
            if lacking.is_empty() {
                return Ok(Found::Here(Box::new(record), !is_last));
            }
            // The first look at a damaged blob moves it away: what it told counts.
            lacks = if lacks.is_empty() { lacking } else { lacks };
        }
        if self.options.remote
            && let Some(last) = last.filter(|last| last.distant)
            && (!counting.strict || counting.in_lock(&last.outputs))
        {
            return Ok(Found::There(last));
        }
        let reasons = self.reasons(spec, key, parts, &lacks)?;
        // A preview shows it, and a remote is asked first.
        if counting.strict && !self.options.checking && !self.options.remote {
            return Err(PlanError::LockedLost {
                stage: spec.id.clone(),
                because: reasons[0].to_string(),
            });
        }
        Ok(Found::Nothing(reasons))
    }

    fn counting(&self, spec: &StageSpec, key: Digest) -> Counting<'_> {
        let profile = &self.pipeline.profile;
        Counting {
            locked: self.lock.results(profile, &spec.id),
            strict: self.options.locked,
            vouched: self.lock.accepted(profile, &spec.id) == Some(key),
        }
    }

    /// Only what the lock names counts, and it says nothing about the stage.
    fn not_locked(&self, spec: &StageSpec) -> Result<Found<'_>, PlanError> {
        if self.options.checking {
            return Ok(Found::Nothing(vec![Reason::NotLocked]));
        }
        Err(PlanError::NotLocked {
            stage: spec.id.clone(),
            profile: self.pipeline.profile.clone(),
        })
    }

    /// What a last result lacks; nothing at all where its record is gone.
    fn lacks_of(&self, last: &LastResult) -> Result<Option<Vec<Lack>>, PlanError> {
        // Another thread may have looked already.
        let seen = self.glances.then(|| self.last.glance(last)).flatten();
        if seen.is_none() && !self.store.has_record(&last.key, &last.result) {
            return Ok(None);
        }
        if seen.is_some_and(|seen| self.store.held(&last.outputs, &seen)) {
            return Ok(Some(Vec::new()));
        }
        Ok(Some(self.store.lacking(&last.outputs)?))
    }

    /// The records that count, in the order in which they are wanted, and whether each is the last.
    fn candidates(
        &self,
        spec: &StageSpec,
        key: Digest,
        last: Option<&LastResult>,
        counting: &Counting<'_>,
    ) -> Result<Vec<(Record, bool)>, PlanError> {
        let mut records = self.store.records(&key)?;
        if counting.strict {
            records.retain(|record| counting.in_lock(&record.outputs));
            let found = records.len();
            records.retain(|record| counting.permits(record.made.accepted));
            if found > 0 && records.is_empty() {
                return Err(PlanError::Accepted {
                    stage: spec.id.clone(),
                });
            }
        }
        let is_last = |record: &Record| last.is_some_and(|last| last.result == record.result());
        let records = records.into_iter();
        let mut records: Vec<_> = records.map(|record| (is_last(&record), record)).collect();
        records.sort_by_cached_key(|(is_last, record)| {
            let in_lock = counting.in_lock(&record.outputs);
            Reverse((in_lock, *is_last, record.made.started.clone()))
        });
        let turned = records
            .into_iter()
            .map(|(is_last, record)| (record, is_last));
        Ok(turned.collect())
    }

    /// From here on time passes and things change: what was seen ahead counts no more.
    pub fn work_begins(&mut self) {
        self.glances = false;
        self.last.forget_glances();
        self.store.forget_glances();
    }
}
