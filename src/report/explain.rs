//! `tunesmith explain STAGE`: all that is known about one stage, on one page.

use std::collections::BTreeMap;
use std::path::Path;

use cache::{KeyParts, Tree};
use stages::Outcome;

use super::forecast::{picks_line, waits_for_people};
use super::paint::Paint;
use super::units;
use crate::config::{Action, Pipeline, Reference, StageSpec};
use crate::graph::Graph;
use crate::plan::{Decision, LastResult, Picked, Reason};

/// What the page is made of.
pub struct Page<'a> {
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// Its graph.
    pub graph: &'a Graph,
    /// The stage.
    pub stage: usize,
    /// What would happen to it now.
    pub decision: &'a Decision,
    /// Its last result.
    pub last: Option<&'a LastResult>,
    /// The folder with this profile's results, as the person would type it.
    pub results: &'a Path,
    /// Its log.
    pub log: &'a Path,
    /// The run that made the last result, if its journal is kept.
    pub run: Option<u64>,
    /// Which cell of a sweep it reads.
    pub picked: Option<&'a Picked>,
    /// Whether to show every part of the key.
    pub whole_key: bool,
}

/// The page.
pub fn text(page: &Page<'_>) -> String {
    let paint = Paint::for_stdout();
    let spec = &page.pipeline.stages[page.stage];
    let mut lines = vec![title(spec, paint)];
    if let Some(about) = &spec.about {
        lines.push(format!("  {}", paint.dim(about)));
    }
    lines.push(String::new());
    lines.extend(state(page, paint));
    if let (Decision::Run { .. }, Some(last)) = (page.decision, page.last) {
        lines.push(row("compared", &compared(page, last)));
    }
    lines.extend(page.picked.map(|picked| row("pick", &picks_line(picked))));
    lines.extend(inputs(page, spec));
    lines.extend(result(page, spec, paint));
    let below = page.graph.children(page.stage);
    if !below.is_empty() {
        let names: Vec<_> = below
            .iter()
            .map(|at| page.pipeline.stages[*at].id.as_str())
            .collect();
        lines.push(row("read by", &names.join(", ")));
    }
    if page.whole_key
        && let Some(parts) = parts(page.decision)
    {
        lines.push(String::new());
        lines.push("  key".to_owned());
        let width = parts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in parts.iter() {
            lines.push(format!("    {name:width$}  {}", one_line(value)));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn title(spec: &StageSpec, paint: Paint) -> String {
    let what = match &spec.action {
        Action::Builtin { stage, .. } => format!("uses {}: {}", stage.kind(), stage.about()),
        Action::Shell { command, .. } => format!("run: {}", one_line(command)),
    };
    format!("{}  {what}", paint.bold(&spec.id))
}

fn row(name: &str, text: &str) -> String {
    format!("  {name:9} {text}")
}

fn rows(name: &str, texts: impl IntoIterator<Item = String>) -> Vec<String> {
    let name = |at| if at == 0 { name } else { "" };
    let texts = texts.into_iter().enumerate();
    texts.map(|(at, text)| row(name(at), &text)).collect()
}

fn state(page: &Page<'_>, paint: Paint) -> Vec<String> {
    let id = |stage: &usize| page.pipeline.stages[*stage].id.clone();
    match page.decision {
        Decision::Fresh {
            restored: false, ..
        } => vec![row("state", &paint.green("up to date"))],
        Decision::Fresh { .. } => vec![row(
            "state",
            "its result is in the store and will be restored",
        )],
        Decision::Remote { known: true, .. } => {
            vec![row(
                "state",
                "up to date; its bytes were left at the remote",
            )]
        }
        Decision::Remote { .. } => vec![row(
            "state",
            "its result is at the remote and will be restored",
        )],
        Decision::Run { reasons, .. } => {
            let mut lines = vec![row("state", &paint.yellow("would run"))];
            lines.extend(rows("because", reasons.iter().map(ToString::to_string)));
            lines.extend(reasons.iter().flat_map(command));
            lines
        }
        Decision::People { people, .. } => vec![
            row(
                "state",
                &paint.yellow(&waits_for_people(people.rows.len(), &people.file)),
            ),
            row(
                "next",
                &paint.cyan(&format!("tunesmith review {}", id(&page.stage))),
            ),
        ],
        Decision::Waiting { on } => {
            let names: Vec<_> = on.iter().map(|stage| format!("`{}`", id(stage))).collect();
            let text = format!(
                "not known before {} is done: same bytes, and it stays",
                names.join(", ")
            );
            vec![row("state", &text)]
        }
        Decision::Ready { done: true, .. } => {
            vec![row(
                "state",
                "acts outside; was done with these inputs; runs when named",
            )]
        }
        Decision::Ready { .. } => vec![row("state", "acts outside; ready; runs when named")],
    }
}

/// Of a command that changed: its first line that is another, old and new.
fn command(reason: &Reason) -> Vec<String> {
    let Reason::Changed(change) = reason else {
        return Vec::new();
    };
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return Vec::new();
    };
    if change.part != "command" {
        return Vec::new();
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (old, new) = (lines(old), lines(new));
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let line = |lines: &[String]| one_line(lines.get(same).map_or("nothing", String::as_str));
    vec![
        row("", &format!("  was  {}", line(&old))),
        row("", &format!("  is   {}", line(&new))),
    ]
}

/// Which result the reasons are about.
fn compared(page: &Page<'_>, last: &LastResult) -> String {
    let mut text = format!("with its last result, {} UTC", when(&last.made.started));
    if let Some(run) = page.run {
        text.push_str(&format!(", of run {run}"));
    }
    if !last.made.revision.is_empty() {
        let short: String = last.made.revision.chars().take(12).collect();
        text.push_str(&format!(", at commit {short}"));
    }
    text
}

/// `2026-11-26 19:20:05`
fn when(started: &str) -> String {
    let second = started.split(['.', 'Z']).next().unwrap_or_default();
    second.replace('T', " ")
}

/// The page as one JSON object.
pub fn json(page: &Page<'_>) -> String {
    let spec = &page.pipeline.stages[page.stage];
    let id = |stage: &usize| page.pipeline.stages[*stage].id.as_str();
    let (outcome, reasons, until) = match page.decision {
        Decision::Fresh { restored, .. } => (
            if *restored { "restore" } else { "fresh" },
            Vec::new(),
            Vec::new(),
        ),
        Decision::Remote { known, .. } => (
            if *known { "fresh" } else { "restore" },
            Vec::new(),
            Vec::new(),
        ),
        Decision::Run { reasons, .. } => ("run", reasons.clone(), Vec::new()),
        Decision::People { .. } => ("people", Vec::new(), Vec::new()),
        Decision::Waiting { on } => ("unknown", Vec::new(), on.iter().map(id).collect()),
        Decision::Ready { .. } => ("ready", Vec::new(), Vec::new()),
    };
    let parts = parts(page.decision).map(|parts| {
        let parts = parts
            .iter()
            .map(|(name, value)| (name.to_owned(), value.into()));
        parts.collect::<serde_json::Map<String, serde_json::Value>>()
    });
    let last = page.last.map(|last| {
        serde_json::json!({
            "key": last.key, "made": last.made.started, "millis": last.made.millis,
            "host": last.made.host, "revision": last.made.revision, "run": page.run,
            "outcome": Outcome::of(&last.outcome),
        })
    });
    let told = serde_json::json!({
        "stage": spec.id, "outcome": outcome, "reasons": reasons, "until": until,
        "parts": parts, "last": last, "picked": page.picked.map(|picked| &picked.cell),
    });
    format!("{told}\n")
}

fn inputs(page: &Page<'_>, spec: &StageSpec) -> Vec<String> {
    let mut lines = Vec::new();
    for input in &spec.inputs {
        for reference in &input.references {
            let from = match reference {
                Reference::Product { stage, product } => {
                    let above = page.graph.find(stage).map(|at| &page.pipeline.stages[at]);
                    let default =
                        above.and_then(|above| above.products().first().map(|(name, _)| *name));
                    if default == Some(product.as_str()) {
                        stage.clone()
                    } else {
                        format!("{stage}:{product}")
                    }
                }
                Reference::Path(path) => path.display().to_string(),
            };
            lines.push(format!("{}: {from}", input.name));
        }
    }
    rows("inputs", lines)
}

/// The result that the decision names, else the last one.
fn result(page: &Page<'_>, spec: &StageSpec, paint: Paint) -> Vec<String> {
    let (outputs, outcome, made, old) = match (page.decision, page.last) {
        (Decision::Fresh { record, .. } | Decision::Remote { record, .. }, _) => {
            (&record.outputs, &record.outcome, &record.made, false)
        }
        (_, Some(last)) => (&last.outputs, &last.outcome, &last.made, true),
        _ => return Vec::new(),
    };
    let mut lines = Vec::new();
    let when = made
        .started
        .split('.')
        .next()
        .unwrap_or_default()
        .replace('T', " ");
    let age = if old { "last made" } else { "made" };
    let took = units::duration(made.millis);
    lines.push(row(
        age,
        &format!(
            "{} UTC in {took} on {} by {}",
            when.trim_end_matches('Z'),
            made.host,
            made.program
        ),
    ));
    lines.extend(rows("outputs", outputs_of(outputs, spec, page.results)));
    let outcome = Outcome::of(outcome);
    let metrics = outcome.metrics.iter();
    lines.extend(rows(
        "metrics",
        metrics.map(|(name, value)| {
            let gate = spec.gates.iter().find(|gate| gate.metric == *name);
            let wanted = gate.map(|gate| {
                let sign = if gate.at_least { ">=" } else { "<=" };
                paint.dim(&format!("  gate {sign} {}", gate.threshold))
            });
            format!(
                "{name} {}{}",
                units::figure(*value),
                wanted.unwrap_or_default()
            )
        }),
    ));
    lines.extend(rows("notes", outcome.notes));
    if page.log.exists() {
        lines.push(row("log", &page.log.display().to_string()));
    }
    lines
}

fn outputs_of(outputs: &BTreeMap<String, Tree>, spec: &StageSpec, results: &Path) -> Vec<String> {
    let describe = |(name, tree): (&String, &Tree)| {
        let products = spec.products();
        let place = products.iter().find(|(product, _)| product == name);
        let place = place.map_or_else(String::new, |(_, path)| {
            results.join(&spec.id).join(path).display().to_string()
        });
        let files = match tree {
            Tree::File { .. } => String::new(),
            Tree::Folder(entries) => format!("{}, ", units::count(entries.len(), "file")),
        };
        format!(
            "{name}: {place}  ({files}{}, {})",
            units::bytes(tree.size()),
            tree.digest().short()
        )
    };
    outputs.iter().map(describe).collect()
}

fn parts(decision: &Decision) -> Option<&KeyParts> {
    match decision {
        Decision::Fresh { record, .. } | Decision::Remote { record, .. } => Some(&record.parts),
        Decision::Run { parts, .. }
        | Decision::People { parts, .. }
        | Decision::Ready { parts, .. } => Some(parts),
        Decision::Waiting { .. } => None,
    }
}

fn one_line(text: &str) -> String {
    const LONGEST: usize = 100;
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() <= LONGEST {
        return flat;
    }
    flat.chars().take(LONGEST - 1).chain(['…']).collect()
}
