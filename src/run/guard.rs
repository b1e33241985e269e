//! The guard: a small process between the command and a stage's program, so that nothing a
//! stage started outlives the command, even one that is killed with SIGKILL.
//!
//! The command starts `tunesmith guard -- PROGRAM ARGS...` and talks to it over standard
//! input: first one line, a JSON string that becomes the program's standard input; then
//! `term` lines. The program gets a process group of its own. `term` sends SIGTERM to the
//! group; the end of the pipe (which the kernel sends when the command is gone, however it
//! went) sends SIGKILL. When the program ends, what is left of its group is killed and its
//! status is passed on (128 + the signal's number after a signal).
//!
//! Linux's parent-death signal would reach the program only, not what it started; a pipe
//! needs no platform and no unsafe code.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The hidden subcommand.
pub const GUARD: &str = "guard";

/// What the guard reads after the first line to pass a polite end on.
pub(crate) const TERM: &str = "term\n";

/// Exit code when the program cannot be started, as shells have it.
pub(crate) const NOT_STARTED: u8 = 127;

/// Runs `program` under guard; the whole life of a guard process.
pub fn guard(program: &[String]) -> ExitCode {
    let Some((name, arguments)) = program.split_first() else {
        return ExitCode::from(NOT_STARTED);
    };
    let mut control = BufReader::new(std::io::stdin());
    let Some(input) = first_line(&mut control) else {
        return ExitCode::from(NOT_STARTED);
    };
    let started = Command::new(name)
        .args(arguments)
        .stdin(if input.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .process_group(0)
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            let line = format!("cannot start `{name}`: {error}\n");
            let _gone = std::io::stderr().write_all(line.as_bytes());
            return ExitCode::from(NOT_STARTED);
        }
    };
    let group = Pid::from_child(&child);
    std::thread::spawn(move || obey(control, group));
    pass_signals_on(group);
    feed(&mut child, input);
    let status = child.wait();
    // ESRCH says that nobody is left, which is what is wanted.
    let _nobody = kill_process_group(group, Signal::KILL);
    match status {
        Ok(status) => ExitCode::from(
            status
                .code()
                .or_else(|| status.signal().map(|signal| 128 + signal))
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(1),
        ),
        Err(_) => ExitCode::FAILURE,
    }
}

fn first_line(control: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    control.read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

/// Writes the program's input and closes it; a program that does not read it is no fault.
fn feed(child: &mut Child, input: String) {
    if let Some(mut pipe) = child.stdin.take() {
        std::thread::spawn(move || pipe.write_all(input.as_bytes()));
    }
}

/// A guard that is itself asked to end (`killall tunesmith`) asks the program instead: it
/// goes when the program has gone.
fn pass_signals_on(group: Pid) {
    // Without handlers a signal would end the guard alone; nothing else depends on them.
    let Ok(mut signals) = Signals::new([SIGTERM, SIGINT, SIGHUP]) else {
        return;
    };
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let _gone = kill_process_group(group, Signal::TERM);
        }
    });
}

/// Passes the command's wishes on until the pipe ends.
fn obey(control: impl BufRead, group: Pid) {
    for line in control.lines() {
        match line {
            Ok(wish) if wish == TERM.trim_end() => {
                let _gone = kill_process_group(group, Signal::TERM);
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    let _gone = kill_process_group(group, Signal::KILL);
}
