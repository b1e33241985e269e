//! The end of a run: what happened to each stage, the gates, where the results are and
//! what to type next.

use std::collections::BTreeMap;
use std::path::Path;

use super::paint::Paint;
use super::story::Setting;
use super::units;
use crate::event::{Envelope, Event};

/// The most rows of the table; beyond, only what failed or waits for a person is listed.
const ROWS: usize = 60;

/// What became of one stage.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Fresh,
    Restored,
    Ran { millis: u64, unchanged: bool },
    Failed { millis: u64 },
    Skipped,
    People,
    Ready,
}

/// One gate that was looked at.
#[derive(Clone, Debug)]
struct Looked {
    stage: String,
    metric: String,
    value: Option<f64>,
    wanted: String,
    passed: bool,
}

/// The run, folded up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    fates: Vec<(String, Fate)>,
    /// Where each stage stands among them.
    places: BTreeMap<String, usize>,
    gates: Vec<Looked>,
    finished: Option<(String, u64)>,
    log_of_failed: Option<String>,
}

impl Summary {
    /// Hears one event.
    pub(crate) fn hear(&mut self, told: &Envelope) {
        match &told.event {
            Event::StageFresh {
                stage, restored, ..
            } => self.note(
                stage,
                if *restored {
                    Fate::Restored
                } else {
                    Fate::Fresh
                },
            ),
            Event::StageDone {
                stage,
                millis,
                unchanged,
                ..
            } => self.note(
                stage,
                Fate::Ran {
                    millis: *millis,
                    unchanged: *unchanged,
                },
            ),
            Event::StageFailed {
                stage,
                millis,
                again: false,
                ..
            } => {
                self.log_of_failed.get_or_insert_with(|| stage.clone());
                self.note(stage, Fate::Failed { millis: *millis });
            }
            Event::StageSkipped { stage, .. } => self.note(stage, Fate::Skipped),
            Event::StagePeople { stage, .. } => self.note(stage, Fate::People),
            Event::StageReady { stage } => self.note(stage, Fate::Ready),
            Event::Gate {
                stage,
                metric,
                value,
                wanted,
                passed,
            } => self.gates.push(Looked {
                stage: stage.clone(),
                metric: metric.clone(),
                value: *value,
                wanted: wanted.clone(),
                passed: *passed,
            }),
            Event::RunFinished { status, millis, .. } => {
                self.finished = Some((status.clone(), *millis));
            }
            _ => {}
        }
    }

    fn note(&mut self, stage: &str, fate: Fate) {
        let place = self.fates.len();
        if let Some(before) = self.places.insert(stage.to_owned(), place) {
            // One whose bytes could not be fetched runs after all.
            if matches!(self.fates[before].1, Fate::Fresh | Fate::Restored) {
                self.fates.remove(before);
                let after = self.places.values_mut().filter(|place| **place > before);
                for place in after {
                    *place -= 1;
                }
            }
        }
        self.fates.push((stage.to_owned(), fate));
    }

    fn number(&self, wanted: impl Fn(&Fate) -> bool) -> usize {
        self.fates.iter().filter(|(_, fate)| wanted(fate)).count()
    }

    /// The last lines of the run.
    pub(crate) fn lines(&self, paint: Paint, setting: &Setting) -> Vec<String> {
        let Some((status, millis)) = &self.finished else {
            return Vec::new();
        };
        let quiet = self
            .fates
            .iter()
            .all(|(_, fate)| matches!(fate, Fate::Fresh | Fate::Ready));
        let took = units::duration(*millis);
        if quiet && status == "ok" {
            let fresh = units::count(self.number(|fate| *fate == Fate::Fresh), "stage");
            let mut lines = vec![format!("{}: {fresh}, {took}", paint.green("up to date"))];
            lines.extend(
                self.ready()
                    .map(|next| format!("  next     {}", paint.cyan(&next))),
            );
            return lines;
        }
        let mut lines = vec![String::new()];
        lines.extend(self.table(paint));
        lines.extend(self.gate_lines(paint));
        lines.push(String::new());
        lines.extend(self.footer(paint, setting, status, &took));
        lines
    }

