//! Fresh, to run, waiting, or ready: one stage at a time.

use std::collections::{BTreeMap, BTreeSet};

use cache::{Digest, Glance, KeyParts, Lack, LackCause, Record, Store, Tree};
use stages::Effect;

use super::error::PlanError;
use super::fingerprint::Fingerprints;
use super::input::{self, Inputs, Locals};
use super::key;
use super::last::{Last, LastResult};
use super::people::People;
use super::pick::{Picked, Picks};
use super::reason::Reason;
use crate::config::{Pipeline, StageSpec};
use crate::lock::Lock;

/// Outputs of the stages that are settled: fresh, or run to the end. By stage index.
pub type Settled = BTreeMap<usize, BTreeMap<String, Tree>>;

/// How the question is asked. Stages are named by id.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only results that the lock names count (`--locked`).
    pub locked: bool,
    /// No result counts, everything is made anew to be compared (`--locked --recompute`).
    pub recompute: bool,
    /// The network is refused: sources must be pinned (`--frozen`).
    pub frozen: bool,
    /// Stages whose results do not count (`--force`).
    pub forced: BTreeSet<String>,
    /// Stages with an outside effect that may run: those named, and those above them.
    pub named: BTreeSet<String>,
    /// Only look: take no local input into the store.
    pub preview: bool,
    /// Under `locked`, what the lock lacks is shown as to be run instead of being an error.
    pub checking: bool,
    /// There is a remote: results that were left there count, and what the store lacks is asked
    /// for there before it is given up.
    pub remote: bool,
}

/// What is to be done about a stage.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one at a time; a plan for show holds as many as there are stages"
)]
pub enum Decision {
    /// Its result is there.
    Fresh {
        /// The result.
        record: Record,
        /// Whether it is another than the last one: brought back, or made elsewhere.
        restored: bool,
    },
    /// Its result is at the remote; its bytes are not here.
    Remote {
        /// The result. Its key is the stage's.
        record: Record,
        /// Whether it is the last one, rather than one that was found there now.
        known: bool,
        /// Its inputs, for the case that the bytes cannot be had.
        inputs: Inputs,
    },
    /// It must run.
    Run {
        /// Its key.
        key: Digest,
        /// What the key is made of.
        parts: KeyParts,
        /// Its inputs.
        inputs: Inputs,
        /// Why, at least one.
        reasons: Vec<Reason>,
    },
    /// It must run, and people have to decide something first. Only a plan for show says so; a run
    /// asks [`Planner::people`] when the inputs are here.
    People {
        /// Its key, which a decision changes.
        key: Digest,
        /// What the key is made of.
        parts: KeyParts,
        /// Its inputs.
        inputs: Inputs,
        /// What they are asked.
        people: People,
    },
    /// Not known until these stages are settled (ascending).
    Waiting {
        /// Stage indices.
        on: Vec<usize>,
    },
    /// It acts on the outside, could run, and was not named.
    Ready {
        /// Its key.
        key: Digest,
        /// What the key is made of.
        parts: KeyParts,
        /// Whether it was done before with this key, as far as the store knows.
        done: bool,
    },
}

/// What the store has of a key.
enum Found {
    /// A result, and whether it is another than the last one.
    Here(Record, bool),
    /// The last result, whose bytes were left at the remote.
    There(Record),
    /// None, and why one must be made.
    Nothing(Vec<Reason>),
}

/// What a remote is asked for on behalf of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The stage.
    pub stage: usize,
    /// Its key.
    pub key: Digest,
    /// Results in the order in which they are wanted; `None` is whichever is there.
    pub results: Vec<Option<Digest>>,
}

/// Decides about the stages of one pipeline.
pub struct Planner<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) store: &'a Store,
    lock: &'a Lock,
    options: Options,
    index: BTreeMap<&'a str, usize>,
    last: Last,
    locals: Locals,
    picks: Picks,
    fingerprints: Fingerprints,
    /// Whether what was seen ahead counts.
    glances: bool,
}

