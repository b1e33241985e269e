//! Events -> the lines a person reads, the same for a terminal and for a log file.
//!
//! Promises: a run in which nothing happened is one line; results that were there already are
//! counted, not listed. Must not know: terminals, clocks (times are the events').

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use stages::{StageError, StageEvent};

use super::forecast::waits_for_people;
use super::paint::Paint;
use super::progress::Progress;
use super::summary::Summary;
use super::units;
use crate::event::{Envelope, Event};

/// Reasons shown under a stage that starts.
const REASONS: usize = 3;

/// Lines of a failed stage's log shown with it.
const TAIL: usize = 12;

/// Where things are, for the last lines.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// The folder with the results, as the person would type it.
    pub results: PathBuf,
    /// Whether to show what a stage says besides its progress.
    pub verbose: bool,
}

/// The run so far.
pub(crate) struct Story {
    pub(crate) paint: Paint,
    setting: Setting,
    header: Option<String>,
    /// Width of the stage column.
    width: usize,
    running: BTreeMap<String, Progress>,
    summary: Summary,
    /// Which cell a stage reads, until something follows from it.
    picks: BTreeMap<String, String>,
}

impl Story {
    pub(crate) fn new(paint: Paint, setting: Setting) -> Self {
        Self {
            paint,
            setting,
            header: None,
            width: 8,
            running: BTreeMap::new(),
            summary: Summary::default(),
            picks: BTreeMap::new(),
        }
    }

    /// Stages that run, with how far they are.
    pub(crate) fn running(&self) -> &BTreeMap<String, Progress> {
        &self.running
    }

    /// A stage's progress as a line of its own.
    pub(crate) fn progress_line(&self, stage: &str) -> Option<String> {
        let line = self.running.get(stage)?.line();
        (!line.is_empty()).then(|| self.row(stage, &line))
    }

    /// A stage's name in its column.
    pub(crate) fn name(&self, stage: &str) -> String {
        let padding = self.width.saturating_sub(stage.chars().count());
        format!("{}{}", self.paint.bold(stage), " ".repeat(padding))
    }

    fn row(&self, stage: &str, text: &str) -> String {
        format!("  {}  {text}", self.name(stage))
    }

    fn under(&self, text: &str) -> String {
        format!("  {}  {text}", " ".repeat(self.width))
    }

    /// Hears an event, gives the lines to print now.
    pub(crate) fn hear(&mut self, told: &Envelope) -> Vec<String> {
        self.summary.hear(told);
        let mut lines = self.lines(told);
        // A pick is told when something follows from it.
        if let Event::StageStarted { stage, .. }
        | Event::StageFresh {
            stage,
            restored: true,
            ..
        } = &told.event
            && let Some(text) = self.picks.remove(stage)
        {
            lines.insert(0, self.row(stage, &text));
        }
        if !lines.is_empty()
            && let Some(header) = self.header.take()
        {
            lines.splice(0..0, [header, String::new()]);
        }
        if let Event::RunFinished { .. } = told.event {
            lines.extend(self.summary.lines(self.paint, &self.setting));
        }
        lines
    }

    fn lines(&mut self, told: &Envelope) -> Vec<String> {
        match &told.event {
            Event::RunStarted {
                pipeline,
                profile,
                stages,
            } => {
                let longest = stages.iter().map(|id| id.chars().count()).max();
                self.width = longest.unwrap_or(0).clamp(8, 28);
                let name = self.paint.bold(pipeline);
                self.header = Some(format!("{name}, profile {profile}"));
                Vec::new()
            }
            Event::StageStarted {
                stage,
                reasons,
                attempt,
                ..
            } => {
                self.running.insert(stage.clone(), Progress::default());
                self.started(stage, reasons, *attempt)
            }
            Event::Stage { stage, said } => self.said(told.at, stage, said),
            Event::StageDone {
                stage,
                millis,
                outcome,
                unchanged,
                ..
            } => {
                self.running.remove(stage);
                self.done(stage, *millis, &outcome.notes, *unchanged)
            }
            Event::StageFailed {
                stage,
                error,
                place,
                millis,
                log,
                again,
                pause,
            } => {
                self.running.remove(stage);
                let pause = again.then_some(*pause);
                self.failed(stage, error, place, *millis, log, pause)
            }
            Event::StageFresh {
                stage,
                restored: true,
                remote,
                made_millis,
                ..
            } => {
                self.running.remove(stage);
                vec![self.restored(stage, *remote, *made_millis)]
            }
            Event::StagePicked { .. } => self.picked(&told.event),
            Event::StageWaiting {
                stage,
                pid,
                host,
                since,
                command,
            } => {
                let text = waits(*pid, host, since, command);
                vec![self.row(stage, &self.paint.dim(&text))]
            }
            Event::InputsChanged { paths, ended } => self.changed(paths, ended),
            Event::Watching { paths } => {
                let files = units::count(*paths, "path");
                vec![self.paint.dim(&format!("watching {files}; Ctrl-C ends it"))]
            }
            Event::StagePeople { .. } => self.people(&told.event),
            Event::StageSkipped { stage, because } => {
                self.running.remove(stage);
                vec![self.row(stage, &self.paint.dim(&format!("skipped: {because}")))]
            }
            Event::Notice { code, text } => {
                let code = self.paint.dim(&format!("({code})"));
                vec![format!("  {} {text} {code}", self.paint.yellow("note:"))]
            }
            Event::Gate {
                stage,
                metric,
                value,
                wanted,
                passed: false,
            } => vec![self.row(stage, &gate_broken(self.paint, metric, *value, wanted))],
            Event::RemoteProgress { .. }
            | Event::StagePulled { .. }
            | Event::StagePushed { .. }
            | Event::RemoteDone { .. } => self.of_remote(&told.event),
            Event::StageFresh { .. }
            | Event::Gate { .. }
            | Event::StageReady { .. }
            | Event::RunFinished { .. } => Vec::new(),
        }
    }

