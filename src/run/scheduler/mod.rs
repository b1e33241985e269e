//! Which stage when: readiness, pools, cancellation.
//!
//! The life of a stage:
//!
//! ```text
//! Waiting --inputs settled--> Queued --slots--> Running --+--> Settled
//!    |                           |                        +--> Failed
//!    |                           +--cancelled--> Skipped  +--cancelled--> Skipped
//!    |                           +--rows wait for a decision--> People
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

mod drive;
mod place;
mod queue;
mod stop;

use std::collections::BTreeMap;
use std::time::Instant;

use cache::{Digest, Ticket};
use tokio::sync::{oneshot, watch};

use self::place::Placing;
use super::claims;
use super::guarded;
use super::job::Job;
use super::journal::Journal;
use super::machine::Machine;
use super::pools::{Held, Pools};
use super::process::Stop;
use super::project::Project;
use super::remote::{Far, Link};
use super::watch::Watching;
use super::{Options, RunError, Verdict};
use crate::config::StageSpec;
use crate::event::{Envelope, Event};
use crate::lock::Lock;
use crate::plan::{Decision, Planner, Settled};

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
    /// People have to decide something first.
    People,
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
    /// What tells whether the results of stages came into their places.
    pub(super) tickets: Vec<(usize, Ticket)>,
    placing: Placing,
    /// Whether any stage began.
    pub(super) something_ran: bool,
    /// Lock entries that this run settled.
    pub(super) locked: Lock,
    pub(super) tally: Tally,
    pub(super) began: Instant,
    /// What the store had asked the disk for before this run.
    pub(super) syncs_before: u64,
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
            tickets: Vec::new(),
            placing: Placing::default(),
            something_ran: false,
            locked: Lock::default(),
            tally: Tally::default(),
            began: Instant::now(),
            syncs_before: project.store.syncs(),
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
    pub(crate) fn run(&mut self) -> Result<Verdict, RunError> {
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
        // In a watch others follow.
        self.planner.work_begins();
        self.settle_store();
        // What was settled is worth locking, whatever came after.
        self.write_lock();
        ended?;
        self.collect();
        self.tidy();
        self.tell_of_remote();
        Ok(self.finish())
    }

    /// What this run settled for the lock file.
    pub(crate) fn locked(&self) -> &Lock {
        &self.locked
    }

    /// After the end, in a process that ends: what is memory and nothing else is left to the system.
    /// Whoever waits for nothing any more gives back a thousand stages' texts for a twentieth of a run.
    pub(crate) fn leave(self) {
        let Self {
            planner,
            settled,
            locked,
            mut journal,
            ..
        } = self;
        journal.leave();
        std::mem::forget((planner, settled, locked));
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
        let Project {
            pipeline, graph, ..
        } = self.project;
        crate::check::stages(pipeline, graph, &self.selected, self.options.acts())?;
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
                State::Settled | State::Ready | State::Failed | State::People | State::Skipped
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
                Ok(Decision::People { .. }) => unreachable!("bug: only a preview says so"),
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
}
