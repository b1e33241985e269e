//! `runs/<n>.jsonl`: the events of a run, so that it can be looked at later.
//!
//! Promises: a run in which nothing happened leaves no file; the newest [`KEPT`] are kept;
//! a journal that cannot be written does not stop a run. Lines of stages' logs are
//! left out: they have files of their own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use stages::StageEvent;

use crate::event::{Envelope, Event};

/// Journals kept.
const KEPT: usize = 100;

/// A run's journal.
pub(crate) struct Journal {
    folder: PathBuf,
    /// Told before anything happened: not worth a line yet.
    early: Vec<Envelope>,
    waiting: Vec<u8>,
    file: Option<BufWriter<File>>,
    worth_keeping: bool,
}

impl Journal {
    /// A journal below `.tunesmith`.
    pub(crate) fn new(home: &Path) -> Self {
        Self {
            folder: home.join("runs"),
            early: Vec::new(),
            waiting: Vec::new(),
            file: None,
            worth_keeping: false,
        }
    }

    /// Writes an event down.
    pub(crate) fn hear(&mut self, told: Envelope) {
        if let Event::Stage {
            said: StageEvent::Log { .. },
            ..
        } = told.event
        {
            return;
        }
        if let Event::StageStarted { .. } = told.event {
            self.worth_keeping = true;
        }
        if !self.worth_keeping {
            if let Event::RunStarted { stages, .. } = &told.event {
                // At the right size at once: growing costs more than all that is told.
                self.early.reserve(stages.len() + 8);
            }
            self.early.push(told);
            return;
        }
        for early in std::mem::take(&mut self.early) {
            self.line(&early);
        }
        self.line(&told);
        // Progress may wait in the buffer.
        self.write(!matches!(told.event, Event::Stage { .. }));
    }

    /// Gives no memory back of what was not worth a line.
    pub(crate) fn leave(&mut self) {
        std::mem::forget(std::mem::take(&mut self.early));
    }

    fn line(&mut self, told: &Envelope) {
        serde_json::to_writer(&mut self.waiting, told).expect("events are plain data");
        self.waiting.push(b'\n');
    }

    fn write(&mut self, flush: bool) {
        if self.file.is_none() {
            self.file = open(&self.folder).map(BufWriter::new);
        }
        if let Some(file) = &mut self.file {
            let written = file.write_all(&self.waiting);
            let _lost = written.and_then(|()| if flush { file.flush() } else { Ok(()) });
        }
        self.waiting.clear();
    }
}

/// The next number's file, after dropping the oldest.
fn open(folder: &Path) -> Option<File> {
    std::fs::create_dir_all(folder).ok()?;
    let mut numbers = numbers(folder);
    numbers.sort_unstable();
    for old in numbers.iter().rev().skip(KEPT - 1) {
        let _gone = std::fs::remove_file(folder.join(format!("{old}.jsonl")));
    }
    let mut next = numbers.last().map_or(1, |last| last + 1);
    loop {
        let path = folder.join(format!("{next}.jsonl"));
        match File::options().write(true).create_new(true).open(path) {
            Ok(file) => return Some(file),
            // Another process took the number.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => next += 1,
            Err(_) => return None,
        }
    }
}

fn numbers(folder: &Path) -> Vec<u64> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.strip_suffix(".jsonl")?.parse().ok()
        })
        .collect()
}

/// The numbers of the journals below `.tunesmith`, oldest first.
pub fn journals(home: &Path) -> Vec<u64> {
    let mut numbers = numbers(&home.join("runs"));
    numbers.sort_unstable();
    numbers
}

/// The events of a run. Lines that do not parse (a killed run's last one) are skipped.
pub fn journal(home: &Path, number: u64) -> std::io::Result<Vec<Envelope>> {
    let text = std::fs::read_to_string(home.join("runs").join(format!("{number}.jsonl")))?;
    let events = text.lines().map(serde_json::from_str);
    Ok(events.filter_map(Result::ok).collect())
}

/// The keys of the stages that had a result in a run.
pub fn keys_of(events: &[Envelope]) -> BTreeMap<String, String> {
    let key = |told: &Envelope| match &told.event {
        Event::StageFresh { stage, key, .. } | Event::StageDone { stage, key, .. } => {
            Some((stage.clone(), key.clone()))
        }
        _ => None,
    };
    events.iter().filter_map(key).collect()
}

/// The newest run that made the result of a stage's key, as far as journals are kept.
pub fn made_by(home: &Path, stage: &str, key: &str) -> Option<u64> {
    let made = |told: &Envelope| matches!(&told.event, Event::StageDone { stage: s, key: k, .. } if s == stage && k == key);
    let mut runs = journals(home).into_iter().rev();
    runs.find(|number| journal(home, *number).is_ok_and(|events| events.iter().any(made)))
}
