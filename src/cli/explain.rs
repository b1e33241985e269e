//! `tunesmith explain STAGE`, `tunesmith explain RUN RUN`

use std::collections::BTreeMap;
use std::time::Duration;

use cache::Digest;
use clap::Args;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::plan::preview_with;
use crate::report::{difference, explain as page, screen, shown_path};
use crate::run::{self, Options, Project, remote};

/// How long it waits for the remote in all.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Args, Clone, Debug)]
pub(super) struct ExplainArgs {
    /// A stage (all its cells, or one: `train[lr=1e-4]`), or two runs by number, as in .tunesmith/runs/
    #[arg(value_name = "STAGE|RUN RUN", required = true, num_args = 1..=2)]
    what: Vec<String>,
    /// Show every part of its key
    #[arg(long)]
    key: bool,
    /// Tell it as JSON, an object a line
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn explain(common: &Common, args: &ExplainArgs) -> Result<Exit, Trouble> {
    let project = common.project()?;
    if let [first, second] = args.what.as_slice() {
        return runs(&project, (first, second), args.json);
    }
    let options = Options {
        targets: args.what.clone(),
        ..Options::default()
    };
    let selected = run::selection(&project, &options)?;
    // Asked as by a plain run: a stage that acts outside is shown as ready.
    let link = run::link(&project, &options, Some(PATIENCE));
    let mut planner = run::planner(&project, &Options::default(), &link, &selected, true);
    let mut ask = |questions: &[crate::plan::Question]| remote::ask(&link, questions);
    let decisions = preview_with(&mut planner, &selected, &mut ask)?;
    let decisions: BTreeMap<usize, _> = decisions.into_iter().collect();
    let mut pages = Vec::new();
    for stage in project.graph.named(&project.pipeline, &args.what)? {
        let id = &project.pipeline.stages[stage].id;
        let last = planner.last().get(id);
        let page = page::Page {
            pipeline: &project.pipeline,
            graph: &project.graph,
            stage,
            decision: &decisions[&stage],
            last,
            results: &shown_path(&project.results()),
            log: &shown_path(&project.log(id)),
            run: last.and_then(|last| run::made_by(project.store.home(), id, &last.key.hex())),
            picked: planner.picked(stage),
            whole_key: args.key,
        };
        pages.push(if args.json {
            page::json(&page)
        } else {
            page::text(&page)
        });
    }
    screen::say(&pages.join(if args.json { "" } else { "\n" }));
    Ok(Exit::Ok)
}

/// What changed between two runs.
fn runs(project: &Project, names: (&str, &str), json: bool) -> Result<Exit, Trouble> {
    let home = project.store.home();
    let keys = |name: &str| {
        let number = name
            .parse()
            .ok()
            .filter(|number| run::journals(home).contains(number));
        let events = number.and_then(|number| Some((number, run::journal(home, number).ok()?)));
        events
            .map(|(number, events)| (number, run::keys_of(&events)))
            .ok_or_else(|| {
                let known = run::journals(home);
                let mend = match (known.first(), known.last()) {
                    (Some(first), Some(last)) => format!("name two from {first} to {last}"),
                    _ => "run something: tunesmith run".to_owned(),
                };
                let cause = format!("there is no record of a run `{name}`");
                Trouble::new(Exit::Config, "explain::no-run", cause, &mend)
            })
    };
    let ((a, first), (b, second)) = (keys(names.0)?, keys(names.1)?);
    let parts = |key: &str| {
        let key: Digest = key.parse().ok()?;
        let records = project.store.records(&key).ok()?;
        records.into_iter().next().map(|record| record.parts)
    };
    let stages = difference::between(&first, &second, parts);
    screen::say(&if json {
        difference::json(&stages)
    } else {
        difference::text((a, b), &stages)
    });
    Ok(Exit::Ok)
}
