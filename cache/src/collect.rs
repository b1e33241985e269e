//! Dropping what nobody needs.
//!
//! Promises: collecting runs alone (whoever has the store open keeps it out); what the caller
//! calls needed stays, whatever the bounds say; the rest goes by age, and by size the longest
//! unused first. Records go first, durably, and the blobs that only they named after them: a
//! kill or a power cut in the middle leaves blobs without records and never the reverse. Answers
//! kept for keys (`kept/`) are never touched.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::Digest;
use crate::error::Error;
use crate::lock::Locks;
use crate::presence::Alone;
use crate::record::Record;
use crate::session::sweep_alone;
use crate::stat;
use crate::store::Store;
use crate::survey::{Held, Survey, blobs_of};

/// A checkpoint that young may belong to a run that is to be resumed: only its age drops it.
const RESUMABLE: Duration = Duration::from_hours(24);

/// How much may stay of what nobody needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// What was not used for so long goes.
    pub age: Duration,
    /// While the store holds more bytes, what was not used for the longest time goes.
    pub bytes: u64,
}

impl Bounds {
    /// Nothing stays but what is needed.
    pub const NOTHING: Self = Self {
        age: Duration::ZERO,
        bytes: 0,
    };
}

/// What a collection dropped, or would drop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Records dropped.
    pub records: usize,
    /// Blobs dropped.
    pub blobs: usize,
    /// Checkpoints dropped.
    pub checkpoints: usize,
    /// Files in quarantine dropped.
    pub quarantined: usize,
    /// The bytes of all these.
    pub bytes: u64,
    /// Bytes that are left.
    pub left: u64,
    /// Records that are needed.
    pub needed: usize,
}

/// What goes.
#[derive(Default)]
struct Plan<'a> {
    records: Vec<&'a Record>,
    blobs: Vec<&'a Held>,
    checkpoints: Vec<&'a Held>,
    quarantined: Vec<&'a Held>,
    told: Collected,
}

/// Something that nobody needs.
#[derive(Clone, Copy)]
enum Thing<'a> {
    Record(&'a Record),
    Loose(&'a Held),
    Checkpoint(&'a Held),
    Quarantined(&'a Held),
}

impl Store {
    /// Drops what is beyond the bounds and not needed.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process, or another `Store` of this one, has it open.
    pub fn collect(
        &self,
        bounds: Bounds,
        needed: impl Fn(&Record) -> bool,
    ) -> Result<Collected, Error> {
        // What waits for its place names blobs.
        self.settle()?;
        self.presence.alone(&self.root, |alone| {
            if let Locks::Leases(_) = self.locks {
                sweep_alone(&self.root.join("tmp"), &self.disk, &self.locks)?;
            }
            let survey = self.survey()?;
            let plan = plan(&survey, bounds, needed);
            self.carry_out(&plan, alone)?;
            Ok(plan.told)
        })
    }

    /// What [`Store::collect`] would drop. Changes nothing and needs no lock.
    pub fn would_collect(
        &self,
        bounds: Bounds,
        needed: impl Fn(&Record) -> bool,
    ) -> Result<Collected, Error> {
        Ok(plan(&self.survey()?, bounds, needed).told)
    }

    fn carry_out(&self, plan: &Plan<'_>, alone: &Alone<'_>) -> Result<(), Error> {
        let gone = |path: &PathBuf, done: std::io::Result<()>| match done {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(Error::io("remove", path)),
        };
        for record in &plan.records {
            alone.check()?;
            let path = self.record_path(&record.key, &record.result());
            gone(&path, self.disk.remove_file(&path))?;
            let folder = self.key_folder(&record.key);
            // Goes only with the last result of its key.
            let last = self.disk.remove_folder(&folder).is_ok();
            let shard = folder.parent().expect("a key lies in a shard");
            self.changed_folder(if last { shard } else { &folder });
        }
        // From here on no power cut brings a record back.
        self.sync_names(&[], &self.alone())?;
        for blob in plan.blobs.iter().chain(&plan.quarantined) {
            alone.check()?;
            gone(&blob.path, self.disk.remove_file(&blob.path))?;
        }
        for checkpoint in &plan.checkpoints {
            alone.check()?;
            gone(&checkpoint.path, self.disk.remove_all(&checkpoint.path))?;
        }
        Ok(())
    }
}

fn plan<'a>(survey: &'a Survey, bounds: Bounds, needed: impl Fn(&Record) -> bool) -> Plan<'a> {
    let mut plan = Plan::default();
    let mut names: BTreeMap<Digest, usize> = BTreeMap::new();
    let mut things: Vec<(i64, Thing<'a>)> = Vec::new();
    for stored in &survey.records {
        for digest in blobs_of(&stored.record) {
            *names.entry(digest).or_default() += 1;
        }
        if needed(&stored.record) {
            plan.told.needed += 1;
        } else {
            things.push((stored.used, Thing::Record(&stored.record)));
        }
    }
    let loose = survey.blobs.iter();
    let loose = loose.filter(|(digest, _)| !names.contains_key(digest));
    things.extend(loose.map(|(_, held)| (held.used, Thing::Loose(held))));
    let checkpoints = survey.checkpoints.iter();
    things.extend(checkpoints.map(|held| (held.used, Thing::Checkpoint(held))));
    let bad = survey.quarantine.iter();
    things.extend(bad.map(|held| (held.used, Thing::Quarantined(held))));
    things.sort_by_key(|(used, _)| *used);

    let now = stat::now();
    let unused = |used: i64, age: Duration| {
        age.is_zero() || i128::from(now) - i128::from(used) >= age.as_nanos() as i128
    };
    let mut left = survey.bytes();
    for (used, thing) in things {
        let big = left > bounds.bytes;
        let goes = unused(used, bounds.age)
            || match thing {
                Thing::Checkpoint(_) => big && unused(used, RESUMABLE),
                _ => big,
            };
        if goes {
            left -= plan.drop_one(thing, survey, &mut names);
        }
    }
    plan.told.left = left;
    plan
}

impl<'a> Plan<'a> {
    /// Plans to drop one thing and what only it holds; tells the bytes.
    fn drop_one(
        &mut self,
        thing: Thing<'a>,
        survey: &'a Survey,
        names: &mut BTreeMap<Digest, usize>,
    ) -> u64 {
        let mut bytes = 0;
        match thing {
            Thing::Record(record) => {
                self.records.push(record);
                self.told.records += 1;
                for digest in blobs_of(record) {
                    let count = names.get_mut(&digest).expect("every name was counted");
                    *count -= 1;
                    if *count == 0
                        && let Some(held) = survey.blobs.get(&digest)
                    {
                        bytes += self.drop_blob(held);
                    }
                }
            }
            Thing::Loose(held) => bytes = self.drop_blob(held),
            Thing::Checkpoint(held) => {
                self.checkpoints.push(held);
                self.told.checkpoints += 1;
                bytes = held.bytes;
            }
            Thing::Quarantined(held) => {
                self.quarantined.push(held);
                self.told.quarantined += 1;
                bytes = held.bytes;
            }
        }
        self.told.bytes += bytes;
        bytes
    }

    fn drop_blob(&mut self, held: &'a Held) -> u64 {
        self.blobs.push(held);
        self.told.blobs += 1;
        held.bytes
    }
}
