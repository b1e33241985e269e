//! Makes it so: the scheduler, its pools, and the executor of one stage. The only async room.
//!
//! Promises: a result exists when its record is committed; a run that is killed at any
//! moment leaves a whole store; children never outlive the command. Everything that
//! happens is told as events. Must not know: who listens, how anything is drawn.

mod executor;
mod gates;
pub mod guard;
mod job;
mod journal;
mod lines;
mod log;
mod mask;
mod out;
mod prepare;
mod process;
mod shell;
mod worker;

pub use log::log_path;
