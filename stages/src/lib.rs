//! The stage contract and the built-in stages.
//!
//! Promises: every stage is reached through [`registry`], declares its parameters,
//! ports and behaviour versions as data, and runs as a plain blocking function of a
//! [`Context`]. Must not know: pipelines, lines and columns, the store, the terminal.

mod adapter_files;
mod base;
pub mod contract;
pub mod conversation;
pub mod eval;
pub mod eval_prompts;
pub mod export;
pub mod fetch;
pub mod format;
mod http;
pub mod prompt;
#[cfg(test)]
mod model_tests;
pub mod registry;
pub mod similarity;
pub mod split;
#[cfg(test)]
pub(crate) mod testing;
pub mod tools;
pub mod train;
pub mod validate;
mod sha256;
pub mod upload;

pub use contract::{
    Context, Effect, Fault, Field, FieldType, Outcome, Params, Pool, Port, Product, Site, Stage,
    StageError, StageEvent,
};
