//! `tunesmith plan [STAGE...]`

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;

use super::Common;
use super::exit::{Exit, Trouble, note};
use crate::plan::{Decision, preview_with};
use crate::report::{forecast, memory as table, screen};
use crate::run::{self, Options, Project, remote};

/// How long a plan waits for the remote in all; offline it shows what is known here.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Args, Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "flags are booleans")]
pub(super) struct PlanArgs {
    /// Stages to bring up to date; all, if none is named
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// Exit with code 4 if anything would run, with 6 if only people are waited for
    #[arg(long)]
    check: bool,
    /// As `run --locked` would: exit with code 5 where pipeline.lock does not name a result that is
    /// there. With --check (code 4) and a remote store, CI learns whether all is up to date without
    /// fetching any data
    #[arg(long)]
    locked: bool,
    /// Do not ask the remote store
    #[arg(long)]
    no_remote: bool,
    /// As `run --frozen` would: every source must be pinned
    #[arg(long)]
    frozen: bool,
    /// What training would take of graphics cards, which of them it fits, and how; none has to be at hand, nor the
    /// base: of a hub model that is not fetched yet its config.json is read
    #[arg(long, conflicts_with_all = ["check", "locked", "frozen"])]
    memory: bool,
    /// With --memory: this card, by name or by its memory (24GiB); repeatable [default: all that are known]
    #[arg(long = "card", value_name = "NAME|GIB", requires = "memory")]
    cards: Vec<String>,
    /// Tell it as JSON lines
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn plan(common: &Common, args: &PlanArgs) -> Result<Exit, Trouble> {
    let project = common.project()?;
    let options = Options {
        targets: args.stages.clone(),
        locked: args.locked,
        no_remote: args.no_remote,
        frozen: args.frozen,
        checking: args.check,
        ..Options::default()
    };
    let selected = run::selection(&project, &options)?;
    let link = run::link(&project, &options, Some(PATIENCE));
    let mut planner = run::planner(&project, &options, &link, &selected, true);
    let mut ask = |questions: &[crate::plan::Question]| remote::ask(&link, questions);
    let decisions = preview_with(&mut planner, &selected, &mut ask)?;
    if args.memory {
        return memory(&project, &decisions, args);
    }
    let text = if args.json {
        forecast::json(&project.pipeline, &decisions)
    } else {
        forecast::text(&project.pipeline, &decisions, planner.picks())
    };
    screen::say(&text);
    for (code, text) in remote::complaints(&link) {
        note(&code, &text, args.json);
    }
    Ok(if args.check {
        verdict(&decisions)
    } else {
        Exit::Ok
    })
}

/// What the train stages of the plan would take.
fn memory(
    project: &Project,
    decisions: &[(usize, Decision)],
    args: &PlanArgs,
) -> Result<Exit, Trouble> {
    let planned = run::memory(project, decisions, &args.cards)
        .map_err(|error| Trouble::new(Exit::Failed, &error.code, error.message, &error.mend))?;
    if planned.is_empty() {
        let cause = "nothing here trains";
        let mend = "name a `train` stage, or a stage below one";
        return Err(Trouble::new(
            Exit::Config,
            "memory::no-training",
            cause,
            mend,
        ));
    }
    let draw = if args.json { table::json } else { table::text };
    let tables: Vec<_> = planned
        .iter()
        .map(|one| draw(&one.stages, &one.forecast))
        .collect();
    screen::say(&tables.join(if args.json { "" } else { "\n" }));
    Ok(Exit::Ok)
}

/// Whether all is up to date, and if not, whom to ask: what hangs on people's decisions alone is
/// theirs.
fn verdict(decisions: &[(usize, Decision)]) -> Exit {
    let all = decisions.iter();
    let asked = all.filter(|(_, decision)| matches!(decision, Decision::People { .. }));
    let asked: BTreeSet<usize> = asked.map(|(stage, _)| *stage).collect();
    let stale = decisions.iter().any(|(_, decision)| match decision {
        Decision::Run { .. } => true,
        Decision::Waiting { on } => !on.iter().all(|above| asked.contains(above)),
        _ => false,
    });
    match (stale, asked.is_empty()) {
        (true, _) => Exit::Stale,
        (false, false) => Exit::People,
        (false, true) => Exit::Ok,
    }
}