impl<'a> Planner<'a> {
    /// Reads the last results of the pipeline's profile.
    pub fn new(pipeline: &'a Pipeline, store: &'a Store, lock: &'a Lock, options: Options) -> Self {
        let last = Last::load(store.home(), &pipeline.profile);
        Self::knowing(last, pipeline, store, lock, options)
    }

    /// [`Planner::new`] with the last results of the pipeline's profile.
    pub fn knowing(
        last: Last,
        pipeline: &'a Pipeline,
        store: &'a Store,
        lock: &'a Lock,
        options: Options,
    ) -> Self {
        let stages = pipeline.stages.iter().enumerate();
        Self {
            index: stages.map(|(at, spec)| (&*spec.id, at)).collect(),
            last,
            locals: Locals::new(options.preview),
            picks: Picks::new(pipeline),
            fingerprints: Fingerprints::new(store.home()),
            // They are of the checkout's own store.
            glances: store.base() == store.home(),
            pipeline,
            store,
            lock,
            options,
        }
    }

    /// What is to be done about `stage`, given what is settled.
    pub fn decide(&mut self, stage: usize, settled: &Settled) -> Result<Decision, PlanError> {
        let decision = self.answer(stage, settled)?;
        if let Decision::Fresh { record, .. } = &decision {
            self.picks.measure(stage, record);
        }
        Ok(decision)
    }

    fn answer(&mut self, stage: usize, settled: &Settled) -> Result<Decision, PlanError> {
        let spec = &self.pipeline.stages[stage];
        let reads = match &spec.pick {
            None => &spec.inputs,
            Some(pick) => match self.picks.choose(stage, spec, pick, &self.index)? {
                Ok(candidate) => &candidate.inputs,
                Err(on) => return Ok(Decision::Waiting { on }),
            },
        };
        let product = |id: &str, product: &str| {
            let index = *self.index.get(id)?;
            let outputs = settled.get(&index);
            Some((
                index,
                outputs.and_then(|outputs| outputs.get(product)).cloned(),
            ))
        };
        let resolved = input::resolve(
            self.pipeline,
            spec,
            reads,
            product,
            self.store,
            &mut self.locals,
        )?;
        let inputs = match resolved {
            Ok(inputs) => inputs,
            Err(on) => return Ok(Decision::Waiting { on }),
        };
        let mut parts = key::parts(spec, &inputs, self.pin(spec)?);
        self.tools(spec, &mut parts)?;
        let key = parts.digest();
        let run = |parts, inputs, reasons| Decision::Run {
            key,
            parts,
            inputs,
            reasons,
        };
        if spec.effect == Effect::External {
            if !self.options.named.contains(&spec.id) {
                let done = !self.store.records(&key)?.is_empty();
                return Ok(Decision::Ready { key, parts, done });
            }
            return Ok(run(parts, inputs, vec![Reason::Named]));
        }
        if self.options.forced.contains(&spec.id) {
            return Ok(run(parts, inputs, vec![Reason::Forced]));
        }
        if self.options.recompute {
            return Ok(run(parts, inputs, vec![Reason::Recompute]));
        }
        Ok(match self.find(spec, key, &parts)? {
            Found::Here(record, restored) => Decision::Fresh { record, restored },
            Found::There(record) => Decision::Remote {
                record,
                known: true,
                inputs,
            },
            Found::Nothing(reasons) => run(parts, inputs, reasons),
        })
    }

    /// What to ask a remote for, after [`Decision::Run`] with this key and these reasons: nothing
    /// where no result that exists would count.
    pub fn question(
        &self,
        stage: usize,
        key: Digest,
        parts: &KeyParts,
        reasons: &[Reason],
    ) -> Option<Question> {
        let wanted = !reasons
            .iter()
            .any(|reason| matches!(reason, Reason::Forced | Reason::Recompute | Reason::Named));
        // Nothing is ever found under an empty pin.
        if !self.options.remote || !wanted || parts.get("pin") == Some("") {
            return None;
        }
        let spec = &self.pipeline.stages[stage];
        let locked = self.lock.results(&self.pipeline.profile, &spec.id);
        let locked = locked.map(|outputs| {
            let outputs = outputs.iter();
            Record::result_of(outputs.map(|(name, digest)| (name.as_str(), *digest)))
        });
        let mut results: Vec<_> = locked.into_iter().map(Some).collect();
        if !self.options.locked {
            results.push(None);
        }
        (!results.is_empty()).then_some(Question {
            stage,
            key,
            results,
        })
    }

