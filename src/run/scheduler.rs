//! Which stage when: readiness, pools, cancellation.
//!
//! The life of a stage:
//!
//! ```text
//! Waiting --inputs settled--> Queued --slots--> Running --+--> Settled
//!    |                           |                        +--> Failed
//!    |                           +--cancelled--> Skipped  +--cancelled--> Skipped
//!    +--its result is there--> Settled
//!    +--perhaps at the remote--> Asking --found--> Distant --bytes wanted--> Fetching --> Settled
//!    |                             +--not--> Queued                 +--not had--> Queued
//!    +--inputs Distant, is to run--> Wanting --bytes came--> Queued
//!    +--acts outside, not named--> Ready
//!    +--something above failed or broke a gate--> Skipped
//! ```
//!
//! Promises: one function, [`Scheduler::set`], changes a state; a plan is asked once about
//! every stage, at the moment its inputs are settled; after a failure nothing new starts
//! (what runs may end, its result is kept) unless the run is to keep going; a stage that waits
//! for another process, or for its next try, holds no slots meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use cache::Digest;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::claims;
use super::executor::{Voice, perform};
use super::guarded;
use super::job::{Job, Message};
use super::journal::Journal;
use super::machine::{Machine, cores};
use super::pools::{Held, Pools};
use super::process::Stop;
use super::project::Project;
use super::remote::{Far, Link};
use super::signals::Signals;
use super::watch::{Change, Watching};
use super::{Options, RunError, Verdict};
use crate::config::StageSpec;
use crate::event::{Envelope, Event};
use crate::lock::Lock;
use crate::plan::{Decision, Planner, Settled};

/// So many stages may be about to store their outputs while others have their slots: the processor
/// works while the disk syncs, but a slow disk holds the run up before much piles up.
const TAKING: usize = 8;

/// What a stage is thought to take that never ran, in milliseconds.
const UNKNOWN: u64 = 1000;

/// Where a stage stands.
#[derive(Debug)]
pub(super) enum State {
    /// Not selected, or so many selected stages above it are not settled.
    Waiting(usize),
    /// The remote is asked for its result.
    Asking,
    /// Its record is known, its bytes are at the remote.
    Distant,
    /// Its bytes are on their way.
    Fetching,
    /// It is to run when bytes that it reads have come.
    Wanting,
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
    /// Stages with an executor.
    pub(super) running: BTreeMap<usize, Running>,
    /// Stages with an executor that want slots again.
    grants: BTreeMap<usize, oneshot::Sender<Held>>,
    /// Why stages were ended before their end.
    pub(super) because: BTreeMap<usize, String>,
    pub(super) settled: Settled,
    /// Outputs of the last results, to say whether bytes changed.
    pub(super) before: BTreeMap<usize, BTreeMap<String, Digest>>,
    jobs: BTreeMap<usize, Job>,
    pub(super) pools: Pools,
    /// By stage; empty until the first stage is queued.
    urgency: Vec<u64>,
    /// Since when a stage is ready to run.
    ready_since: BTreeMap<usize, Instant>,
    /// Stages whose inputs are settled and that the plan was not asked about.
    pub(super) open: Vec<usize>,
    /// The remote, and what is under way there.
    pub(super) far: Far,
    /// Whether the machine was looked at, and what it has.
    opened: bool,
    pub(super) machine: Option<Machine>,
    /// Whether any stage began.
    pub(super) something_ran: bool,
    /// Lock entries that this run settled.
    pub(super) locked: Lock,
    pub(super) tally: Tally,
    pub(super) began: Instant,
    journal: Journal,
    tell: &'a mut dyn FnMut(&Envelope),
    /// `--watch`: who tells of changes, and how to read the pipeline anew.
    watching: Option<&'a mut Watching>,
}

/// A stage with an executor.
pub(super) struct Running {
    pub(super) key: Digest,
    /// Whether its program has ended and its slots were given to others.
    taking: bool,
    /// What it holds; nothing while it waits for another process or for its next try.
    held: Option<Held>,
    stop: watch::Sender<Stop>,
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
    /// `--watch`: inputs changed, so the run is not worth finishing.
    pub(super) superseded: bool,
}

impl<'a> Scheduler<'a> {
    pub(crate) fn new(
        project: &'a Project,
        options: &'a Options,
        planner: Planner<'a>,
        link: Link,
        selected: Vec<usize>,
        tell: &'a mut dyn FnMut(&Envelope),
        watching: Option<&'a mut Watching>,
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
        Self {
            states: states.collect(),
            running: BTreeMap::new(),
            grants: BTreeMap::new(),
            because: BTreeMap::new(),
            settled: Settled::new(),
            before: BTreeMap::new(),
            jobs: BTreeMap::new(),
            pools: Pools::default(),
            urgency: Vec::new(),
            ready_since: BTreeMap::new(),
            open: Vec::new(),
            far: Far::new(link),
            opened: false,
            machine: None,
            something_ran: false,
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
            watching,
        }
    }

    /// The whole run. What the plan can settle without running anything is settled before
    /// the async room opens, so a run that does nothing starts no thread.
    /// [`Verdict::Superseded`] asks for another run.
    pub(crate) fn run(mut self) -> Result<(Verdict, Lock), RunError> {
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
        self.tidy();
        self.tell_of_remote();
        let verdict = self.finish();
        Ok((verdict, self.locked))
    }

