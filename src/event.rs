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
        /// Milliseconds it took when it was made.
        #[serde(default)]
        made_millis: u64,
        /// When its making began, RFC 3339.
        #[serde(default)]
        made_at: String,
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
    },
}
