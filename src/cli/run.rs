//! `tunesmith run [STAGE...]`

use std::collections::BTreeSet;
use std::io::IsTerminal;

use clap::Args;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::report::{Json, Listener, Live, Plain, Setting, shown_path};
use crate::run::{Options, run as run_project};

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
    /// Slots for processor work, and threads for each stage [default: all cores]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Tell everything as JSON lines on standard output
    #[arg(long)]
    json: bool,
    /// Show what stages write
    #[arg(short, long)]
    verbose: bool,
}

/// `tunesmith deploy`: `run` with the stages that act outside.
pub(super) fn deploy(common: &Common, mut args: RunArgs) -> Result<Exit, Trouble> {
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
        write_lock: common.sets.is_empty() && !args.locked && !args.frozen,
    };
    let setting = Setting {
        results: shown_path(&project.results()),
        verbose: args.verbose,
    };
    let mut listener: Box<dyn Listener> = if args.json {
        Box::new(Json::new(std::io::stdout()))
    } else if std::io::stdout().is_terminal() && !args.verbose {
        Box::new(Live::new(setting))
    } else {
        Box::new(Plain::new(std::io::stdout(), setting))
    };
    let verdict = run_project(&project, &options, &mut |told| listener.hear(told))?;
    Ok(verdict.into())
}
