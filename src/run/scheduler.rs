//! Which stage when: readiness, pools, cancellation.
//!
//! The life of a stage:
//!
//! ```text
//! Waiting --inputs settled--> Queued --slots--> Running --+--> Settled
//!    |                           |                        +--> Failed
//!    |                           +--cancelled--> Skipped
//!    +--its result is there--> Settled
//!    +--acts outside, not named--> Ready
//!    +--something above failed or broke a gate--> Skipped
//! ```
//!
//! Promises: one function, [`Scheduler::set`], changes a state; a plan is asked once about
//! every stage, at the moment its inputs are settled; after a failure nothing new starts
//! (what runs may end, its result is kept) unless the run is to keep going.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use cache::Digest;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::executor::{Voice, perform};
use super::job::{Job, Message};
use super::journal::Journal;
use super::pools::Pools;
use super::process::Stop;
use super::project::Project;
use super::{Options, RunError, Verdict};
use crate::config::StageSpec;
use crate::event::{Envelope, Event};
use crate::lock::Lock;
use crate::plan::{Decision, Planner, Settled};

/// What a stage is thought to take that never ran, in milliseconds.
const UNKNOWN: u64 = 1000;

/// Where a stage stands.
#[derive(Debug)]
pub(super) enum State {
    /// Not selected, or so many selected stages above it are not settled.
    Waiting(usize),
    /// Ready to run when slots are free.
    Queued,
    /// Its executor is at work.
    Running,
    /// Its result is there.
    Settled,
    /// It acts outside and was not named.
    Ready,
    /// It failed.
    Failed,
    /// It was not run.
    Skipped,
}

/// One run.
pub(crate) struct Scheduler<'a> {
    pub(super) project: &'a Project,
    pub(super) options: &'a Options,
    pub(super) planner: Planner<'a>,
    /// Selected stages in order.
    pub(super) selected: Vec<usize>,
    pub(super) inside: Vec<bool>,
    pub(super) states: Vec<State>,
    /// How many stages run.
    running: usize,
    pub(super) settled: Settled,
    /// Outputs of the last results, to say whether bytes changed.
    pub(super) before: BTreeMap<usize, BTreeMap<String, Digest>>,
    jobs: BTreeMap<usize, Job>,
    pools: Pools,
    urgency: Vec<u64>,
    /// Stages whose inputs are settled and that the plan was not asked about.
    pub(super) open: Vec<usize>,
    /// Lock entries that this run settled.
    pub(super) locked: Lock,
    pub(super) tally: Tally,
    pub(super) began: Instant,
    journal: Journal,
    tell: &'a mut dyn FnMut(&Envelope),
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) ran: usize,
    /// Bytes of new results.
    pub(super) bytes: u64,
    pub(super) fresh: usize,
    pub(super) failed: bool,
    pub(super) gate: bool,
    pub(super) locked: bool,
    pub(super) people: bool,
    pub(super) cancelled: bool,
}

impl<'a> Scheduler<'a> {
    pub(crate) fn new(
        project: &'a Project,
        options: &'a Options,
        planner: Planner<'a>,
        selected: Vec<usize>,
        tell: &'a mut dyn FnMut(&Envelope),
    ) -> Self {
        let count = project.pipeline.stages.len();
        let mut inside = vec![false; count];
        for stage in &selected {
            inside[*stage] = true;
        }
        let states = (0..count).map(|stage| {
            let above = project.graph.parents(stage);
            State::Waiting(above.iter().filter(|above| inside[**above]).count())
        });
        let cores = options.jobs.unwrap_or_else(cores);
        Self {
            states: states.collect(),
            running: 0,
            settled: Settled::new(),
            before: BTreeMap::new(),
            jobs: BTreeMap::new(),
            pools: Pools::new(&project.pipeline.pools, cores),
            urgency: urgency(project, &planner),
            open: Vec::new(),
            locked: Lock::default(),
            tally: Tally::default(),
            began: Instant::now(),
            journal: Journal::new(project.store.home()),
            project,
            options,
            planner,
            selected,
            inside,
            tell,
        }
    }

