//! tunesmith: `make` for LLM fine-tunes. The orchestrator as a library.
//!
//! Imports run one way: cli -> {run, report} -> {plan, event} -> graph -> config.

pub mod check;
pub mod cli;
pub mod config;
pub mod event;
pub mod graph;
pub mod lock;
pub mod plan;
pub mod report;
pub mod run;
