//! Draws for people: faults, graphs.
//!
//! Promises: every function gives text; printing is the command's. Must not know: how
//! anything is found out or run.

pub mod faults;
pub mod graph;
