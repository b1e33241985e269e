//! What follows when a stage has come to its end, well or not.

use std::collections::BTreeMap;
use std::path::Path;

use cache::{Digest, Record};
use stages::contract::WAITING_FOR_PEOPLE;
use stages::{Outcome, StageError};

use super::commit::tell_found;
use super::gates;
use super::job::{Failure, Performed};
use super::log::bring_back;
use super::out::Out;
use super::scheduler::{Scheduler, State};
use crate::config::Action;
use crate::event::Event;
use crate::plan::{PlanError, decisions};

impl Scheduler<'_> {
    /// A result that was there.
    pub(super) fn fresh(&mut self, stage: usize, record: &Record, restored: bool) {
        let outcome = outcome(record);
        self.tally.fresh += 1;
        if restored {
            self.project.store.used(record);
        }
        self.say(Event::StageFresh {
            stage: self.id(stage),
            metrics: outcome.metrics.clone(),
            restored,
            remote: false,
            made_millis: record.made.millis,
            made_at: record.made.started.clone(),
            key: record.key.hex(),
        });
        self.show(stage, record, !restored);
        if restored {
            let log = self.project.log(&self.spec(stage).id);
            bring_back(&log, record, &self.project.store);
        }
        self.settle(stage, record, &outcome);
        self.offer_to_remote(stage, record);
    }

    /// Which cell of a sweep the stage reads.
    pub(super) fn tell_pick(&mut self, stage: usize) {
        let Some(picked) = self.planner.picked(stage).cloned() else {
            return;
        };
        self.say(Event::StagePicked {
            stage: self.id(stage),
            cell: picked.cell,
            metric: picked.metric,
            value: picked.value,
            largest: picked.largest,
            among: picked.among,
        });
    }

    /// Brings the stage's folder of results up to date.
    pub(super) fn show(&mut self, stage: usize, record: &Record, fresh: bool) {
        let spec = self.spec(stage);
        let root = self.project.out();
        let out = Out {
            store: &self.project.store,
            root: &root,
            profile: &self.project.pipeline.profile,
        };
        let mut notices = Vec::new();
        match out.show(&spec.id, &spec.products(), record, fresh) {
            Ok(found) => tell_found(&spec.id, found, |code, text| notices.push((code, text))),
            Err(error) => notices.push((
                error.code(),
                format!(
                    "the result of `{}` is stored, but not shown: {error}",
                    spec.id
                ),
            )),
        }
        for (code, text) in notices {
            self.notice(code, text);
        }
    }

    pub(super) fn notice(&mut self, code: &str, text: String) {
        self.say(Event::Notice {
            code: code.to_owned(),
            text,
        });
    }

    /// The stage has a result: remember it, look at its gates, open what is below it.
    pub(super) fn settle(&mut self, stage: usize, record: &Record, outcome: &Outcome) {
        self.settle_as(stage, record, outcome, State::Settled);
    }

    /// [`Scheduler::settle`] into a state: `Distant` if its bytes are at the remote.
    pub(super) fn settle_as(
        &mut self,
        stage: usize,
        record: &Record,
        outcome: &Outcome,
        state: State,
    ) {
        let spec = self.spec(stage);
        let noted = match state {
            State::Distant => self.planner.settle_distant(stage, record),
            _ => self.planner.settle(stage, record),
        };
        if let Err(error) = noted {
            // Losing it costs reasons and time, no result.
            self.notice(error.code(), error.to_string());
        }
        self.lock_entries(stage, record, outcome);
        self.set(stage, state);
        let first = self.first_time(stage, record);
        let mut broken = Vec::new();
        for event in gates::look(&spec.id, &spec.gates, &outcome.metrics) {
            if let Event::Gate {
                metric,
                passed: false,
                ..
            } = &event
            {
                broken.push(metric.clone());
            }
            self.say(event);
        }
        if !broken.is_empty() {
            self.tally.gate = true;
            let because = format!(
                "`{}` does not pass its gate on `{}`",
                spec.id,
                broken.join("`, `")
            );
            self.skip_below(stage, &because);
        }
        self.settled.insert(stage, record.outputs.clone());
        if !first {
            // What is below it was opened when its record was found.
            return;
        }
        for child in self.project.graph.children(stage) {
            if let State::Waiting(missing) = &mut self.states[child]
                && self.inside[child]
            {
                *missing -= 1;
                if *missing == 0 {
                    self.open.push(child);
                }
            }
        }
    }

    /// Nothing below `stage` can run.
    pub(super) fn skip_below(&mut self, stage: usize, because: &str) {
        for below in self.project.graph.descendants(&[stage]) {
            if self.inside[below]
                && matches!(self.states[below], State::Waiting(_))
                && below != stage
            {
                self.skip(below, because);
            }
        }
    }

    pub(super) fn skip(&mut self, stage: usize, because: &str) {
        self.set(stage, State::Skipped);
        self.say(Event::StageSkipped {
            stage: self.id(stage),
            because: because.to_owned(),
        });
    }

    /// An executor is done.
    pub(super) fn ended(&mut self, stage: usize, ended: Result<Performed, Failure>) {
        match ended {
            Ok(Performed::Made(record, ticket)) => {
                self.tickets.push((stage, ticket));
                self.made(stage, &record);
            }
            Ok(Performed::Taken(record)) => self.fresh(stage, &record, true),
            Err(Failure::Cancelled) => {
                let because = self.because.remove(&stage);
                let because = because.unwrap_or_else(|| "the run was cancelled".to_owned());
                self.skip(stage, &because);
                self.skip_below(stage, &because);
                self.nothing_comes(stage, &because);
            }
            Err(Failure::Error(error, millis)) => self.failed(stage, error, millis),
        }
    }

    fn made(&mut self, stage: usize, record: &Record) {
        let outcome = outcome(record);
        let digests: BTreeMap<String, Digest> = record
            .outputs
            .iter()
            .map(|(name, tree)| (name.clone(), tree.digest()))
            .collect();
        self.tally.ran += 1;
        self.tally.bytes += record.outputs.values().map(cache::Tree::size).sum::<u64>();
        self.say(Event::StageDone {
            stage: self.id(stage),
            millis: record.made.millis,
            outcome: outcome.clone(),
            unchanged: self.before.get(&stage) == Some(&digests),
            key: record.key.hex(),
        });
        self.settle(stage, record, &outcome);
        self.offer_to_remote(stage, record);
        if self.options.recompute {
            self.compare(stage, &digests);
        }
    }

    /// A recomputed result against the one that the lock names. Built-in stages promise
    /// equal bytes; what a command promises is its author's business, so it is only told.
    fn compare(&mut self, stage: usize, digests: &BTreeMap<String, Digest>) {
        let spec = self.spec(stage);
        let profile = &self.project.pipeline.profile;
        let Some(wanted) = self.project.lock.results(profile, &spec.id) else {
            return;
        };
        let other: Vec<_> = wanted
            .iter()
            .filter(|(name, digest)| digests.get(*name) != Some(digest))
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        if other.is_empty() {
            return;
        }
        self.tally.locked |= matches!(spec.action, Action::Builtin { .. });
        let text = format!(
            "`{}` was made anew with other bytes than `pipeline.lock` names: {}",
            spec.id,
            other.join(", ")
        );
        self.notice("locked::other-bytes", text);
    }

    pub(super) fn failed(&mut self, stage: usize, error: StageError, millis: u64) {
        if error.code.ends_with(WAITING_FOR_PEOPLE) {
            // Nobody could say so before it ran; how many rows wait is in its log.
            self.people(stage, 0);
            return;
        }
        self.tally.failed = true;
        self.say_failed(stage, error, millis, None);
        self.set(stage, State::Failed);
        let because = format!("`{}` failed", self.id(stage));
        self.skip_below(stage, &because);
        self.nothing_comes(stage, &because);
        if !self.options.keep_going {
            self.drop_queued(&because);
        }
    }

    /// So many rows of a stage wait for a decision: it is not run, and nothing below it. Other
    /// stages go on.
    pub(super) fn people(&mut self, stage: usize, rows: usize) {
        let spec = self.spec(stage);
        let (port, file) = decisions(spec).unwrap_or(("", Path::new("")));
        let event = Event::StagePeople {
            stage: spec.id.clone(),
            rows,
            file: file.to_owned(),
            place: self
                .project
                .pipeline
                .shown_place(&spec.place(&format!("inputs.{port}"))),
        };
        self.tally.people = true;
        self.say(event);
        self.set(stage, State::People);
        let because = format!("`{}` waits for people", spec.id);
        self.skip_below(stage, &because);
        self.nothing_comes(stage, &because);
    }

    /// `pause`: milliseconds until the next try, if there is one.
    pub(super) fn say_failed(
        &mut self,
        stage: usize,
        error: StageError,
        millis: u64,
        pause: Option<u64>,
    ) {
        let spec = self.spec(stage);
        let event = Event::StageFailed {
            stage: spec.id.clone(),
            place: self.project.pipeline.shown_place(&spec.place(&error.field)),
            error,
            millis,
            log: self.project.log(&spec.id),
            again: pause.is_some(),
            pause: pause.unwrap_or(0),
        };
        self.say(event);
    }

    /// The plan has no answer: a local input is gone, or the lock forbids going on.
    pub(super) fn undecided(&mut self, stage: usize, error: &PlanError) {
        self.tally.locked |= error.is_locked();
        let field = match error {
            PlanError::Input { port, .. } => format!("inputs.{port}"),
            _ => String::new(),
        };
        let error = StageError::new(error.code(), error.to_string(), error.mend()).at(&field);
        self.failed(stage, error, 0);
    }

    pub(super) fn ready(&mut self, stage: usize) {
        self.set(stage, State::Ready);
        self.say(Event::StageReady {
            stage: self.id(stage),
        });
        let because = format!("`{}` runs only when named", self.id(stage));
        self.skip_below(stage, &because);
    }
}

/// What the stage found out beside its files.
pub(super) fn outcome(record: &Record) -> Outcome {
    Outcome::of(&record.outcome)
}
