//! `tunesmith plan [STAGE...]`

use clap::Args;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::plan::{Decision, preview};
use crate::report::{forecast, screen};
use crate::run::{self, Options};

#[derive(Args, Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "flags are booleans")]
pub(super) struct PlanArgs {
    /// Stages to bring up to date; all, if none is named
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// Exit with code 4 if anything would run
    #[arg(long)]
    check: bool,
    /// As `run --locked` would: exit with code 5 where pipeline.lock does not name a result that is there
    #[arg(long)]
    locked: bool,
    /// As `run --frozen` would: every source must be pinned
    #[arg(long)]
    frozen: bool,
    /// Tell it as JSON lines
    #[arg(long)]
    json: bool,
}

pub(super) fn plan(common: &Common, args: &PlanArgs) -> Result<Exit, Trouble> {
    let project = common.project()?;
    let options = Options {
        targets: args.stages.clone(),
        locked: args.locked,
        frozen: args.frozen,
        ..Options::default()
    };
    let selected = run::selection(&project, &options)?;
    let mut planner = run::planner(&project, &options, &selected, true);
    let decisions = preview(&mut planner, &selected)?;
    let text = if args.json {
        forecast::json(&project.pipeline, &decisions)
    } else {
        forecast::text(&project.pipeline, &decisions, planner.picks())
    };
    screen::say(&text);
    let stale = decisions
        .iter()
        .any(|(_, decision)| matches!(decision, Decision::Run { .. } | Decision::Waiting { .. }));
    Ok(if args.check && stale {
        Exit::Stale
    } else {
        Exit::Ok
    })
}
