//! `pipeline.yaml` -> values that know their line; collects every fault.
//!
//! Promises: any text is either a checked [`Pipeline`] or a list of faults, each with a
//! place. Must not know: the store, keys, how anything runs or is drawn.

mod pipeline;

pub use pipeline::{
    Action, CellValue, Gate, InputSpec, Limits, Pipeline, Reference, Resources, Span, StageSpec,
};