    /// The whole run. What the plan can settle without running anything is settled before
    /// the async room opens, so a run that does nothing starts no thread.
    pub(crate) fn run(mut self) -> Result<Verdict, RunError> {
        self.say(Event::RunStarted {
            pipeline: self.project.pipeline.name.clone(),
            profile: self.project.pipeline.profile.clone(),
            stages: self.ids(&self.selected),
        });
        let firsts = self.selected.iter().rev().copied();
        self.open = firsts
            .filter(|stage| matches!(self.states[*stage], State::Waiting(0)))
            .collect();
        let ended = self.go();
        // What was settled is worth locking, whatever came after.
        self.write_lock();
        ended?;
        self.collect();
        Ok(self.finish())
    }

    fn go(&mut self) -> Result<(), RunError> {
        self.advance();
        if !self.jobs.is_empty() {
            // Faults that can be known before anything runs are told before anything runs.
            crate::check::stages(&self.project.pipeline, &self.project.graph, &self.selected)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(RunError::Runtime)?;
            runtime.block_on(self.drive())?;
        }
        self.offer();
        Ok(())
    }

    pub(super) fn spec(&self, stage: usize) -> &'a StageSpec {
        &self.project.pipeline.stages[stage]
    }

    pub(super) fn id(&self, stage: usize) -> String {
        self.spec(stage).id.clone()
    }

    pub(super) fn ids(&self, stages: &[usize]) -> Vec<String> {
        stages.iter().map(|stage| self.id(*stage)).collect()
    }

    pub(super) fn say(&mut self, event: Event) {
        let told = Envelope {
            at: self.began.elapsed().as_millis() as u64,
            event,
        };
        self.journal.hear(&told);
        (self.tell)(&told);
    }

    /// The only place where a state changes.
    pub(super) fn set(&mut self, stage: usize, state: State) {
        let before = std::mem::replace(&mut self.states[stage], state);
        debug_assert!(
            matches!(before, State::Waiting(_) | State::Queued | State::Running),
            "bug: `{}` left {before:?}, which is an end",
            self.id(stage)
        );
    }

    /// Asks the plan about every stage whose inputs are settled, until nothing new is.
    fn advance(&mut self) {
        while let Some(stage) = self.open.pop() {
            if !matches!(self.states[stage], State::Waiting(_)) {
                continue;
            }
            match self.planner.decide(stage, &self.settled) {
                Ok(Decision::Fresh { record, restored }) => self.fresh(stage, &record, restored),
                Ok(Decision::Run {
                    key,
                    parts,
                    inputs,
                    reasons,
                }) => {
                    let reasons = reasons.iter().map(ToString::to_string).collect();
                    let job = self.job(stage, key, parts, inputs, reasons);
                    self.queue(stage, job);
                }
                Ok(Decision::Ready { .. }) => self.ready(stage),
                Ok(Decision::Waiting { on }) => {
                    let on = self.ids(&on).join("`, `");
                    unreachable!(
                        "bug: `{}` waits for `{on}`, which are settled",
                        self.id(stage)
                    );
                }
                Err(error) => self.undecided(stage, &error),
            }
        }
    }

    pub(super) fn job(
        &self,
        stage: usize,
        key: Digest,
        parts: cache::KeyParts,
        inputs: crate::plan::Inputs,
        reasons: Vec<String>,
    ) -> Job {
        let spec = self.spec(stage);
        let source = crate::plan::key::source(spec);
        let cores = self.options.jobs.unwrap_or_else(cores);
        Job {
            pipeline: Arc::clone(&self.project.pipeline),
            store: Arc::clone(&self.project.store),
            stage,
            key,
            parts,
            inputs,
            pin: source
                .and_then(|id| self.project.lock.source(&id))
                .map(str::to_owned),
            threads: cores,
            network: !self.options.frozen,
            forced: self.options.recompute
                || self.options.forced.contains(&spec.id)
                || spec.effect == stages::Effect::External,
            log: self.project.log(&spec.id),
            reasons,
            out: self.project.out(),
        }
    }

    pub(super) fn queue(&mut self, stage: usize, job: Job) {
        if let Some(last) = self.planner.last().get(&self.spec(stage).id) {
            let digests = last.outputs.iter();
            let digests = digests.map(|(name, tree)| (name.clone(), tree.digest()));
            self.before.insert(stage, digests.collect());
        }
        self.set(stage, State::Queued);
        self.pools
            .queue(stage, self.spec(stage).resources, self.urgency[stage]);
        self.jobs.insert(stage, job);
    }

    /// The async part: starts what can start, hears what happens, until nothing runs.
    async fn drive(&mut self) -> Result<(), RunError> {
        let (to, mut messages) = mpsc::unbounded_channel();
        let (stop, stopping) = watch::channel(Stop::No);
        let mut signals = Signals::new().map_err(RunError::Runtime)?;
        let mut executors = JoinSet::new();
        loop {
            while let Some(stage) = self.pools.next() {
                let job = self.jobs.remove(&stage).expect("a queued stage has a job");
                self.set(stage, State::Running);
                self.running += 1;
                let voice = Voice {
                    stage,
                    to: to.clone(),
                };
                executors.spawn(perform(Arc::new(job), voice, stopping.clone()));
            }
            if self.running == 0 {
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
                () = signals.next() => self.cancel(&stop),
            }
        }
        Ok(())
    }

    /// The first signal asks, the second does not.
    fn cancel(&mut self, stop: &watch::Sender<Stop>) {
        let again = std::mem::replace(&mut self.tally.cancelled, true);
        let (wish, text) = if again {
            (Stop::Now, "stopping at once")
        } else {
            (
                Stop::Ask,
                "stopping: running stages may save what they have; again to stop at once",
            )
        };
        self.notice("run::cancelled", text.to_owned());
        self.drop_queued("the run was cancelled");
        let _nobody_runs = stop.send(wish);
    }

    /// Nothing new starts.
    pub(super) fn drop_queued(&mut self, because: &str) {
        for stage in self.pools.clear() {
            self.jobs.remove(&stage);
            self.skip(stage, because);
        }
        self.open.clear();
        for stage in self.selected.clone() {
            if matches!(self.states[stage], State::Waiting(_)) {
                self.skip(stage, because);
            }
        }
    }

    fn hear(&mut self, stage: usize, message: Message) {
        match message {
            Message::Started { attempt, reasons } => {
                let event = Event::StageStarted {
                    stage: self.id(stage),
                    reasons,
                    log: self.project.log(&self.spec(stage).id),
                    attempt,
                };
                self.say(event);
            }
            Message::Said(said) => self.say(Event::Stage {
                stage: self.id(stage),
                said,
            }),
            Message::TryFailed(error, millis) => self.say_failed(stage, error, millis, true),
            Message::Notice(code, text) => self.notice(code, text),
            Message::Ended(ended) => {
                self.running -= 1;
                self.pools.give_back(self.spec(stage).resources);
                self.ended(stage, *ended);
                self.advance();
            }
        }
    }
}

/// The signals that end a run.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// How long everything takes that hangs on each stage, itself included: by the last results
/// where there are any.
fn urgency(project: &Project, planner: &Planner<'_>) -> Vec<u64> {
    let stages = &project.pipeline.stages;
    let mut urgency = vec![0; stages.len()];
    for stage in project.graph.order().iter().rev().copied() {
        let last = planner.last().get(&stages[stage].id);
        let own = last.map_or(UNKNOWN, |last| last.made.millis).max(1);
        let below = project.graph.children(stage);
        let below = below.into_iter().map(|child| urgency[child]).max();
        urgency[stage] = own + below.unwrap_or(0);
    }
    urgency
}

/// Processor cores of this machine.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
