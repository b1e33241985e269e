//! One guarded program, watched: its lines told as they come, its time limited, its end
//! asked for or forced.
//!
//! Promises: returns only when the program and everything it started in its process group
//! are gone. Must not know: stages, stores, what the lines mean.

use std::process::ExitStatus;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::guarded::Guarded;
use super::lines::Lines;

/// How long a program may take to end after it was asked to because the run is cancelled:
/// a training writes its checkpoint first.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// How long after its time is up.
const TIME_UP: Duration = Duration::from_secs(5);

/// How long its pipes are read once it is gone (a runaway grandchild may hold them open).
const DRAIN: Duration = Duration::from_secs(2);

/// Whether, and how, the run is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// It goes on.
    No,
    /// Ask every program to end.
    Ask,
    /// Kill.
    Now,
}

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// How a program ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ended {
    /// By itself.
    Exit(ExitStatus),
    /// Because the run is to stop.
    Cancelled,
    /// Because its time was up.
    TimedOut(Duration),
}

/// What to run.
pub(crate) struct Program {
    /// The program and its arguments.
    pub(crate) line: Vec<String>,
    /// Its working directory.
    pub(crate) folder: std::path::PathBuf,
    /// Its whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// Its standard input; empty means none.
    pub(crate) input: String,
    /// Wall-clock limit.
    pub(crate) limit: Option<Duration>,
}

/// Runs the program to its end; `told` hears every line.
pub(crate) async fn supervise(
    program: &Program,
    mut stop: watch::Receiver<Stop>,
    mut told: impl FnMut(Channel, String),
) -> std::io::Result<Ended> {
    let (mut guarded, pipes) = Guarded::start(program)?;
    let mut out = Lines::new(pipes.out);
    let mut err = Lines::new(pipes.err);
    let mut leash = Leash::new(program.limit);
    let wish = *stop.borrow_and_update();
    leash.obey(wish, &guarded);

    let mut status = None;
    while status.is_none() || !(out.ended() && err.ended()) {
        tokio::select! {
            read = out.fill(), if !out.ended() => {
                read?;
                while let Some(line) = out.take() { told(Channel::Out, line); }
            }
            read = err.fill(), if !err.ended() => {
                read?;
                while let Some(line) = err.take() { told(Channel::Err, line); }
            }
            ended = guarded.wait(), if status.is_none() => {
                status = Some(ended?);
                leash.next = Some(Instant::now() + DRAIN);
            }
            changed = stop.changed(), if status.is_none() => {
                let wish = if changed.is_ok() { *stop.borrow_and_update() } else { Stop::Now };
                leash.obey(wish, &guarded);
            }
            () = sleep_until(leash.next.unwrap_or_else(far_away)), if leash.next.is_some() => {
                if status.is_some() { break; }
                leash.time_is_up(&guarded);
            }
        }
    }
    let status = status.expect("the loop ends only after the program");
    Ok(leash.because.unwrap_or(Ended::Exit(status)))
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_hours(24)
}

/// Why the program is to end, and the next moment at which something is due.
struct Leash {
    limit: Option<Duration>,
    next: Option<Instant>,
    because: Option<Ended>,
}

impl Leash {
    fn new(limit: Option<Duration>) -> Self {
        Self {
            limit,
            next: limit.map(|limit| Instant::now() + limit),
            because: None,
        }
    }

    fn obey(&mut self, wish: Stop, guarded: &Guarded) {
        match wish {
            Stop::No => {}
            Stop::Ask => self.ask(guarded, Ended::Cancelled, LAST_WORDS),
            Stop::Now => {
                self.because.get_or_insert(Ended::Cancelled);
                guarded.kill();
            }
        }
    }

    fn ask(&mut self, guarded: &Guarded, because: Ended, patience: Duration) {
        self.because.get_or_insert(because);
        guarded.term();
        self.next = Some(Instant::now() + patience);
    }

    /// The limit was reached, or the patience after it.
    fn time_is_up(&mut self, guarded: &Guarded) {
        if let (None, Some(limit)) = (self.because, self.limit) {
            self.ask(guarded, Ended::TimedOut(limit), TIME_UP);
        } else {
            guarded.kill();
            self.next = None;
        }
    }
}
