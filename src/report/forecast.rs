//! `tunesmith plan`: what would happen to each stage.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::paint::Paint;
use super::units;
use crate::config::Pipeline;
use crate::plan::{Decision, Picked};

/// Reasons shown for a stage.
const REASONS: usize = 3;

/// The plan as a table and a count.
pub fn text(
    pipeline: &Pipeline,
    decisions: &[(usize, Decision)],
    picks: &BTreeMap<usize, Picked>,
) -> String {
    let paint = Paint::for_stdout();
    let id = |stage: usize| pipeline.stages[stage].id.as_str();
    let width = decisions
        .iter()
        .map(|(stage, _)| id(*stage).chars().count());
    let width = width.max().unwrap_or(0).max(8);
    let mut tally = Tally::default();
    let mut out = String::new();
    for (stage, decision) in decisions {
        let name = format!("{:width$}", id(*stage));
        let mut lines = lines(pipeline, decision, paint, &mut tally);
        lines.extend(
            picks
                .get(stage)
                .map(|picked| paint.dim(&picks_line(picked))),
        );
        for (at, line) in lines.iter().enumerate() {
            let name = if at == 0 {
                paint.bold(&name)
            } else {
                " ".repeat(width)
            };
            out.push_str(&format!("  {name}  {line}\n"));
        }
    }
    if !decisions.is_empty() {
        out.push('\n');
    }
    out.push_str(&tally.sentence());
    out
}

/// `picks val-eval[lr=1e-4]: val-eval.tool_selection 0.83, the largest of 4`
pub fn picks_line(picked: &Picked) -> String {
    let extreme = if picked.largest {
        "largest"
    } else {
        "smallest"
    };
    format!(
        "picks {}: {} {}, the {extreme} of {}",
        picked.cell,
        picked.metric,
        units::figure(picked.value),
        picked.among
    )
}

/// How many of each.
#[derive(Default)]
struct Tally {
    run: usize,
    restore: usize,
    remote: usize,
    fresh: usize,
    unknown: usize,
    ready: usize,
    people: usize,
}

impl Tally {
    fn sentence(&self) -> String {
        let mut parts = Vec::new();
        for (number, what) in [
            (self.run, "to run"),
            (self.unknown, "that may follow"),
            (self.restore, "to restore"),
            (self.remote, "to restore from the remote"),
            (self.fresh, "up to date"),
            (self.ready, "ready when named"),
            (self.people, "waiting for people"),
        ] {
            if number > 0 {
                parts.push(format!("{} {what}", units::count(number, "stage")));
            }
        }
        format!("{}\n", parts.join(", "))
    }
}

fn lines(pipeline: &Pipeline, decision: &Decision, paint: Paint, tally: &mut Tally) -> Vec<String> {
    match decision {
        Decision::Fresh {
            restored: false, ..
        } => {
            tally.fresh += 1;
            vec![paint.dim("up to date")]
        }
        Decision::Fresh { .. } => {
            tally.restore += 1;
            vec![paint.green("restore from the store")]
        }
        Decision::Remote { known: true, .. } => {
            tally.fresh += 1;
            vec![paint.dim("up to date, left at the remote")]
        }
        Decision::Remote { .. } => {
            tally.remote += 1;
            vec![paint.green("restore from the remote")]
        }
        Decision::Run { reasons, .. } => {
            tally.run += 1;
            let mut shown: Vec<_> = reasons
                .iter()
                .take(REASONS)
                .map(ToString::to_string)
                .collect();
            if reasons.len() > REASONS {
                let more = units::count(reasons.len() - REASONS, "more reason");
                shown.push(format!("and {more}"));
            }
            let indented = |(at, reason)| match at {
                0 => format!("{}: {reason}", paint.yellow("run")),
                _ => format!("     {reason}"),
            };
            shown.into_iter().enumerate().map(indented).collect()
        }
        Decision::People { people, .. } => {
            tally.people += 1;
            vec![paint.yellow(&waits_for_people(people.rows.len(), &people.file))]
        }
        Decision::Waiting { on } => {
            tally.unknown += 1;
            vec![format!("not known before {} is done", names(pipeline, on))]
        }
        Decision::Ready { done, .. } => {
            tally.ready += 1;
            let text = if *done {
                "done before; runs when named"
            } else {
                "ready, runs when named"
            };
            vec![paint.cyan(text)]
        }
    }
}

/// `waits for people: 3 rows are to be decided on, in data/review/rows.jsonl`
pub(crate) fn waits_for_people(rows: usize, file: &Path) -> String {
    let rows = match rows {
        0 => "rows are".to_owned(),
        1 => "1 row is".to_owned(),
        _ => format!("{} are", units::count(rows, "row")),
    };
    format!(
        "waits for people: {rows} to be decided on, in {}",
        file.display()
    )
}

fn names(pipeline: &Pipeline, stages: &[usize]) -> String {
    let names = stages
        .iter()
        .map(|stage| format!("`{}`", pipeline.stages[*stage].id));
    names.collect::<Vec<_>>().join(", ")
}

/// The plan as JSON lines.
pub fn json(pipeline: &Pipeline, decisions: &[(usize, Decision)]) -> String {
    let mut out = String::new();
    for (stage, decision) in decisions {
        let id = &pipeline.stages[*stage].id;
        let line = match decision {
            Decision::Fresh { record, restored } => json!({
                "stage": id,
                "outcome": if *restored { "restore" } else { "fresh" },
                "key": record.key,
            }),
            Decision::Remote { record, known, .. } => json!({
                "stage": id,
                "outcome": if *known { "fresh" } else { "restore" },
                "remote": true,
                "key": record.key,
            }),
            Decision::Run { key, reasons, .. } => json!({
                "stage": id,
                "outcome": "run",
                "key": key,
                "reasons": reasons.iter().map(ToString::to_string).collect::<Vec<_>>(),
            }),
            Decision::People { key, people, .. } => json!({
                "stage": id,
                "outcome": "people",
                "key": key,
                "rows": people.rows.len(),
                "decisions": people.file,
            }),
            Decision::Waiting { on } => json!({
                "stage": id,
                "outcome": "unknown",
                "until": on.iter().map(|stage| &pipeline.stages[*stage].id).collect::<Vec<_>>(),
            }),
            Decision::Ready { key, done, .. } => json!({
                "stage": id, "outcome": "ready", "key": key, "done": done,
            }),
        };
        out.push_str(&format!("{line}\n"));
    }
    out
}
