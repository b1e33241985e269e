//! Draws for people: faults, graphs, runs.
//!
//! Promises: every function gives text; `screen` and the listeners are the only ones that
//! print. Must not know: how anything is found out or run.

mod ci;
pub mod compare;
pub mod difference;
pub mod explain;
pub mod faults;
pub mod forecast;
pub mod graph;
mod json;
mod listener;
mod live;
pub mod memory;
mod paint;
mod plain;
mod progress;
pub mod review;
pub mod screen;
mod story;
mod summary;
mod trace;
mod units;

/// How numbers are said.
pub mod words {
    pub(crate) use super::units::{bytes, count};
}

pub use ci::{Ci, annotations};
pub use json::Json;
pub use listener::Listener;
pub use live::Live;
pub use plain::Plain;
pub use story::{Setting, shown_path};
pub use trace::Trace;
