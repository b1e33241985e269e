//! Fine-tuning a LoRA adapter on a frozen decoder, from examples to a trained adapter.
//!
//! Promises: the same inputs give the same bits, at any number of threads, with or without a stop and a
//! resume in between. The loss of a step is a mean over the whole batch, so neither micro-batches nor shared
//! prefixes nor the number of processes that train together change it but by the order of sums. It knows token ids; not text, templates or pipelines.

mod adamw;
mod batch;
mod checkpoint;
mod config;
mod deal;
mod division;
mod engine;
mod event;
mod forecast;
mod job;
mod kept;
mod memory;
mod order;
mod plan;
mod saving;
mod schedule;
mod step;
mod together;
mod trainer;

pub use batch::Example;
pub use config::{LossMean, Samples, Schedule, TrainConfig};
pub use event::{Kept, StepRecord, Stop, TrainEvent, TrainReport, Validation};
pub use forecast::plan_on_gpu;
pub use job::TrainJob;
pub use plan::{Fallback, Keeping, StepPlan};
pub use trainer::{train, train_on_gpu};

pub(crate) use adamw::{AdamW, Update};
pub(crate) use batch::Group;
pub(crate) use division::Division;
pub(crate) use engine::{Engine, Work};
pub(crate) use step::BatchLoss;
#[cfg(test)]
pub(crate) use step::Masks;

pub(crate) use batch::{common_prefix, group_by_prefix};

#[cfg(test)]
mod tests;
