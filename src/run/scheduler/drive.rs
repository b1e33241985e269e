//! The async part: starts what can start, and hears what executors say, until nothing runs.
//!
//! Promises: a stage that waits for another process, or for its next try, holds no slots meanwhile.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{Running, Scheduler, State};
use crate::event::Event;
use crate::run::RunError;
use crate::run::executor::{Voice, perform};
use crate::run::job::Message;
use crate::run::process::Stop;
use crate::run::signals::Signals;
use crate::run::watch::{Change, Watching};

/// So many stages may be about to store their outputs while others have their slots: the processor
/// works while the disk syncs, but a slow disk holds the run up before much piles up.
const TAKING: usize = 8;

impl Scheduler<'_> {
    /// The async part: starts what can start, hears what happens, until nothing runs.
    pub(super) async fn drive(&mut self) -> Result<(), RunError> {
        let (to, mut messages) = mpsc::unbounded_channel();
        let mut signals = Signals::new().map_err(RunError::Runtime)?;
        let mut executors = JoinSet::new();
        let mut watching = self.watching.take();
        self.planner.work_begins();
        loop {
            self.open()?;
            self.run_errands(&to, &mut executors);
            self.place_soon(&to, &mut executors);
            if self.opened {
                self.start(&to, &mut executors);
            }
            if self.running.is_empty() && !self.far.busy() {
                break;
            }
            tokio::select! {
                // What was said before an end is heard before it.
                biased;
                Some((stage, message)) = messages.recv() => self.hear(stage, message),
                Some(ended) = executors.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        std::panic::resume_unwind(error.into_panic());
                    }
                }
                () = signals.next() => self.cancel(),
                Some(change) = change(&mut watching) => self.look_again(change),
            }
        }
        debug_assert!(
            self.jobs.is_empty(),
            "bug: stages are left that nothing can start"
        );
        self.watching = watching;
        Ok(())
    }

    /// Starts everything that slots are free for.
    fn start(&mut self, to: &mpsc::UnboundedSender<(usize, Message)>, executors: &mut JoinSet<()>) {
        while let Some((stage, held)) = self.pools.next() {
            if let Some(grant) = self.grants.remove(&stage) {
                match (grant.send(held.clone()), self.running.get_mut(&stage)) {
                    (Ok(()), Some(running)) => running.held = Some(held),
                    // It was cancelled meanwhile.
                    _ => self.pools.give_back(held),
                }
                continue;
            }
            let job = self.jobs.remove(&stage).expect("a queued stage has a job");
            self.set(stage, State::Running);
            let (stop, stopping) = watch::channel(Stop::No);
            let voice = Voice {
                stage,
                to: to.clone(),
            };
            let running = Running {
                key: job.key,
                taking: false,
                held: Some(held.clone()),
                stop,
            };
            self.running.insert(stage, running);
            executors.spawn(perform(Arc::new(job), held, voice, stopping));
        }
    }

    fn hear(&mut self, stage: usize, message: Message) {
        match message {
            Message::Started { attempt, reasons } => self.say_started(stage, attempt, reasons),
            Message::Said(said) => self.say(Event::Stage {
                stage: self.id(stage),
                said,
            }),
            Message::Waiting(holder) => {
                self.give_back(stage);
                self.say_waiting(stage, holder);
            }
            Message::Taking => {
                let taking = self.running.values().filter(|running| running.taking);
                if taking.count() < TAKING && self.holds_a_core_among_several(stage) {
                    self.give_back(stage);
                    if let Some(running) = self.running.get_mut(&stage) {
                        running.taking = true;
                    }
                }
            }
            Message::Wanting(grant) => {
                self.give_back(stage);
                if let Some(running) = self.running.get_mut(&stage) {
                    running.taking = false;
                }
                self.grants.insert(stage, grant);
                self.line_up(stage);
            }
            Message::TryFailed(error, millis, pause) => {
                self.give_back(stage);
                self.say_failed(stage, error, millis, Some(pause));
            }
            Message::Notice(code, text) => self.notice(code, text),
            Message::Answered(record) => self.answered(stage, record.map(|record| *record)),
            Message::Pulling(bytes, total) => self.say(Event::RemoteProgress {
                stage: self.id(stage),
                doing: "pull".to_owned(),
                bytes,
                total,
            }),
            Message::Fetched(outcome, millis) => self.fetched(stage, *outcome, millis),
            Message::Placed => self.placed(),
            Message::Push(push) => self.heard_of_push(stage, push),
            Message::Ended(ended) => {
                if self.grants.remove(&stage).is_some() {
                    self.step_out(stage);
                }
                self.give_back(stage);
                self.running.remove(&stage);
                self.ended(stage, *ended);
                self.advance();
            }
        }
    }

    /// Whether a stage holds one core of several and nothing else: only then does it pay to let
    /// others have it while outputs are stored. With one core the order of a run stays plain.
    fn holds_a_core_among_several(&self, stage: usize) -> bool {
        let held = self
            .running
            .get(&stage)
            .and_then(|running| running.held.as_ref());
        let claims = held.map(|held| &held.claims);
        claims.is_some_and(|claims| claims.len() == 1 && claims.get("cpu") == Some(&1))
            && self.pools.size("cpu") > 1
    }

    fn give_back(&mut self, stage: usize) {
        let running = self.running.get_mut(&stage);
        if let Some(held) = running.and_then(|running| running.held.take()) {
            self.pools.give_back(held);
        }
    }

    fn say_started(&mut self, stage: usize, attempt: u32, reasons: Vec<String>) {
        self.something_ran = true;
        let held = self.running.get(&stage);
        let held = held.and_then(|running| running.held.clone());
        let held = held.unwrap_or_default();
        let since = self.ready_since.get(&stage);
        let waited = since.map_or(0, |since| since.elapsed().as_millis() as u64);
        let event = Event::StageStarted {
            stage: self.id(stage),
            reasons,
            log: self.project.log(&self.spec(stage).id),
            attempt,
            holds: held.claims,
            devices: held.devices,
            waited,
        };
        self.say(event);
    }

    fn say_waiting(&mut self, stage: usize, holder: Option<cache::Holder>) {
        let stage = self.id(stage);
        let since = |holder: &cache::Holder| {
            let second = i64::try_from(holder.since).ok()?;
            Some(jiff::Timestamp::from_second(second).ok()?.to_string())
        };
        let event = match holder {
            Some(holder) => Event::StageWaiting {
                stage,
                since: since(&holder).unwrap_or_default(),
                pid: holder.pid,
                host: holder.host,
                command: holder.command,
            },
            // It has just gone, or has not yet said who it is.
            None => Event::StageWaiting {
                stage,
                pid: 0,
                host: String::new(),
                since: String::new(),
                command: String::new(),
            },
        };
        self.say(event);
    }
}

/// The next change, where somebody watches; else never.
async fn change(watching: &mut Option<&mut Watching>) -> Option<Change> {
    match watching {
        Some(watching) => watching.changed().await,
        None => std::future::pending().await,
    }
}