    fn restored(&self, stage: &str, remote: bool, millis: u64) -> String {
        let from = if remote { "remote" } else { "store" };
        let took = units::duration(millis);
        let text = format!("restored from the {from}, took {took} when made");
        self.row(stage, &self.paint.dim(&text))
    }

    /// Rows wait for a decision.
    fn people(&mut self, event: &Event) -> Vec<String> {
        let Event::StagePeople {
            stage, rows, file, ..
        } = event
        else {
            return Vec::new();
        };
        self.running.remove(stage);
        let text = waits_for_people(*rows, file);
        vec![self.row(stage, &self.paint.yellow(&text))]
    }

    /// What moved to the remote or from it; where nothing did, nothing is said.
    fn of_remote(&self, event: &Event) -> Vec<String> {
        let (stage, what, bytes, millis) = match event {
            Event::StagePulled {
                stage,
                bytes,
                millis,
                ..
            } => (stage, "fetched", *bytes, *millis),
            Event::StagePushed {
                stage,
                bytes,
                millis,
                ..
            } => (stage, "put to the remote", *bytes, *millis),
            _ => return Vec::new(),
        };
        if bytes == 0 {
            return Vec::new();
        }
        vec![self.moved(stage, what, bytes, millis)]
    }

    fn moved(&self, stage: &str, what: &str, bytes: u64, millis: u64) -> String {
        let (size, took) = (units::bytes(bytes), units::duration(millis));
        self.row(stage, &self.paint.dim(&format!("{what}: {size} in {took}")))
    }

    /// How far bytes to or from the remote are, as a line of its own.
    pub(crate) fn moving_line(&self, stage: &str, doing: &str, bytes: u64, total: u64) -> String {
        self.row(stage, &self.paint.dim(&moving(doing, bytes, total)))
    }

    /// Keeps in mind which cell goes on.
    fn picked(&mut self, event: &Event) -> Vec<String> {
        if let Event::StagePicked {
            stage,
            cell,
            metric,
            value,
            largest,
            among,
        } = event
        {
            let extreme = if *largest { "largest" } else { "smallest" };
            let value = units::figure(*value);
            let text = format!("picks {cell}: {metric} {value}, the {extreme} of {among}");
            self.picks.insert(stage.clone(), text);
        }
        Vec::new()
    }

    fn started(&self, stage: &str, reasons: &[String], attempt: u32) -> Vec<String> {
        if attempt > 1 {
            return vec![self.row(stage, &format!("runs again, try {attempt}"))];
        }
        let more = reasons.len().saturating_sub(REASONS);
        let mut shown: Vec<_> = reasons.iter().take(REASONS).cloned().collect();
        if more > 0 {
            shown.push(format!("and {}", units::count(more, "more reason")));
        }
        let mut lines = Vec::new();
        for (at, reason) in shown.iter().enumerate() {
            let reason = self.paint.dim(reason);
            lines.push(if at == 0 {
                self.row(stage, &format!("runs: {reason}"))
            } else {
                self.under(&format!("      {reason}"))
            });
        }
        if lines.is_empty() {
            lines.push(self.row(stage, "runs"));
        }
        lines
    }

    fn said(&mut self, at: u64, stage: &str, said: &StageEvent) -> Vec<String> {
        self.running
            .entry(stage.to_owned())
            .or_default()
            .hear(at, said);
        match said {
            StageEvent::Warning { code, text } => {
                let code = self.paint.dim(&format!("({code})"));
                let text = format!("{} {text} {code}", self.paint.yellow("warning:"));
                vec![self.row(stage, &text)]
            }
            StageEvent::Sample { prompt, answer } => vec![
                self.row(
                    stage,
                    &self.paint.dim(&format!("asked: {}", one_line(prompt))),
                ),
                self.under(&format!("says: {}", one_line(answer))),
            ],
            StageEvent::Log { text } if self.setting.verbose => {
                vec![self.row(stage, &self.paint.dim(text))]
            }
            _ => Vec::new(),
        }
    }

