//! Bytes from the remote, when they are wanted: they come (`Fetching`) when a stage that reads them is to
//! run (`Wanting` meanwhile), or when they are shown: the stage was named, or nothing selected reads it, or
//! `out/` shows an older result of it. Bytes that cannot be had are made anew; should others come out, the
//! run is planned once more, for what was settled below them no longer holds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use cache::{Moved, Record, Remote, Store, Unmoved};
use stages::StageError;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::super::claims;
use super::super::executor::Voice;
use super::super::job::{Job, Message};
use super::super::log::bring_back;
use super::super::scheduler::{Scheduler, State};
use super::far::Errand;
use super::push::Meter;
use crate::config::Fault;
use crate::event::Event;
use crate::plan::{Origin, Reason};

impl Scheduler<'_> {
    /// Wants the bytes of a stage that is away.
    pub(super) fn fetch(&mut self, stage: usize) {
        let away = self.far.away.get(&stage).expect("it is away");
        let record = away.record.clone().expect("its record was found");
        self.set(stage, State::Fetching);
        if self.far.remote().is_some() {
            self.far
                .errands
                .push(Errand::Fetch(stage, Box::new(record)));
        } else {
            self.unfetched(stage, "the remote is left alone");
        }
    }

    /// Bytes came, or did not.
    pub(in super::super) fn fetched(
        &mut self,
        stage: usize,
        outcome: Result<(Record, Moved), Unmoved>,
        millis: u64,
    ) {
        self.far.under_way -= 1;
        match outcome {
            Ok((record, moved)) => {
                self.far.told.pulled += 1;
                self.far.told.pulled_bytes += moved.bytes;
                self.say(Event::StagePulled {
                    stage: self.id(stage),
                    blobs: moved.blobs,
                    bytes: moved.bytes,
                    millis,
                });
                self.far.away.remove(&stage);
                if let Err(error) = self.planner.settle(stage, &record) {
                    self.notice(error.code(), error.to_string());
                }
                self.set(stage, State::Settled);
                self.show(stage, &record, false);
                let log = self.project.log(&self.spec(stage).id);
                bring_back(&log, &record, &self.project.store);
                self.bytes_came(stage);
            }
            // Nothing new begins: its record counts, and the next run fetches it.
            Err(_) if self.tally.cancelled => self.set(stage, State::Distant),
            Err(error) => self.unfetched(stage, &error.to_string()),
        }
        self.advance();
    }

    /// Bytes that cannot be had: the stage runs.
    fn unfetched(&mut self, stage: usize, because: &str) {
        let away = self.far.away.remove(&stage).expect("it is away");
        self.tally.fresh -= 1;
        let reason = Reason::Unfetched {
            because: because.to_owned(),
        };
        let text = format!("`{}` is to run: {reason}", self.id(stage));
        self.notice("remote::not-fetched", text);
        let mut job = away.job;
        job.reasons = vec![reason.to_string()];
        self.far.remade.insert(stage);
        if self.closed() {
            self.skip(stage, "nothing new is begun");
            self.nothing_comes(stage, "nothing new is begun");
            return;
        }
        // Looked at only now, for nobody thought that it would run.
        let pipeline = &self.project.pipeline;
        let machine = self.machine.as_ref();
        let room = machine.map(|machine| claims::check(pipeline, &[stage], machine));
        if let Some(Err(faults)) = room {
            let Fault {
                code,
                message,
                mend,
                ..
            } = &faults.items[0];
            let error = StageError::new(code, message, mend).at("resources");
            self.failed(stage, error, 0);
            return;
        }
        self.queue_if_it_may(stage, job, &[reason]);
    }

    /// Whether a job has to wait for bytes; then it does.
    pub(in super::super) fn wants(&mut self, stage: usize, job: Job) -> Option<Job> {
        let items = job.inputs.values().flatten();
        let above = items.filter_map(|item| match item.origin {
            Origin::Product { stage, .. } => Some(stage),
            Origin::Path { .. } => None,
        });
        let here = |above: &usize| matches!(self.states[*above], State::Settled);
        let wanted: BTreeSet<usize> = above.filter(|above| !here(above)).collect();
        if wanted.is_empty() {
            return Some(job);
        }
        let gone = |above: &&usize| {
            matches!(
                self.states[**above],
                State::Failed | State::People | State::Skipped
            )
        };
        if let Some(gone) = wanted.iter().find(gone) {
            let because = format!("`{}` has no bytes", self.id(*gone));
            self.skip(stage, &because);
            self.skip_below(stage, &because);
            return None;
        }
        self.set(stage, State::Wanting);
        self.far.wanting.insert(stage, (job, wanted.clone()));
        for above in wanted {
            if matches!(self.states[above], State::Distant) {
                self.fetch(above);
            }
        }
        None
    }

    /// Who waited for the bytes of `stage` may go on.
    fn bytes_came(&mut self, stage: usize) {
        for (_, wanted) in self.far.wanting.values_mut() {
            wanted.remove(&stage);
        }
        let free = self
            .far
            .wanting
            .iter()
            .filter(|(_, (_, wanted))| wanted.is_empty());
        let free: Vec<usize> = free.map(|(stage, _)| *stage).collect();
        for stage in free {
            let (job, _) = self.far.wanting.remove(&stage).expect("it was just there");
            self.queue(stage, job);
        }
    }

    /// Who waited for the bytes of `stage` waits in vain.
    pub(in super::super) fn nothing_comes(&mut self, stage: usize, because: &str) {
        let vain = self.far.wanting.iter();
        let vain = vain.filter(|(_, (_, wanted))| wanted.contains(&stage));
        let vain: Vec<usize> = vain.map(|(stage, _)| *stage).collect();
        for stage in vain {
            self.far.wanting.remove(&stage);
            self.skip(stage, because);
            self.skip_below(stage, because);
            self.nothing_comes(stage, because);
        }
    }

    /// A stage that was settled by a record was made after all. `true` if it is no such stage.
    pub(in super::super) fn first_time(&mut self, stage: usize, record: &Record) -> bool {
        if !self.far.remade.remove(&stage) {
            return true;
        }
        if self.settled.get(&stage) == Some(&record.outputs) {
            self.bytes_came(stage);
            return false;
        }
        self.far.again = true;
        self.tally.superseded = true;
        let because = format!(
            "`{}` came out with other bytes than the remote's record says: planned anew",
            self.id(stage)
        );
        self.notice("remote::other-bytes", because.clone());
        self.drop_queued(&because);
        false
    }

    /// Stages that wait for the remote, when nothing new is to begin.
    pub(in super::super) fn drop_away(&mut self, because: &str) {
        for stage in std::mem::take(&mut self.far.wanting).into_keys() {
            self.skip(stage, because);
        }
        for stage in self.selected.clone() {
            if matches!(self.states[stage], State::Asking) {
                self.far.away.remove(&stage);
                self.skip(stage, because);
            }
        }
    }
}