    /// Whether a stage may run that nobody has a result of: not under `--locked`.
    pub fn may_run(&self, stage: usize, reasons: &[Reason]) -> Result<(), PlanError> {
        let made_to_compare = reasons
            .iter()
            .any(|reason| matches!(reason, Reason::Forced | Reason::Recompute | Reason::Named));
        if !self.options.locked || made_to_compare {
            return Ok(());
        }
        Err(PlanError::LockedLost {
            stage: self.pipeline.stages[stage].id.clone(),
            because: reasons.first().map(ToString::to_string).unwrap_or_default(),
        })
    }

    /// The last results, as they were read and set since.
    pub fn last(&self) -> &Last {
        &self.last
    }

    /// Makes `record` the last result of `stage`: called when a stage is settled.
    pub fn settle(&mut self, stage: usize, record: &Record) -> Result<(), PlanError> {
        self.picks.measure(stage, record);
        self.last
            .set(&self.pipeline.stages[stage].id, record, false)
    }

    /// [`Planner::settle`] of a result whose bytes are left at the remote.
    pub fn settle_distant(&mut self, stage: usize, record: &Record) -> Result<(), PlanError> {
        self.picks.measure(stage, record);
        self.last.set(&self.pipeline.stages[stage].id, record, true)
    }

    /// Adds what the tools of a command say they are.
    fn tools(&mut self, spec: &StageSpec, parts: &mut KeyParts) -> Result<(), PlanError> {
        for command in &spec.fingerprint {
            let says = self.fingerprints.of(self.pipeline, spec, command);
            let says = says.map_err(|because| PlanError::Fingerprint {
                stage: spec.id.clone(),
                command: command.clone(),
                because,
            })?;
            parts.push(format!("fingerprint.{command}"), says);
        }
        Ok(())
    }

    /// Whether the stage is to be made anew although its result is there.
    pub fn forces(&self, stage: usize) -> bool {
        self.options
            .forced
            .contains(&self.pipeline.stages[stage].id)
    }

    /// What was picked so far, by stage.
    pub fn picks(&self) -> &BTreeMap<usize, Picked> {
        &self.picks.made
    }

    /// Which cell a stage with `pick` reads, as soon as it was decided about.
    pub fn picked(&self, stage: usize) -> Option<&Picked> {
        self.picks.made.get(&stage)
    }