    fn go(&mut self) -> Result<(), RunError> {
        self.advance();
        self.open()?;
        if !self.jobs.is_empty() || self.far.busy() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(RunError::Runtime)?;
            runtime.block_on(self.drive())?;
        }
        self.offer();
        Ok(())
    }

    /// Before the first stage runs; a remote is asked before.
    fn open(&mut self) -> Result<(), RunError> {
        if self.opened || self.jobs.is_empty() || self.far.asking > 0 {
            return Ok(());
        }
        self.opened = true;
        // Faults that can be known before anything runs are told before anything runs.
        crate::check::stages(&self.project.pipeline, &self.project.graph, &self.selected)?;
        guarded::warm_up();
        self.open_pools()
    }

    /// Looks at the machine, and whether it has room for every stage that may run.
    fn open_pools(&mut self) -> Result<(), RunError> {
        let project = self.project;
        let among = |wanted: fn(&State) -> bool| -> Vec<usize> {
            let selected = self.selected.iter().copied();
            selected
                .filter(|stage| wanted(&self.states[*stage]))
                .collect()
        };
        let may_run =
            |state: &State| matches!(state, State::Waiting(_) | State::Queued | State::Wanting);
        let stages = among(may_run);
        // Those at the remote run only if their bytes cannot be had: no reason to refuse.
        let all = among(|state| !matches!(state, State::Settled | State::Ready));
        let machine = Machine::look(
            &claims::wanted(&project.pipeline, &all),
            &self.options.pools,
            &project.pipeline.pools,
            self.options.jobs,
            project.store.home(),
        );
        claims::check(&project.pipeline, &stages, &machine)?;
        self.machine = Some(machine.clone());
        self.pools.open(machine);
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
        (self.tell)(&told);
        self.journal.hear(told);
    }

    /// The only place where a state changes.
    pub(super) fn set(&mut self, stage: usize, state: State) {
        let before = std::mem::replace(&mut self.states[stage], state);
        debug_assert!(
            !matches!(
                before,
                State::Settled | State::Ready | State::Failed | State::Skipped
            ),
            "bug: `{}` left {before:?}, which is an end",
            self.id(stage)
        );
    }

    /// Asks the plan about every stage whose inputs are settled, until nothing new is.
    pub(super) fn advance(&mut self) {
        while let Some(stage) = self.open.pop() {
            if !matches!(self.states[stage], State::Waiting(_)) {
                continue;
            }
            let decided = self.planner.decide(stage, &self.settled);
            self.tell_pick(stage);
            match decided {
                Ok(Decision::Fresh { record, restored }) => self.fresh(stage, &record, restored),
                Ok(Decision::Run {
                    key,
                    parts,
                    inputs,
                    reasons,
                }) => self.ask_or_queue(stage, key, parts, inputs, reasons),
                Ok(Decision::Remote { record, inputs, .. }) => {
                    self.left_there(stage, record, inputs);
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
        // Who claims several cores means to use so many; one is what everybody claims.
        let threads = match usize::try_from(spec.resources.of("cpu")) {
            Ok(claim @ 2..) => claim.min(cores),
            _ => cores,
        };
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
            threads,
            network: !self.options.frozen,
            forced: self.options.recompute
                || self.planner.forces(stage)
                || spec.effect == stages::Effect::External,
            log: self.project.log(&spec.id),
            reasons,
            out: self.project.out(),
        }
    }

    pub(super) fn queue(&mut self, stage: usize, job: Job) {
        let Some(job) = self.wants(stage, job) else {
            return;
        };
        if let Some(last) = self.planner.last().get(&self.spec(stage).id) {
            let digests = last.outputs.iter();
            let digests = digests.map(|(name, tree)| (name.clone(), tree.digest()));
            self.before.insert(stage, digests.collect());
        }
        self.set(stage, State::Queued);
        self.line_up(stage);
        self.jobs.insert(stage, job);
    }

    /// Puts a stage in the queue for slots.
    fn line_up(&mut self, stage: usize) {
        if self.urgency.is_empty() {
            self.urgency = urgency(self.project, &self.planner);
        }
        self.ready_since.insert(stage, Instant::now());
        let spec = self.spec(stage);
        self.pools
            .queue(stage, &spec.resources, self.urgency[stage]);
    }

    /// Takes a stage out of the queue; whether it was there.
    pub(super) fn step_out(&mut self, stage: usize) -> bool {
        let spec = self.spec(stage);
        let urgency = self.urgency.get(stage).copied().unwrap_or_default();
        self.pools.remove(stage, &spec.resources, urgency)
    }

    /// The async part: starts what can start, hears what happens, until nothing runs.
    async fn drive(&mut self) -> Result<(), RunError> {
        let (to, mut messages) = mpsc::unbounded_channel();
        let mut signals = Signals::new().map_err(RunError::Runtime)?;
        let mut executors = JoinSet::new();
        let mut watching = self.watching.take();
        loop {
            self.open()?;
            self.run_errands(&to, &mut executors);
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

    /// The first signal asks, the second does not.
    fn cancel(&mut self) {
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
        if let Some(remote) = self.far.link.used() {
            remote.stop();
        }
        for running in self.running.values() {
            // One that is done does not listen any more.
            let _done = running.stop.send(wish);
        }
    }

    /// Asks one running stage to end.
    pub(super) fn end(&mut self, stage: usize, because: &str) {
        if let Some(running) = self.running.get(&stage) {
            self.because.insert(stage, because.to_owned());
            let _done = running.stop.send(Stop::Ask);
        }
    }

    /// Nothing new starts.
    pub(super) fn drop_queued(&mut self, because: &str) {
        for stage in self.pools.clear() {
            if self.grants.remove(&stage).is_some() {
                // Its executor ends by itself and says so.
                self.because.insert(stage, because.to_owned());
                continue;
            }
            self.jobs.remove(&stage);
            self.skip(stage, because);
        }
        self.open.clear();
        self.drop_away(because);
        for stage in self.selected.clone() {
            if matches!(self.states[stage], State::Waiting(_)) {
                self.skip(stage, because);
            }
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
