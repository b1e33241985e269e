//! `tunesmith run [STAGE...]`

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::config::{Pipeline, Pools, resources};
use crate::event::{Envelope, Event};
use crate::report::{Ci, Json, Listener, Live, Plain, Setting, Trace, shown_path};
use crate::run::{self, Halt, Options, Project};

#[derive(Args, Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "flags are booleans")]
pub(super) struct RunArgs {
    /// Stages to bring up to date, with everything they need; all, if none is named
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// Run this stage although its result is there (repeatable)
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// After a failure, still start stages that do not need the failed one
    #[arg(short, long)]
    keep_going: bool,
    /// Use exactly the results that pipeline.lock names, or fail (exit code 5)
    #[arg(long)]
    locked: bool,
    /// With --locked: make everything anew and compare it with the lock
    #[arg(long, requires = "locked")]
    recompute: bool,
    /// Like --locked for sources, and refuse the network
    #[arg(long)]
    frozen: bool,
    /// Neither ask the remote store nor put anything there
    #[arg(long)]
    no_remote: bool,
    /// Slots for processor work, and threads for each stage [default: all cores]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Size of a pool, over the file's and the machine's: gpu=2, memory=16GiB (repeatable)
    #[arg(long = "pool", value_name = "NAME=SIZE")]
    pools: Vec<String>,
    /// Run again whenever something that is read changes; writes no lock, nothing acts outside
    #[arg(long, conflicts_with_all = ["force", "locked"])]
    watch: bool,
    /// Write when each stage ran to this file, for chrome://tracing or Perfetto
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Tell everything as JSON lines on standard output
    #[arg(long)]
    pub(super) json: bool,
    /// Show what stages write
    #[arg(short, long)]
    verbose: bool,
}

/// `tunesmith deploy`: `run` with the stages that act outside.
pub(super) fn deploy(common: &Common, mut args: RunArgs) -> Result<Exit, Trouble> {
    if args.watch {
        return Err(Trouble::new(
            Exit::Config,
            "deploy::watch",
            "a watch lets nothing act outside",
            "watch with `tunesmith run --watch`, then deploy once",
        ));
    }
    if args.stages.is_empty() {
        let (pipeline, _) = common.pipeline()?;
        let outside = pipeline.stages.iter();
        let outside = outside.filter(|stage| stage.effect == stages::Effect::External);
        args.stages = outside.map(|stage| stage.id.clone()).collect();
        if args.stages.is_empty() {
            return Err(Trouble::new(
                Exit::Config,
                "deploy::nothing",
                "no stage of the pipeline acts outside",
                "add one: `uses: upload`, or a command with `effect: external`",
            ));
        }
    }
    run(common, &args)
}

pub(super) fn run(common: &Common, args: &RunArgs) -> Result<Exit, Trouble> {
    let project = common.project()?;
    let options = Options {
        targets: args.stages.clone(),
        forced: args.force.iter().cloned().collect::<BTreeSet<_>>(),
        keep_going: args.keep_going,
        locked: args.locked,
        recompute: args.recompute,
        frozen: args.frozen,
        jobs: args.jobs.map(usize::from),
        pools: pools(&args.pools, &project.pipeline)?,
        inside_only: args.watch,
        no_remote: args.no_remote,
        checking: false,
        write_lock: common.sets.is_empty() && !args.locked && !args.frozen && !args.watch,
    };
    let setting = Setting {
        results: shown_path(&project.results()),
        verbose: args.verbose,
    };
    let env = |name: &str| std::env::var(name).ok();
    let mut ci = Ci::of(&env, &project.pipeline);
    let mut trace = Trace::default();
    let mut listener = listener(args, &setting);
    let mut tell = |told: &Envelope| {
        if let Event::RunStarted { .. } = told.event {
            // A watch has many runs.
            listener = self::listener(args, &setting);
            trace = Trace::default();
        }
        if args.trace.is_some() {
            trace.hear(told);
        }
        listener.hear(told);
        if let Some(ci) = &mut ci {
            ci.hear(told);
        }
    };
    let verdict = if args.watch {
        let file = project.pipeline.file.clone();
        drop(project);
        let reopen = (file.clone(), common.overrides());
        let reopen = move || Project::open(&reopen.0, &reopen.1);
        let mut complain = |halt: Halt| {
            let _goes_on = Trouble::from(halt).tell(args.json);
        };
        run::watch(&file, reopen, &options, &mut tell, &mut complain)?
    } else {
        let verdict = run::run(&project, &options, &mut tell)?;
        project.leave();
        verdict
    };
    if let Some(file) = &args.trace {
        super::trace::write(&trace, file)?;
    }
    Ok(verdict.into())
}

fn listener(args: &RunArgs, setting: &Setting) -> Box<dyn Listener> {
    if args.json {
        Box::new(Json::new(std::io::stdout()))
    } else if std::io::stdout().is_terminal() && !args.verbose {
        Box::new(Live::new(setting.clone()))
    } else {
        Box::new(Plain::new(std::io::stdout(), setting.clone()))
    }
}

/// `--pool gpu=2 --pool memory=16GiB`
fn pools(given: &[String], pipeline: &Pipeline) -> Result<Pools, Trouble> {
    let mut pools = Pools::new();
    for text in given {
        let (name, size) = text.split_once('=').unwrap_or((text, ""));
        let own = resources::POOLS.iter().map(|(name, _)| *name);
        let mut known = own
            .chain(resources::SIZES)
            .chain(pipeline.pools.keys().map(String::as_str));
        if !known.any(|known| known == name) {
            return Err(Trouble::new(
                Exit::Config,
                "pool::unknown",
                format!("there is no pool `{name}`"),
                &format!("declare it in the file: `pools: {{ {name}: 1 }}`"),
            ));
        }
        let size = if resources::is_size(name) {
            resources::size(size)
        } else {
            let most = resources::MOST_SLOTS;
            size.parse().ok().filter(|size| *size <= most)
        };
        let Some(size) = size else {
            return Err(Trouble::new(
                Exit::Config,
                "pool::size",
                format!("`--pool {text}` gives no size"),
                "write `--pool gpu=2` or `--pool memory=16GiB`",
            ));
        };
        pools.insert(name.to_owned(), size);
    }
    Ok(pools)
}