    fn changed(&self, paths: &[PathBuf], ended: &[String]) -> Vec<String> {
        let mut shown: Vec<_> = paths
            .iter()
            .take(REASONS)
            .map(|path| format!("`{}`", shown_path(path).display()))
            .collect();
        let more = paths.len().saturating_sub(REASONS);
        if more > 0 {
            shown.push(format!("{more} more"));
        }
        let changed = self.paint.yellow("changed:");
        let mut lines = vec![format!("  {changed} {}", shown.join(", "))];
        if !ended.is_empty() {
            let text = format!("out of date, so ended: {}", ended.join(", "));
            lines.push(format!("           {}", self.paint.dim(&text)));
        }
        lines
    }

    fn done(&self, stage: &str, millis: u64, notes: &[String], unchanged: bool) -> Vec<String> {
        let same = if unchanged {
            self.paint.dim(", same bytes as before")
        } else {
            String::new()
        };
        let took = units::duration(millis);
        let mut lines = vec![self.row(
            stage,
            &format!("{} in {took}{same}", self.paint.green("done")),
        )];
        lines.extend(notes.iter().map(|note| self.under(&self.paint.dim(note))));
        lines
    }

    fn failed(
        &self,
        stage: &str,
        error: &StageError,
        place: &str,
        millis: u64,
        log: &std::path::Path,
        pause: Option<u64>,
    ) -> Vec<String> {
        let took = units::duration(millis);
        if let Some(pause) = pause {
            let pause = units::duration(pause);
            let text = format!(
                "failed after {took}, tries again in {pause}: {}",
                error.message
            );
            return vec![self.row(stage, &self.paint.yellow(&text))];
        }
        let what = self.paint.red("failed");
        let mut lines = vec![
            self.row(stage, &format!("{what} after {took}")),
            self.under(&format!(
                "{}: {}",
                self.paint.red(&error.code),
                error.message
            )),
            self.under(&format!("{} {place}", self.paint.dim("  at"))),
            self.under(&format!("{} {}", self.paint.dim("mend"), error.mend)),
        ];
        let tail = tail(log);
        if !tail.is_empty() {
            lines.push(self.under(&format!(
                "{} the end of {}",
                self.paint.dim(" log"),
                shown_path(log).display()
            )));
            lines.extend(
                tail.iter()
                    .map(|line| self.under(&self.paint.dim(&format!("   | {line}")))),
            );
        }
        lines
    }
}

/// How far bytes are on their way.
pub(crate) fn moving(doing: &str, bytes: u64, total: u64) -> String {
    let what = if doing == "push" {
        "goes to the remote"
    } else {
        "comes from the remote"
    };
    format!("{what}: {} of {}", units::bytes(bytes), units::bytes(total))
}

/// Whose result is waited for.
fn waits(pid: u32, host: &str, since: &str, command: &str) -> String {
    if pid == 0 {
        return "waits: its result is being made by another process".to_owned();
    }
    if pid == std::process::id() {
        return "waits: its result is being made by an equal stage of this run".to_owned();
    }
    let mut text = format!("waits: its result is being made by process {pid} on {host}");
    let second = since.split_once('Z').map_or(since, |(second, _)| second);
    if let Some((day, time)) = second.split_once('T') {
        text.push_str(&format!(" since {day} {time} UTC"));
    }
    if !command.is_empty() {
        text.push_str(&format!(" (`{command}`)"));
    }
    text
}

/// A gate that does not hold.
fn gate_broken(paint: Paint, metric: &str, value: Option<f64>, wanted: &str) -> String {
    let value = value.map_or_else(|| "not measured".to_owned(), units::figure);
    format!(
        "{} {metric} is {value}, wanted {wanted}",
        paint.red("gate:")
    )
}

/// A path as the person at the current folder would write it.
pub fn shown_path(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute
        .strip_prefix(&here)
        .map_or_else(|_| absolute.clone(), Path::to_owned)
}

fn one_line(text: &str) -> String {
    const LONGEST: usize = 160;
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() <= LONGEST {
        return flat;
    }
    flat.chars().take(LONGEST - 1).chain(['…']).collect()
}

/// The last lines of a log, without its heading lines.
fn tail(log: &std::path::Path) -> Vec<String> {
    let Ok(bytes) = std::fs::read(log) else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("# "))
        .collect();
    let from = lines.len().saturating_sub(TAIL);
    lines[from..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}
