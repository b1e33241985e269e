//! `pipeline.yaml` -> values that know their line; collects every fault.
//!
//! Promises: any text is either a checked [`Pipeline`] or a list of faults, each with a
//! place. Must not know: the store, keys, how anything runs or is drawn.

mod action;
mod cell;
mod checkpoints;
mod edit;
mod expression;
mod fan;
mod fault;
mod input;
mod limits;
mod load;
mod matrix;
mod node;
mod overlay;
mod params;
mod parse;
mod pick;
mod pipeline;
mod range;
mod remembered;
mod remote;
pub(crate) mod resources;
mod scalar;
mod schema;
mod secret;
mod section;
mod stage;
mod store;
pub(crate) mod suggest;
mod template;
#[cfg(test)]
pub(crate) mod tests;
mod user;
mod with;

pub use cell::{Cell, Selector};
pub use checkpoints::Checkpoints;
pub use edit::{Edited, edit};
pub use fault::{Fault, Faults};
pub(crate) use load::{Loaded, load_lenient, read};
pub use load::{find, load};
pub use params::Overrides;
pub use pick::{Candidate, PickSpec};
pub use pipeline::{Action, Gate, InputSpec, Limits, Pipeline, Reference, Span, StageSpec};
pub use remembered::Remembered;
pub use remote::{Push, RemoteSpec};
pub use resources::{Pools, Resources};
pub use schema::{schema, schema_text};
pub use store::StoreSpec;
pub use user::User;
