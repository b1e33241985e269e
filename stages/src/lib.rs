//! The stage contract and the built-in stages.
//!
//! Promises: every stage is reached through [`registry`], declares its parameters,
//! ports and behaviour versions as data, and runs as a plain blocking function of a
//! [`Context`]. Must not know: pipelines, lines and columns, the store, the terminal.

mod adapter_files;
mod base;
pub mod contract;
pub mod conversation;
pub mod convert;
pub mod eval;
pub mod eval_prompts;
pub mod export;
pub mod fetch;
pub mod format;
#[cfg(test)]
mod golden_tests;
mod http;
mod layers;
#[cfg(test)]
mod model_tests;
pub mod prompt;
pub mod registry;
pub mod review;
mod sha256;
pub mod similarity;
pub mod split;
pub mod synthesize;
#[cfg(test)]
pub(crate) mod testing;
pub mod tools;
pub mod train;
pub mod upload;
pub mod validate;

pub use contract::{
    Context, Derived, Effect, Fault, Field, FieldType, Outcome, Params, Pool, Port, Product, Site,
    Stage, StageError, StageEvent, Undecided,
};
