//! The command, tested as people use it: a project in a temporary folder, commands, and the
//! whole of what they say. One binary; one module a feature.

mod builtin;
mod cache;
mod crash;
mod failures;
mod interrupt;
mod pools;
mod project;
mod resume;
mod run;
mod together;
mod watch;
