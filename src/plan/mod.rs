//! What must run, and why: one pure question, asked for show by `plan` and for real by the
//! scheduler as each input settles.
//!
//! Promises: the same walk makes the key and the reason; what depends on an unfinished stage is
//! waiting, never guessed; nothing here starts, writes results or prints. The two things it does
//! to the disk are remembering hashes and taking local inputs into the store.
//! Must not know: how a stage is run, terminals, tokio.

mod canonical;
mod decide;
mod error;
mod input;
pub mod key;
mod last;
mod preview;
mod reason;
#[cfg(test)]
mod tests;

pub use decide::{Decision, Options, Planner, Question, Settled};
pub use error::PlanError;
pub use input::{Inputs, Item, Origin};
pub use last::{Last, LastResult};
pub use preview::{Ask, preview, preview_with};
pub use reason::Reason;