    fn pin(&self, spec: &StageSpec) -> Result<Option<&'a str>, PlanError> {
        let Some(source) = key::source(spec) else {
            return Ok(None);
        };
        let pin = self.lock.source(&source);
        if pin.is_none() && (self.options.locked || self.options.frozen) {
            return Err(PlanError::NotPinned {
                stage: spec.id.clone(),
                source_id: source,
            });
        }
        Ok(pin)
    }

    /// The result to use for `key`, or the reasons to make one.
    /// Chosen: the lock's, then the last one, then the newest.
    fn find(&self, spec: &StageSpec, key: Digest, parts: &KeyParts) -> Result<Found, PlanError> {
        let locked = self.lock.results(&self.pipeline.profile, &spec.id);
        if self.options.locked && locked.is_none() {
            if self.options.checking {
                return Ok(Found::Nothing(vec![Reason::NotLocked]));
            }
            return Err(PlanError::NotLocked {
                stage: spec.id.clone(),
                profile: self.pipeline.profile.clone(),
            });
        }
        let in_lock = |outputs: &BTreeMap<String, Tree>| {
            locked.is_some_and(|wanted| {
                let same = |(name, digest)| outputs.get(name).map(Tree::digest) == Some(digest);
                wanted.len() == outputs.len() && wanted.iter().map(|(n, d)| (n, *d)).all(same)
            })
        };
        // What somebody vouches for counts under `--locked` only where the lock says so.
        let vouched = self.lock.accepted(&self.pipeline.profile, &spec.id) == Some(key);
        let permitted = |accepted: bool| !self.options.locked || !accepted || vouched;
        let last = self.last.get(&spec.id).filter(|last| last.key == key);
        let mut lacks = Vec::new();
        // The common case costs one look at the record's name and one at each blob.
        if let Some(last) = last
            && (locked.is_none() || in_lock(&last.outputs))
            && permitted(last.made.accepted)
            && (self.glance(last).is_some() || self.store.has_record(&key, &last.result))
        {
            let record = last.record(parts.clone());
            // Another thread may have looked already.
            if self
                .glance(last)
                .is_some_and(|seen| self.store.held(&record, seen))
            {
                return Ok(Found::Here(record, false));
            }
            lacks = self.store.lacking(&record)?;
            if lacks.is_empty() {
                return Ok(Found::Here(record, false));
            }
        }
        let mut records = self.store.records(&key)?;
        if self.options.locked {
            records.retain(|record| in_lock(&record.outputs));
            let found = records.len();
            records.retain(|record| permitted(record.made.accepted));
            if found > 0 && records.is_empty() {
                return Err(PlanError::Accepted {
                    stage: spec.id.clone(),
                });
            }
        }
        let is_last = |record: &Record| last.is_some_and(|last| last.result == record.result());
        records.sort_by_cached_key(|record| {
            let rank = (
                in_lock(&record.outputs),
                is_last(record),
                record.made.started.clone(),
            );
            std::cmp::Reverse(rank)
        });
        for record in records {
            let lacking = self.store.lacking(&record)?;
            if lacking.is_empty() {
                let restored = !is_last(&record);
                return Ok(Found::Here(record, restored));
            }
            // The first look at a damaged blob moves it away: what it told counts.
            lacks = if lacks.is_empty() { lacking } else { lacks };
        }
        if self.options.remote
            && let Some(last) = last.filter(|last| last.distant)
            && (!self.options.locked || in_lock(&last.outputs))
        {
            return Ok(Found::There(last.record(parts.clone())));
        }
        let reasons = self.reasons(spec, key, parts, &lacks)?;
        // A preview shows it, and a remote is asked first.
        if self.options.locked && !self.options.checking && !self.options.remote {
            return Err(PlanError::LockedLost {
                stage: spec.id.clone(),
                because: reasons[0].to_string(),
            });
        }
        Ok(Found::Nothing(reasons))
    }

    /// What the files of a last result looked like a moment ago, where that still counts.
    fn glance<'l>(&self, last: &'l LastResult) -> Option<&'l Glance> {
        last.glance.as_ref().filter(|_| self.glances)
    }

    /// From here on time passes and things change: what was seen ahead counts no more.
    pub fn work_begins(&mut self) {
        self.glances = false;
        self.store.forget_glances();
    }

    /// Why there is no result: the difference to the last one.
    fn reasons(
        &self,
        spec: &StageSpec,
        key: Digest,
        parts: &KeyParts,
        lacks: &[Lack],
    ) -> Result<Vec<Reason>, PlanError> {
        if !lacks.is_empty() {
            return Ok(one_a_product(lacks));
        }
        let Some(last) = self.last.get(&spec.id) else {
            return Ok(vec![Reason::First]);
        };
        let before = if last.key == key {
            None
        } else {
            self.store.records(&last.key)?.into_iter().next()
        };
        Ok(match before {
            None => vec![Reason::Lost],
            Some(before) => {
                let since = parts.since(&before.parts);
                since.into_iter().map(Reason::Changed).collect()
            }
        })
    }
}

/// The first lack of every product: a folder of a thousand lost files is one reason.
fn one_a_product(lacks: &[Lack]) -> Vec<Reason> {
    let mut seen = BTreeSet::new();
    let first = lacks.iter().filter(|lack| seen.insert(&lack.product));
    first
        .map(|lack| Reason::Lacking {
            product: lack.product.clone(),
            path: lack.path.clone(),
            damaged: lack.cause == LackCause::Damaged,
        })
        .collect()
}
