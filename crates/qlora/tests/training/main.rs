//! Training against references made elsewhere: PEFT's own runs, candle's autograd, a real model's answer.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod architectures;
mod autograd;
mod candle_models;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod cuda_base;
#[cfg(feature = "cuda")]
mod cuda_full;
#[cfg(feature = "cuda")]
mod cuda_generate;
#[cfg(feature = "cuda")]
mod cuda_ranks;
#[cfg(feature = "cuda")]
mod cuda_steps;
#[cfg(feature = "cuda")]
mod cuda_work;
mod folder;
mod heads;
mod merged;
mod paper;
mod peft_options;
mod peft_refs;
mod smollm2;
