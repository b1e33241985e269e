//! What a running stage tells: plain data, one JSON object a line on the wire.

use serde::{Deserialize, Serialize};

/// Something a stage says while it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum StageEvent {
    /// How far it is. `total` is absent when unknown.
    Progress {
        /// Units done.
        done: u64,
        /// Units in all.
        total: Option<u64>,
        /// `rows`, `bytes`, `steps`.
        unit: String,
        /// What is being done, `training`.
        what: String,
    },
    /// One point of a curve.
    Metric {
        /// `train.loss`.
        name: String,
        /// Step, or `None` for a single value.
        step: Option<u64>,
        /// The value.
        value: f64,
    },
    /// A line for the stage's log.
    Log {
        /// The line.
        text: String,
    },
    /// Something a person should know; the stage goes on.
    Warning {
        /// Stable code.
        code: String,
        /// The sentence.
        text: String,
    },
    /// A sample answer at a checkpoint.
    Sample {
        /// What was asked.
        prompt: String,
        /// What the model said.
        answer: String,
    },
}
