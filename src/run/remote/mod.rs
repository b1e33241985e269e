//! The remote of a run: asked before anything is made, fetched from when bytes are wanted, put to in
//! the background.
//!
//! Promises: it fails no run: what is wrong with it is counted and said once, at the end; bytes are
//! fetched only of results that a stage reads which runs, or that are shown; what was made is put
//! there while other stages run. Must not know: how a store far away is spoken to (`objects`).

mod asked;
mod errands;
mod far;
mod link;
mod pull;
mod push;
mod pushed;
mod words;

pub(super) use far::Far;
pub(super) use link::spec_of;
pub use link::{Link, Pushing, ask, pull_request};
pub use pull::{Brought, bring};
pub(super) use push::Push;
pub use push::{Sent, push_all};
pub use words::complaints;
