//! The end of a run: the lock file, what could be done next, the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use cache::{Digest, Record};
use stages::{Effect, Outcome};

use super::Verdict;
use super::checkpoints;
use super::collect;
use super::scheduler::Scheduler;
use crate::config::resources::said;
use crate::event::Event;
use crate::lock::Lock;
use crate::plan::{Decision, key};

impl Scheduler<'_> {
    /// Notes what the lock file will say about a settled stage. A resolved source is written
    /// at once: its result is stored under the pin, and a killed run must find it again.
    pub(super) fn lock_entries(&mut self, stage: usize, record: &Record, outcome: &Outcome) {
        let spec = self.spec(stage);
        if spec.effect == Effect::External {
            return;
        }
        if let (Some(source), Some(pin)) = (key::source(spec), &outcome.pin) {
            self.locked.set_source(&source, pin);
            if self.project.lock.source(&source) != Some(pin) {
                self.write_lock();
            }
        }
        let profile = &self.project.pipeline.profile;
        self.locked.set_results(profile, &spec.id, digests(record));
        let accepted = record.made.accepted.then_some(record.key);
        self.locked.set_accepted(profile, &spec.id, accepted);
    }

    /// After a run that made something: what nobody needs any more goes.
    pub(super) fn collect(&mut self) {
        if self.tally.ran == 0 || self.tally.cancelled {
            return;
        }
        let mut notices = Vec::new();
        collect::after_run(
            &self.project.pipeline,
            &self.project.spec,
            &self.project.store,
            self.tally.bytes,
            &mut |code, text| notices.push((code.to_owned(), text)),
        );
        for (code, text) in notices {
            self.notice(&code, text);
        }
    }

    /// Writes the entries that this run settled. A lock that cannot be written does not
    /// undo the run.
    pub(super) fn write_lock(&mut self) {
        if !self.options.write_lock || self.project.lock.contains(&self.locked) {
            return;
        }
        // What the lock names is there, whatever comes after.
        self.settle_store();
        if let Err(error) = Lock::update(&self.project.lock_file(), &self.locked) {
            let text = format!("`pipeline.lock` is not up to date: {error}");
            self.notice("lock::not-written", text);
        }
    }

    /// After a plain run: stages that act outside and could run now.
    pub(super) fn offer(&mut self) {
        if !self.options.targets.is_empty() || self.tally.failed || self.tally.cancelled {
            return;
        }
        let stages = &self.project.pipeline.stages;
        let settled: BTreeSet<usize> = self.settled.keys().copied().collect();
        for (stage, spec) in stages.iter().enumerate() {
            let above = self.project.graph.parents(stage);
            if spec.effect != Effect::External
                || self.inside[stage]
                || !above.iter().all(|above| settled.contains(above))
            {
                continue;
            }
            if let Ok(Decision::Ready { done: false, .. }) =
                self.planner.decide(stage, &self.settled)
            {
                self.say(Event::StageReady {
                    stage: spec.id.clone(),
                });
            }
        }
    }

    /// Drops half-done work that is too old or too much. A run in which nothing happened does
    /// not look.
    pub(super) fn tidy(&mut self) {
        if !self.something_ran {
            return;
        }
        let bounds = self.project.pipeline.checkpoints;
        let dropped = checkpoints::tidy(&self.project.store, bounds, SystemTime::now());
        if dropped.keys > 0 {
            let text = format!(
                "half-done work ({} of {} keys) was dropped: it was old, or too much (`checkpoints:`)",
                said(dropped.bytes),
                dropped.keys
            );
            self.notice("checkpoint::dropped", text);
        }
    }

    /// Tells the end.
    pub(super) fn finish(&mut self) -> Verdict {
        let tally = self.tally;
        let (verdict, status) = if tally.cancelled {
            (Verdict::Cancelled, "cancelled")
        } else if tally.superseded {
            (Verdict::Superseded, "superseded")
        } else if tally.locked {
            (Verdict::Locked, "locked")
        } else if tally.failed {
            (Verdict::Failed, "failed")
        } else if tally.people {
            (Verdict::People, "people")
        } else if tally.gate {
            (Verdict::Gate, "gate")
        } else {
            (Verdict::Ok, "ok")
        };
        let millis = self.began.elapsed().as_millis() as u64;
        self.say(Event::RunFinished {
            status: status.to_owned(),
            millis,
            ran: tally.ran,
            fresh: tally.fresh,
            syncs: self.project.store.syncs() - self.syncs_before,
        });
        verdict
    }
}

/// The digests of a record's outputs.
pub(super) fn digests(record: &Record) -> BTreeMap<String, Digest> {
    let outputs = record.outputs.iter();
    outputs
        .map(|(name, tree)| (name.clone(), tree.digest()))
        .collect()
}
