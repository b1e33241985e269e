//! Parse, call, exit code.

use std::process::ExitCode;

/// A plan of many stages is many small texts: this takes a fifth off a run that does nothing
/// (`docs/performance-orchestrator.md`). It asks for no huge pages (`no_thp`): every thread would begin
/// with clearing 2 MiB for the few texts that it needs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tunesmith::cli::main(std::env::args_os().collect())
}
