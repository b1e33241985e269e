//! What a run leaves for GitHub Actions: a job summary in Markdown, and annotations at lines.
//!
//! Formats: "Workflow commands for GitHub Actions" (`::error file=..,line=..::text`, percent
//! escapes) and the file that `GITHUB_STEP_SUMMARY` names, to which Markdown is appended.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::forecast::waits_for_people;
use super::listener::Listener;
use super::units;
use crate::config::{Faults, Gate, Pipeline};
use crate::event::{Envelope, Event};

/// What a job wants to hear of.
#[derive(Clone, Debug, Default)]
pub struct Ci {
    /// The file to which the summary is appended.
    summary: Option<PathBuf>,
    /// Whether annotations are wanted.
    annotate: bool,
    /// The pipeline file as the repository has it.
    file: String,
    /// Where gates stand, by stage and metric.
    places: BTreeMap<(String, String), String>,
    title: String,
    rows: Vec<Row>,
    gates: Vec<String>,
}

#[derive(Clone, Debug)]
struct Row {
    stage: String,
    outcome: String,
    millis: Option<u64>,
    metrics: BTreeMap<String, f64>,
}

impl Ci {
    /// As the environment asks for; `None` outside a job.
    pub fn of(env: &dyn Fn(&str) -> Option<String>, pipeline: &Pipeline) -> Option<Self> {
        let summary = env("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty());
        let annotate = env("GITHUB_ACTIONS").is_some_and(|value| value == "true");
        (summary.is_some() || annotate).then(|| Self {
            summary: summary.map(PathBuf::from),
            annotate,
            file: in_repository(env, &pipeline.file),
            places: places(pipeline),
            ..Self::default()
        })
    }

    fn row(&mut self, stage: &str, outcome: String, millis: Option<u64>) -> &mut Row {
        self.rows.push(Row {
            stage: stage.to_owned(),
            outcome,
            millis,
            metrics: BTreeMap::new(),
        });
        self.rows.last_mut().expect("it was just put there")
    }

    fn annotation(&self, place: &str, title: &str, text: &str) {
        if self.annotate {
            let mut place = place.rsplit(':');
            let column = place.next().unwrap_or("1");
            let line = place.next().unwrap_or("1");
            super::screen::complain(&command(&self.file, line, column, title, text));
        }
    }

    fn write(&self, status: &str, millis: u64) {
        let Some(path) = &self.summary else { return };
        let mut file = std::fs::OpenOptions::new();
        let opened = file.append(true).create(true).open(path);
        let text = self.markdown(status, millis);
        if let Err(error) = opened.and_then(|mut file| file.write_all(text.as_bytes())) {
            let path = path.display();
            super::screen::complain(&format!("cannot write the job summary `{path}`: {error}\n"));
        }
    }

    fn markdown(&self, status: &str, millis: u64) -> String {
        let mut out = format!(
            "### {}: {status} in {}\n\n",
            self.title,
            units::duration(millis)
        );
        let shown = |row: &&Row| row.outcome != "up to date" || !row.metrics.is_empty();
        if self.rows.iter().any(|row| shown(&row)) {
            out.push_str("| stage | outcome | time | metrics |\n| --- | --- | ---: | --- |\n");
        }
        for row in self.rows.iter().filter(shown) {
            let metrics = row.metrics.iter();
            let metrics: Vec<String> = metrics
                .map(|(name, value)| format!("{name} {}", units::figure(*value)))
                .collect();
            let time = row.millis.map(units::duration).unwrap_or_default();
            let cells = [&row.stage, &row.outcome, &time, &metrics.join(", ")];
            let cells = cells.map(|cell| cell.replace('|', "\\|").replace('\n', " "));
            out.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
        let fresh = self.rows.iter().filter(|row| !shown(row)).count();
        if fresh > 0 {
            out.push_str(&format!("\n{} up to date\n", units::count(fresh, "stage")));
        }
        if !self.gates.is_empty() {
            out.push_str("\n| gate | value | wanted | |\n| --- | ---: | --- | --- |\n");
            out.push_str(&self.gates.concat());
        }
        out.push('\n');
        out
    }
}

impl Listener for Ci {
    fn hear(&mut self, told: &Envelope) {
        match &told.event {
            Event::RunStarted {
                pipeline, profile, ..
            } => {
                self.title = format!("{pipeline}, profile {profile}");
                self.rows.clear();
                self.gates.clear();
            }
            Event::StageFresh {
                stage,
                restored,
                metrics,
                ..
            } => {
                let outcome = if *restored { "restored" } else { "up to date" };
                self.row(stage, outcome.to_owned(), None).metrics = metrics.clone();
            }
            Event::StageDone {
                stage,
                millis,
                outcome,
                unchanged,
                ..
            } => {
                let what = if *unchanged { "ran, same bytes" } else { "ran" };
                self.row(stage, what.to_owned(), Some(*millis)).metrics = outcome.metrics.clone();
            }
            Event::StageFailed {
                stage,
                error,
                place,
                millis,
                again: false,
                ..
            } => {
                let text = format!("{}\n{}", error.message, error.mend);
                self.annotation(place, &format!("{stage}: {}", error.code), &text);
                self.row(
                    stage,
                    format!("**failed**: {}", error.message),
                    Some(*millis),
                );
            }
            Event::StagePeople {
                stage,
                rows,
                file,
                place,
            } => {
                let text = waits_for_people(*rows, file);
                let mend = format!("{text}\ndecide: `tunesmith review {stage}`");
                self.annotation(place, &format!("{stage}: people"), &mend);
                self.row(stage, format!("**{text}**"), None);
            }
            Event::StageSkipped { stage, because } => {
                self.row(stage, format!("skipped: {because}"), None);
            }
            Event::Gate {
                stage,
                metric,
                value,
                wanted,
                passed,
            } => {
                let value = value.map_or_else(|| "none".to_owned(), units::figure);
                let holds = if *passed { "holds" } else { "**broken**" };
                self.gates.push(format!(
                    "| {stage} {metric} | {value} | {wanted} | {holds} |\n"
                ));
                if !passed {
                    let text = format!("{metric} is {value}, wanted {wanted}");
                    let place = self.places.get(&(stage.clone(), metric.clone()));
                    let place = place.map_or(":1:1", String::as_str);
                    self.annotation(place, &format!("{stage}: gate"), &text);
                }
            }
            Event::RunFinished { status, millis, .. } => self.write(status, *millis),
            _ => {}
        }
    }
}

fn places(pipeline: &Pipeline) -> BTreeMap<(String, String), String> {
    let place = |gate: &Gate| pipeline.shown_place(&gate.span);
    let stages = pipeline.stages.iter();
    let gates = stages.flat_map(|spec| spec.gates.iter().map(|gate| (spec.id.clone(), gate)));
    gates
        .map(|(stage, gate)| ((stage, gate.metric.clone()), place(gate)))
        .collect()
}

/// A path as the repository has it: below `GITHUB_WORKSPACE`.
fn in_repository(env: &dyn Fn(&str) -> Option<String>, path: &Path) -> String {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let top = env("GITHUB_WORKSPACE").unwrap_or_default();
    let inside = whole.strip_prefix(&top).unwrap_or(&whole);
    inside.display().to_string()
}

/// The annotations of configuration faults; nothing where none are wanted.
pub fn annotations(env: &dyn Fn(&str) -> Option<String>, faults: &Faults) -> String {
    if env("GITHUB_ACTIONS").is_none_or(|value| value != "true") {
        return String::new();
    }
    let file = in_repository(env, &faults.file);
    let annotation = |fault: &crate::config::Fault| {
        let (line, column) = fault.span.as_ref().map(|span| faults.place(span.start))?;
        let text = format!("{}\n{}", fault.message, fault.mend);
        Some(command(
            &file,
            &line.to_string(),
            &column.to_string(),
            &fault.code,
            &text,
        ))
    };
    faults.items.iter().filter_map(annotation).collect()
}

fn command(file: &str, line: &str, column: &str, title: &str, text: &str) -> String {
    let data = |text: &str| {
        text.replace('%', "%25")
            .replace('\r', "%0D")
            .replace('\n', "%0A")
    };
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    format!(
        "::error file={},line={line},col={column},title={}::{}\n",
        property(file),
        property(title),
        data(text)
    )
}
