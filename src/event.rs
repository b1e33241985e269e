//! Everything that can be told about a run: the whole agreement between those who do
//! (`run`) and those who show (`report`).
//!
//! Promises: plain serialisable data; a recorded stream can be replayed by any listener.
//! Must not know: tokio, terminals, the store.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stages::{Outcome, StageError, StageEvent};

/// One thing told. `at` in the envelope is milliseconds since the run began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Milliseconds since the run began.
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum Event {
    /// The run began; the stages in the order in which they will be shown.
    RunStarted {
        /// Pipeline name.
        pipeline: String,
        /// Profile.
        profile: String,
        /// Stage ids.
        stages: Vec<String>,
    },
    /// A stage's result was there already.
    StageFresh {
        /// Stage id.
        stage: String,
        /// Its metrics.
        metrics: BTreeMap<String, f64>,
        /// Whether it was brought back from the store (its key changed back) rather than
        /// being the last run's result.
        restored: bool,
        /// Whether its bytes are at the remote; they come when something reads them.
        #[serde(default)]
        remote: bool,
        /// Milliseconds it took when it was made.
        #[serde(default)]
        made_millis: u64,
        /// When its making began, RFC 3339.
        #[serde(default)]
        made_at: String,
        /// Its key, 64 hex digits.
        #[serde(default)]
        key: String,
    },
    /// A stage began.
    StageStarted {
        /// Stage id.
        stage: String,
        /// Why it runs, one sentence each.
        reasons: Vec<String>,
        /// Its log.
        log: PathBuf,
        /// The try, from 1.
        attempt: u32,
        /// What it holds of each pool: slots, or bytes of `memory` and `disk`.
        #[serde(default)]
        holds: BTreeMap<String, u64>,
        /// The GPUs it was given, as `CUDA_VISIBLE_DEVICES` names them.
        #[serde(default)]
        devices: Vec<String>,
        /// Milliseconds between being ready to run and this try.
        #[serde(default)]
        waited: u64,
    },
    /// A stage's result is being made by another process, which is waited for.
    StageWaiting {
        /// Stage id.
        stage: String,
        /// Process id of the holder of the key's lock.
        pid: u32,
        /// Its host.
        host: String,
        /// When it took the lock, RFC 3339; empty if it did not say.
        since: String,
        /// Its command line; empty if it did not say.
        command: String,
    },
    /// Every cell that a stage picks from is measured, and one goes on.
    StagePicked {
        /// Stage id of the one that picks.
        stage: String,
        /// The measured cell, `val-eval[lr=1e-4]`.
        cell: String,
        /// `val-eval.tool_selection`.
        metric: String,
        /// Its value there.
        value: f64,
        /// Whether the largest wins, or the smallest.
        largest: bool,
        /// How many cells there were.
        among: usize,
    },
    /// A running stage says something.
    Stage {
        /// Stage id.
        stage: String,
        /// What.
        said: StageEvent,
    },
    /// A stage ended well and its result is committed.
    StageDone {
        /// Stage id.
        stage: String,
        /// Milliseconds it took.
        millis: u64,
        /// What it found out.
        outcome: Outcome,
        /// Whether its outputs are the same bytes as those of its last result.
        unchanged: bool,
        /// Its key, 64 hex digits.
        #[serde(default)]
        key: String,
    },
    /// A stage failed.
    StageFailed {
        /// Stage id.
        stage: String,
        /// Why.
        error: StageError,
        /// Where in the pipeline file, `pipeline.yaml:14:5`.
        place: String,
        /// Milliseconds since the try began.
        millis: u64,
        /// Its log.
        log: PathBuf,
        /// Whether it will be tried again.
        again: bool,
        /// Milliseconds until the next try.
        #[serde(default)]
        pause: u64,
    },
    /// A stage was not run because people have to decide something first.
    StagePeople {
        /// Stage id.
        stage: String,
        /// Rows that wait for a decision.
        rows: usize,
        /// The file with the decisions, as the pipeline writes it.
        file: PathBuf,
        /// Where in the pipeline file, `pipeline.yaml:14:5`.
        place: String,
    },
    /// A stage was not run because something above it failed or the run was cancelled.
    StageSkipped {
        /// Stage id.
        stage: String,
        /// Why.
        because: String,
    },
    /// A stage with an outside effect could run but was not named.
    StageReady {
        /// Stage id.
        stage: String,
    },
    /// Bytes go to the remote or come from it.
    RemoteProgress {
        /// Stage id.
        stage: String,
        /// `pull` or `push`.
        doing: String,
        /// Bytes so far.
        bytes: u64,
        /// Bytes of its result.
        total: u64,
    },
    /// A stage's result came from the remote: it is in the store and shown.
    StagePulled {
        /// Stage id.
        stage: String,
        /// Blobs that came; the others were here.
        blobs: usize,
        /// Their bytes.
        bytes: u64,
        /// Milliseconds it took.
        millis: u64,
    },
    /// A stage's result is at the remote.
    StagePushed {
        /// Stage id.
        stage: String,
        /// Blobs that went there; the others were there.
        blobs: usize,
        /// Their bytes.
        bytes: u64,
        /// Milliseconds it took.
        millis: u64,
    },
    /// What moved between the store and the remote in the whole run.
    RemoteDone {
        /// Its address.
        remote: String,
        /// Results that came.
        pulled: usize,
        /// Their bytes.
        pulled_bytes: u64,
        /// Results that went.
        pushed: usize,
        /// Their bytes.
        pushed_bytes: u64,
    },
    /// A gate was looked at.
    Gate {
        /// Stage id.
        stage: String,
        /// Metric.
        metric: String,
        /// Its value, if the stage gave one.
        value: Option<f64>,
        /// `>= 0.8`.
        wanted: String,
        /// Whether it holds.
        passed: bool,
    },
    /// Something a person should know that belongs to no stage.
    Notice {
        /// Stable code.
        code: String,
        /// The sentence.
        text: String,
    },
    /// `run --watch`: files that the run reads, or the pipeline file, changed meanwhile.
    InputsChanged {
        /// The files or folders.
        paths: Vec<PathBuf>,
        /// Running stages that are ended, for what they read is out of date.
        ended: Vec<String>,
    },
    /// `run --watch`: the run is over and the next change is waited for. Follows the end of
    /// a run and is in no journal.
    Watching {
        /// How many files and folders are looked at.
        paths: usize,
    },
    /// The run ended.
    RunFinished {
        /// `ok`, `failed`, `gate`, `locked`, `people`, `cancelled`, `superseded`.
        status: String,
        /// Milliseconds in all.
        millis: u64,
        /// Stages that ran.
        ran: usize,
        /// Stages that were fresh or restored.
        fresh: usize,
        /// How often the store asked the disk to make something durable.
        #[serde(default)]
        syncs: u64,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::PathBuf;

    use serde_json::Value;
    use stages::{Outcome, StageError, StageEvent};

    use super::Event;

    /// One of each kind, in turn: a new kind does not compile until it has its place here.
    fn after(event: Option<&Event>) -> Option<Event> {
        let text = String::new;
        let Some(event) = event else {
            return Some(Event::RunStarted {
                pipeline: text(),
                profile: text(),
                stages: Vec::new(),
            });
        };
        Some(match event {
            Event::RunStarted { .. } => Event::StageFresh {
                stage: text(),
                metrics: BTreeMap::new(),
                restored: true,
                remote: false,
                made_millis: 0,
                made_at: text(),
                key: text(),
            },
            Event::StageFresh { .. } => Event::StageStarted {
                stage: text(),
                reasons: Vec::new(),
                log: PathBuf::new(),
                attempt: 1,
                holds: BTreeMap::new(),
                devices: Vec::new(),
                waited: 0,
            },
            Event::StageStarted { .. } => Event::StageWaiting {
                stage: text(),
                pid: 0,
                host: text(),
                since: text(),
                command: text(),
            },
            Event::StageWaiting { .. } => Event::StagePicked {
                stage: text(),
                cell: text(),
                metric: text(),
                value: 0.0,
                largest: true,
                among: 0,
            },
            Event::StagePicked { .. } => Event::Stage {
                stage: text(),
                said: StageEvent::Log { text: text() },
            },
            Event::Stage { .. } => Event::StageDone {
                stage: text(),
                millis: 0,
                outcome: Outcome::default(),
                unchanged: false,
                key: text(),
            },
            Event::StageDone { .. } => Event::StageFailed {
                stage: text(),
                error: StageError::new("a::b", "c", "d"),
                place: text(),
                millis: 0,
                log: PathBuf::new(),
                again: false,
                pause: 0,
            },
            Event::StageFailed { .. } => Event::StagePeople {
                stage: text(),
                rows: 0,
                file: PathBuf::new(),
                place: text(),
            },
            Event::StagePeople { .. } => Event::StageSkipped {
                stage: text(),
                because: text(),
            },
            Event::StageSkipped { .. } => Event::StageReady { stage: text() },
            later => return after_ready(later),
        })
    }

    /// The second half of [`after`], from `StageReady` on.
    fn after_ready(event: &Event) -> Option<Event> {
        let text = String::new;
        Some(match event {
            Event::StageReady { .. } => Event::RemoteProgress {
                stage: text(),
                doing: text(),
                bytes: 0,
                total: 0,
            },
            Event::RemoteProgress { .. } => Event::StagePulled {
                stage: text(),
                blobs: 0,
                bytes: 0,
                millis: 0,
            },
            Event::StagePulled { .. } => Event::StagePushed {
                stage: text(),
                blobs: 0,
                bytes: 0,
                millis: 0,
            },
            Event::StagePushed { .. } => Event::RemoteDone {
                remote: text(),
                pulled: 0,
                pulled_bytes: 0,
                pushed: 0,
                pushed_bytes: 0,
            },
            Event::RemoteDone { .. } => Event::Gate {
                stage: text(),
                metric: text(),
                value: None,
                wanted: text(),
                passed: true,
            },
            Event::Gate { .. } => Event::Notice {
                code: text(),
                text: text(),
            },
            Event::Notice { .. } => Event::InputsChanged {
                paths: Vec::new(),
                ended: Vec::new(),
            },
            Event::InputsChanged { .. } => Event::Watching { paths: 0 },
            Event::Watching { .. } => Event::RunFinished {
                status: text(),
                millis: 0,
                ran: 0,
                fresh: 0,
                syncs: 0,
            },
            Event::RunFinished { .. } => return None,
            // Named one by one, so that a new kind does not compile until it has its place.
            Event::RunStarted { .. }
            | Event::StageFresh { .. }
            | Event::StageStarted { .. }
            | Event::StageWaiting { .. }
            | Event::StagePicked { .. }
            | Event::Stage { .. }
            | Event::StageDone { .. }
            | Event::StageFailed { .. }
            | Event::StagePeople { .. }
            | Event::StageSkipped { .. } => unreachable!("in the first half"),
        })
    }

    fn after_said(said: Option<&StageEvent>) -> Option<StageEvent> {
        let text = String::new;
        let Some(said) = said else {
            return Some(StageEvent::Log { text: text() });
        };
        Some(match said {
            StageEvent::Log { .. } => StageEvent::Progress {
                done: 0,
                total: None,
                unit: text(),
                what: text(),
            },
            StageEvent::Progress { .. } => StageEvent::Metric {
                name: text(),
                step: None,
                value: 0.0,
            },
            StageEvent::Metric { .. } => StageEvent::Warning {
                code: text(),
                text: text(),
            },
            StageEvent::Warning { .. } => StageEvent::Sample {
                prompt: text(),
                answer: text(),
            },
            StageEvent::Sample { .. } => return None,
        })
    }

    type Kinds = BTreeMap<String, BTreeSet<String>>;

    /// Heading and field names of one kind.
    fn kind(value: &Value, tag: &str, before: &str) -> (String, BTreeSet<String>) {
        let name = value[tag].as_str().expect("a tag");
        let fields = value.as_object().expect("an object").keys();
        let fields = fields.filter(|field| *field != tag).cloned();
        (format!("{before}{name}"), fields.collect())
    }

    fn written() -> Kinds {
        let mut kinds = Kinds::new();
        let mut event = after(None);
        while let Some(now) = event {
            let value = serde_json::to_value(&now).expect("plain data");
            kinds.extend([kind(&value, "type", "")]);
            event = after(Some(&now));
        }
        let mut said = after_said(None);
        while let Some(now) = said {
            let value = serde_json::to_value(&now).expect("plain data");
            kinds.extend([kind(&value, "event", "said: ")]);
            said = after_said(Some(&now));
        }
        kinds
    }

    /// Headings of the page with the fields of their tables.
    fn documented() -> Kinds {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/events.md");
        let page = std::fs::read_to_string(page).expect("the page is there");
        let sections = page.split("\n### ").skip(1);
        let section = |section: &str| {
            let name = section.lines().next().unwrap_or_default().to_owned();
            let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
            let fields = rows.filter_map(|row| Some(row.split_once('`')?.0.to_owned()));
            (name, fields.collect())
        };
        sections.map(section).collect()
    }

    #[test]
    fn every_event_and_every_field_is_documented() {
        assert_eq!(documented(), written());
    }
}
