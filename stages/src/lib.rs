//! The stage contract and the built-in stages.
//!
//! Promises: every stage is reached through [`registry`], declares its parameters,
//! ports and behaviour versions as data, and runs as a plain blocking function of a
//! [`Context`]. Must not know: pipelines, lines and columns, the store, the terminal.

pub mod contract;
pub mod fetch;
mod http;
pub mod registry;
mod sha256;
pub mod upload;

pub use contract::{
    Context, Effect, Fault, Field, FieldType, Outcome, Params, Pool, Port, Product, Site, Stage,
    StageError, StageEvent,
};
