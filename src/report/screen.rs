//! Standard output and standard error: the only doors to the terminal.
//!
//! Promises: a reader that went away (`| head`) is no error and no panic.

use std::io::Write;

/// Writes a line to standard output.
pub fn line(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Says what a command was asked for, on standard output.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Says what went wrong, on standard error.
pub fn complain(text: &str) {
    let mut out = std::io::stderr().lock();
    let _gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
