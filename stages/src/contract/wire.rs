//! What the command and a worker say to each other: one request on standard input, then
//! one message a line on standard output, the last of them `done` or `failed`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Outcome, StageError, StageEvent};

/// The variable that tells a worker how many GPUs its stage was given, where there are several: it may
/// start one process for each.
pub const RANKS: &str = "TUNESMITH_RANKS";

/// Everything one run needs; see [`super::Context`] for the meaning of each field.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerRequest {
    /// Version of the program that asks; a worker of another version refuses.
    pub program: String,
    /// Stage kind.
    pub kind: String,
    /// Behaviour version the key was made with; a worker with another one refuses.
    pub version: u32,
    /// Canonical parameters.
    pub params: BTreeMap<String, Value>,
    /// Input paths by port.
    pub inputs: BTreeMap<String, Vec<PathBuf>>,
    /// What was derived from inputs, by name.
    #[serde(default)]
    pub derived: BTreeMap<String, PathBuf>,
    /// Empty output directory.
    pub output: PathBuf,
    /// This key's checkpoint directory.
    pub checkpoint: PathBuf,
    /// This stage kind's kept directory.
    pub keep: PathBuf,
    /// The seed.
    pub seed: u64,
    /// Worker threads.
    pub threads: usize,
    /// Pinned source identity.
    pub pin: Option<String>,
    /// Whether the network may be used.
    pub network: bool,
}

/// One line from a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerMessage {
    /// Something it tells.
    Event(StageEvent),
    /// It ended well.
    Done(Outcome),
    /// It failed.
    Failed(StageError),
}
