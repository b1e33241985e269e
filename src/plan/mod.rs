//! What must run, and why: one pure question, asked for show by `plan` and for real by the
//! scheduler as each input settles.
//!
//! Promises: the same walk makes the key and the reason; what depends on an unfinished stage is
//! waiting, never guessed; nothing here runs a stage, writes results or prints. What it does to
//! the disk is remembering hashes and fingerprints, and taking local inputs into the store; the
//! only programs it starts are those of a `fingerprint` that is not remembered.
//! Must not know: how a stage is run, terminals, tokio.

mod ask;
mod canonical;
mod decide;
mod decision;
mod error;
mod find;
mod fingerprint;
mod input;
pub mod key;
mod last;
mod people;
mod pick;
mod preview;
mod provenance;
mod reason;
#[cfg(test)]
mod tests;
mod why;

pub use decide::Planner;
pub use decision::{Decision, Options, Question, Settled};
pub use error::PlanError;
pub use input::{Inputs, Item, Origin};
pub use last::{Last, LastResult};
pub use people::{People, decisions};
pub use pick::Picked;
pub use preview::{Ask, preview, preview_with};
pub use provenance::{Provenance, base};
pub use reason::Reason;
