//! The command, tested as people use it: a project in a temporary folder, commands, and the
//! whole of what they say. One binary; one module a feature.

mod accept;
mod bucket;
mod builtin;
mod cache;
mod campaign;
mod compared;
mod crash;
mod failures;
mod interrupt;
mod pools;
mod project;
mod proxy;
mod remote;
mod resume;
mod run;
mod store;
mod together;
mod watch;
