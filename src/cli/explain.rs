//! `tunesmith explain STAGE`

use clap::Args;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::plan::preview;
use crate::report::{explain as page, screen, shown_path};
use crate::run::{self, Options};

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
    let mut planner = run::planner(&project, &Options::default(), &selected, true);
    let decisions = preview(&mut planner, &selected)?;
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