    fn table(&self, paint: Paint) -> Vec<String> {
        let name_width = self.fates.iter().map(|(id, _)| id.chars().count()).max();
        let name_width = name_width.unwrap_or(0).max(8);
        let mut lines = Vec::new();
        let shown = |fate: &&(String, Fate)| !matches!(fate.1, Fate::Fresh | Fate::Skipped);
        let long = self.fates.iter().filter(shown).count() > ROWS;
        for (stage, fate) in self.fates.iter().filter(shown) {
            if long && !matches!(fate, Fate::Failed { .. } | Fate::People | Fate::Ready) {
                continue;
            }
            let (what, millis) = match fate {
                Fate::Fresh | Fate::Skipped => continue,
                Fate::Restored => (paint.dim(&pad("restored")), None),
                Fate::Ran {
                    millis,
                    unchanged: true,
                } => (pad("ran, same bytes"), Some(*millis)),
                Fate::Ran { millis, .. } => (paint.green(&pad("ran")), Some(*millis)),
                Fate::Failed { millis } => (paint.red(&pad("failed")), Some(*millis)),
                Fate::People => (paint.yellow(&pad("waits for people")), None),
                Fate::Ready => (paint.cyan(&pad("ready, when you name it")), None),
            };
            let time = millis.map(units::duration).unwrap_or_default();
            let line = format!("  {stage:name_width$}  {what}  {time:>9}");
            lines.push(line.trim_end().to_owned());
        }
        let restored = self.number(|fate| *fate == Fate::Restored);
        if long && restored > 0 {
            let text = format!("{} restored", units::count(restored, "stage"));
            lines.push(paint.dim(&format!("  {text}")));
        }
        let fresh = self.number(|fate| *fate == Fate::Fresh);
        if fresh > 0 {
            let text = format!("{} up to date", units::count(fresh, "stage"));
            lines.push(paint.dim(&format!("  {text}")));
        }
        let skipped = self.number(|fate| *fate == Fate::Skipped);
        if skipped > 0 {
            let text = format!("{} skipped", units::count(skipped, "stage"));
            lines.push(paint.dim(&format!("  {text}")));
        }
        lines
    }

    fn gate_lines(&self, paint: Paint) -> Vec<String> {
        if self.gates.is_empty() {
            return Vec::new();
        }
        let name = |gate: &Looked| format!("{} {}", gate.stage, gate.metric);
        let width = self
            .gates
            .iter()
            .map(|gate| name(gate).chars().count())
            .max();
        let width = width.unwrap_or(0);
        let mut lines = vec![String::new()];
        for gate in &self.gates {
            let value = gate
                .value
                .map_or_else(|| "not measured".to_owned(), units::figure);
            let mark = if gate.passed {
                paint.green("holds")
            } else {
                paint.red("broken")
            };
            let name = name(gate);
            lines.push(format!(
                "  gate  {name:width$}  {value:>6}  {}  {mark}",
                paint.dim(&format!("wanted {}", gate.wanted))
            ));
        }
        lines
    }

    fn footer(&self, paint: Paint, setting: &Setting, status: &str, took: &str) -> Vec<String> {
        let word = match status {
            "ok" => paint.green("done"),
            "gate" => paint.red("a gate is broken"),
            "people" => paint.yellow("stopped for people"),
            "cancelled" => paint.yellow("cancelled"),
            "superseded" => paint.yellow("not finished"),
            _ => paint.red("failed"),
        };
        let ran = self.number(|fate| matches!(fate, Fate::Ran { .. }));
        let mut lines = vec![format!(
            "  {word} in {took}, {} ran",
            units::count(ran, "stage")
        )];
        if ran > 0 || self.number(|fate| *fate == Fate::Restored) > 0 {
            lines.push(format!("  results  {}", shown(&setting.results)));
        }
        if let Some(next) = self.next(status) {
            lines.push(format!("  next     {}", paint.cyan(&next)));
        }
        lines
    }

    /// What a person would most likely type now.
    fn next(&self, status: &str) -> Option<String> {
        match status {
            "cancelled" => Some("tunesmith run    (goes on where it stopped)".to_owned()),
            "failed" => self
                .log_of_failed
                .as_ref()
                .map(|stage| format!("tunesmith log {stage}")),
            "gate" => self
                .gates
                .iter()
                .find(|gate| !gate.passed)
                .map(|gate| format!("tunesmith explain {}", gate.stage)),
            "people" => self.waiting(),
            _ => self.ready(),
        }
    }

    fn waiting(&self) -> Option<String> {
        let mut waiting = self.fates.iter().filter(|(_, fate)| *fate == Fate::People);
        let (stage, _) = waiting.next()?;
        Some(match waiting.next() {
            None => format!("tunesmith review {stage}"),
            Some(_) => "tunesmith review".to_owned(),
        })
    }

    fn ready(&self) -> Option<String> {
        self.fates
            .iter()
            .find(|(_, fate)| *fate == Fate::Ready)
            .map(|(stage, _)| format!("tunesmith run {stage}"))
    }
}

/// The width of the longest fate, so that times stand in one column.
fn pad(text: &str) -> String {
    format!("{text:23}")
}

fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    if text.ends_with('/') {
        text
    } else {
        format!("{text}/")
    }
}
