//! What a training run tells while it goes, and what it reports at its end.
//!
//! Reports hold nothing that differs between two runs of the same inputs; events also carry times.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::plan::{Fallback, StepPlan};

/// One optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Steps done, this one included.
    pub step: u64,
    /// Mean cross entropy of the batch (over labels or over rows, as configured), before the step.
    pub loss: f64,
    pub lr: f64,
    /// Norm of the whole gradient, before clipping.
    pub grad_norm: f64,
    /// Ids predicted.
    pub labels: u64,
    /// Ids that went through the decoder (a shared prefix counts once).
    pub tokens: u64,
    /// Ids that would have gone through it without sharing.
    pub separate_tokens: u64,
}

/// One pass over the validation examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Steps done.
    pub step: u64,
    /// Mean cross entropy, over labels or over rows as in training.
    pub loss: f64,
}

/// Why training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stop {
    /// All steps are done.
    Finished,
    /// The validation loss no longer fell.
    Early,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TrainEvent {
    /// A checkpoint that the run does not go on from, and why.
    PassedOver {
        path: PathBuf,
        why: String,
    },
    /// The plan, before the first step.
    Started {
        steps: u64,
        trainable: usize,
        examples: usize,
        validation: usize,
        /// Steps already done by an earlier run.
        resumed: u64,
        /// Bytes: frozen weights, adapter with moments, activations at their planned most.
        weight_bytes: u64,
        adapter_bytes: u64,
        activation_bytes: u64,
        /// How the steps run, at their planned most.
        plan: StepPlan,
    },
    /// A card was full: this step and those after it run by a smaller plan.
    Fallback(Fallback),
    /// A step, and how long it took.
    Step {
        record: StepRecord,
        of: u64,
        seconds: f64,
    },
    Validated {
        record: Validation,
        best: bool,
        seconds: f64,
    },
    /// An answer of the model as it stands.
    Sample {
        step: u64,
        name: String,
        ids: Vec<u32>,
    },
    Saved {
        step: u64,
    },
}

/// The whole run, the parts before a resume included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainReport {
    pub steps: Vec<StepRecord>,
    pub validations: Vec<Validation>,
    /// The validation with the lowest loss.
    pub best: Option<Validation>,
    pub stop: Stop,
    /// The step whose adapter was returned.
    pub returned_step: u64,
    /// Where a card gave less memory than planned. Not the same in every run of the same inputs; empty in nearly all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<Fallback>,
    /// The adapters of the best validations, best first, as many as were asked for.
    #[serde(skip)]
    pub kept: Vec<Kept>,
}

/// A validation that was among the best, and the adapter that it judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub validation: Validation,
    /// As [`Adapter::values`](crate::Adapter::values).
    pub values: Vec<f32>,
}
