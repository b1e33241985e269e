//! `tunesmith explain STAGE`

use std::time::Duration;

use clap::Args;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::plan::preview_with;
use crate::report::{explain as page, screen, shown_path};
use crate::run::{self, Options, remote};

/// How long it waits for the remote in all.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Args, Clone, Debug)]
pub(super) struct ExplainArgs {
    /// The stage
    #[arg(value_name = "STAGE")]
    stage: String,
    /// Show every part of its key
    #[arg(long)]
    key: bool,
}

pub(super) fn explain(common: &Common, args: &ExplainArgs) -> Result<Exit, Trouble> {
    let project = common.project()?;
    let options = Options {
        targets: vec![args.stage.clone()],
        ..Options::default()
    };
    let selected = run::selection(&project, &options)?;
    // Asked as by a plain run: a stage that acts outside is shown as ready.
    let link = run::link(&project, &options, Some(PATIENCE));
    let mut planner = run::planner(&project, &Options::default(), &link, &selected, true);
    let mut ask = |questions: &[crate::plan::Question]| remote::ask(&link, questions);
    let decisions = preview_with(&mut planner, &selected, &mut ask)?;
    let stage = project.graph.find(&args.stage);
    let stage = stage.expect("the selection found it");
    let asked = decisions.into_iter().find(|(found, _)| *found == stage);
    let (_, decision) = asked.expect("a selection holds its targets");
    let text = page::text(&page::Page {
        pipeline: &project.pipeline,
        graph: &project.graph,
        stage,
        decision: &decision,
        last: planner.last().get(&args.stage),
        results: &shown_path(&project.results()),
        log: &shown_path(&project.log(&args.stage)),
        whole_key: args.key,
    });
    screen::say(&text);
    Ok(Exit::Ok)
}
