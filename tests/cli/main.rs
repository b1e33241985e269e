//! The command, tested as people use it: a project in a temporary folder, commands, and the
//! whole of what they say. One binary; one module a feature.

mod accept;
mod bucket;
mod builtin;
mod cache;
mod campaign;
mod cells;
mod ci;
mod clouds;
mod compare;
mod compared;
mod crash;
mod damage;
mod denied;
mod deploy;
mod derived;
mod emulator;
mod failures;
mod fuzz;
mod interrupt;
mod json;
mod memory;
mod pools;
mod project;
mod proxy;
mod ranks;
mod remote;
mod resume;
mod review;
mod run;
mod set;
mod store;
mod sweep;
mod together;
mod update;
mod watch;
