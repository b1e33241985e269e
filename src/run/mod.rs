//! Makes it so: the scheduler, its pools, and the executor of one stage. The only async room.
//!
//! Promises: a result exists when its record is committed; a run that is killed at any
//! moment leaves a whole store; children never outlive the command. Everything that
//! happens is told as events. Must not know: who listens, how anything is drawn.

mod accept;
mod ahead;
mod backoff;
mod checkpoints;
mod claims;
mod collect;
mod commit;
mod derive;
mod executor;
mod finish;
mod gates;
mod guard;
mod guarded;
mod job;
mod journal;
mod lines;
mod local;
mod log;
mod machine;
mod mask;
mod memory;
mod out;
mod plain;
mod pools;
mod prepare;
mod process;
mod project;
pub mod remote;
mod review;
mod revision;
mod scheduler;
mod settle;
mod shell;
mod signals;
mod watch;
mod wire;
mod worker;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::{Faults, Pools};
use crate::event::Envelope;
use crate::plan::{self, Planner};
pub use remote::Link;
use scheduler::Scheduler;

pub use accept::{AcceptError, Accepted, accept};
pub use collect::{Needs, bounds, dropped};
pub use guard::{GUARD, guard};
pub use journal::{journal, journals, keys_of, made_by};
pub use log::{kept_log, log_path};
pub use memory::{Planned, memory};
pub use project::{OpenError, Project, home, open_store};
pub use review::{Queue, ReviewError, Reviews};
pub use watch::{Halt, watch};

/// The folder of run-time state beside a pipeline file.
pub(crate) const HOME: &str = ".tunesmith";

/// What records say made them.
const PROGRAM: &str = concat!("tunesmith ", env!("CARGO_PKG_VERSION"));

/// This machine's name.
fn host() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Stage names; empty means what the pipeline says.
    pub targets: Vec<String>,
    /// Stages whose results do not count.
    pub forced: BTreeSet<String>,
    /// Whether independent stages start after a failure.
    pub keep_going: bool,
    /// Only results that the lock names count.
    pub locked: bool,
    /// Everything is made anew.
    pub recompute: bool,
    /// No network.
    pub frozen: bool,
    /// Size of the cpu pool, and threads a stage may use; `None` means this machine's cores.
    pub jobs: Option<usize>,
    /// Sizes of pools, which win over the file's and the machine's.
    pub pools: Pools,
    /// Nothing acts outside, not even what is named: a watch.
    pub inside_only: bool,
    /// Whether `pipeline.lock` is brought up to date.
    pub write_lock: bool,
    /// Only looked at: what is stale is shown, also under `locked`.
    pub checking: bool,
    /// The remote is neither asked nor given anything.
    pub no_remote: bool,
}

impl Options {
    /// Whether stages that act outside do so: where something was named, and not in a watch.
    fn acts(&self) -> bool {
        !self.targets.is_empty() && !self.inside_only
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything asked for is there.
    Ok,
    /// A stage failed.
    Failed,
    /// A gate is broken.
    Gate,
    /// The lock forbids going on.
    Locked,
    /// People have to decide something first.
    People,
    /// It was cancelled.
    Cancelled,
    /// What it reads changed, so it was not finished; another run follows (a watch).
    Superseded,
}

/// Why a run could not be.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The pipeline is at fault.
    #[error(transparent)]
    Faults(#[from] Faults),
    /// The operating system refused threads or signals.
    #[error("cannot start: {0}")]
    Runtime(std::io::Error),
}

/// Runs a project; `tell` hears everything that happens. For a process that ends soon: the memory of
/// what was planned is not given back.
pub fn run(
    project: &Project,
    options: &Options,
    tell: &mut dyn FnMut(&Envelope),
) -> Result<Verdict, RunError> {
    let selected = selection(project, options)?;
    // What a killed run left half built.
    project.store.sweep_asides(&project.out().join(out::ASIDES));
    loop {
        let link = link(project, options, None);
        let planner = planner(project, options, &link, &selected, false);
        let selected = selected.clone();
        let mut scheduler = Scheduler::new(project, options, planner, link, selected, tell, None);
        // What the remote said did not hold; what was made instead is there by now.
        match scheduler.run()? {
            Verdict::Superseded => {}
            verdict => {
                scheduler.leave();
                return Ok(verdict);
            }
        }
    }
}

/// The way to the project's remote, as these options allow it. After `patience` it is left alone.
pub fn link(project: &Project, options: &Options, patience: Option<Duration>) -> Link {
    Link::new(&project.remote, options.no_remote, options.frozen, patience)
}

/// The stages that a run works on, in order.
pub fn selection(project: &Project, options: &Options) -> Result<Vec<usize>, Faults> {
    let Project {
        pipeline, graph, ..
    } = project;
    let selected = graph.selection(pipeline, &options.targets)?;
    forced(project, options)?;
    Ok(selected)
}

/// The ids of the stages that are forced: of a sweep, all cells that are meant.
fn forced(project: &Project, options: &Options) -> Result<BTreeSet<String>, Faults> {
    let names: Vec<_> = options.forced.iter().cloned().collect();
    let stages = project.graph.named(&project.pipeline, &names)?;
    let ids = stages
        .iter()
        .map(|stage| project.pipeline.stages[*stage].id.clone());
    Ok(ids.collect())
}

/// A planner that answers as a run with these options would ask.
pub fn planner<'a>(
    project: &'a Project,
    options: &Options,
    link: &Link,
    selected: &[usize],
    preview: bool,
) -> Planner<'a> {
    let named = if options.acts() {
        let ids = selected.iter();
        ids.map(|stage| project.pipeline.stages[*stage].id.clone())
            .collect()
    } else {
        BTreeSet::new()
    };
    let asked = plan::Options {
        locked: options.locked,
        recompute: options.recompute,
        frozen: options.frozen,
        // A name that means nothing was told when the stages were selected.
        forced: forced(project, options).unwrap_or_default(),
        named,
        preview,
        checking: options.checking,
        remote: link.is_there(),
    };
    Planner::knowing(
        project.last(),
        &project.pipeline,
        &project.store,
        &project.lock,
        asked,
    )
}
