//! The guard: a small process between the command and a stage's program, so that nothing a
//! stage started outlives the command, even one that is killed with SIGKILL.
//!
//! The command starts `tunesmith guard -- PROGRAM ARGS...` as the leader of a process group
//! and talks to it over standard input: first one line, a JSON string that becomes the
//! program's standard input; then `term` lines. The program belongs to the guard's group.
//! `term` sends SIGTERM to the group (the guard itself does not mind); the end of the pipe,
//! which the kernel sends when the command is gone, however it went, sends SIGKILL. When the
//! program ends, the guard leaves the group, kills what is left of it and passes the status
//! on (128 + the signal's number after a signal).
//!
//! A guard that is itself killed takes nobody with it, so the command, which sees that, kills
//! the group by the guard's number: that is why program and guard share one. The worker also
//! asks the kernel to end it with its guard, for the case that both are killed at once.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::process::{Pid, Signal, getpgid, getpid, getppid, kill_process_group, setpgid};
use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

/// The hidden subcommand.
pub const GUARD: &str = "guard";

/// What the guard reads after the first line to pass a polite end on.
pub(crate) const TERM: &str = "term\n";

/// Exit code when the program cannot be started, as shells have it.
pub(crate) const NOT_STARTED: u8 = 127;

/// Signals to the group that are meant for the program, not for its guard.
const NOT_MINE: [i32; 7] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM];

/// Runs `program` under guard; the whole life of a guard process.
pub fn guard(program: &[String]) -> ExitCode {
    let Some((name, arguments)) = program.split_first() else {
        return ExitCode::from(NOT_STARTED);
    };
    stand_firm();
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
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            let line = format!("cannot start `{name}`: {error}\n");
            let _gone = std::io::stderr().write_all(line.as_bytes());
            return ExitCode::from(NOT_STARTED);
        }
    };
    let group = getpid();
    std::thread::spawn(move || obey(control, group));
    feed(&mut child, input);
    let status = child.wait();
    // Beside the command, whose group is of the same session: the rest of the own group can
    // be killed then without the status being lost.
    let _left_with_the_rest = getppid()
        .and_then(|parent| getpgid(Some(parent)).ok())
        .map(|beside| setpgid(None, Some(beside)));
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

/// Handlers that do nothing: unlike ignored signals they are not inherited by the program.
/// The command starts the guard as a leader; started by hand it becomes one.
fn stand_firm() {
    for signal in NOT_MINE {
        // Without a handler the signal would end the guard alone; the command sees that.
        let _unheard = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
    let _leads_already = setpgid(None, None);
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
    // Ends the guard as well.
    let _gone = kill_process_group(group, Signal::KILL);
}
