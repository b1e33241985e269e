//! Parse, call, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    tunesmith::cli::main(std::env::args_os().collect())
}