/// One result, when its turn comes.
pub(super) async fn pulled(
    remote: Arc<Remote>,
    store: Arc<Store>,
    record: Record,
    voice: Voice,
    permits: Arc<Semaphore>,
) {
    let _permit = permits.acquire().await;
    let began = Instant::now();
    let teller = voice.clone();
    let pulled = spawn_blocking(move || {
        let meter = Meter::of(&record);
        bring(&remote, &store, &record, &|bytes| {
            if let Some((moved, total)) = meter.moved(bytes) {
                teller.tell(Message::Pulling(moved, total));
            }
        })
    });
    let outcome = pulled.await;
    let outcome = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    let millis = began.elapsed().as_millis() as u64;
    let outcome = outcome.map(|brought| (brought.record, brought.moved));
    voice.tell(Message::Fetched(Box::new(outcome), millis));
}

/// A result that was fetched.
pub struct Brought {
    /// Its record, as it is at the remote.
    pub record: Record,
    /// What moved.
    pub moved: Moved,
}

/// Fetches a result into the store. Blocks.
///
/// What is known of a last result lacks its log, so the record is asked for once more; where it
/// cannot be had, what is known will do.
pub fn bring(
    remote: &Remote,
    store: &Store,
    record: &Record,
    seen: &cache::Seen<'_>,
) -> Result<Brought, Unmoved> {
    let whole = match record.made.log {
        Some(_) => None,
        None => remote.find(&record.key, Some(&record.result())),
    };
    let record = whole.unwrap_or_else(|| record.clone());
    let moved = remote.pull(store, &record, seen)?;
    Ok(Brought { record, moved })
}
