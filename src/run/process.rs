//! One guarded program, watched: its lines told as they come, its time limited, its end
//! asked for or forced.
//!
//! Promises: returns only when the program and everything it started in its process group
//! are gone, also when somebody kills the guard alone. Must not know: stages, stores, what the lines mean.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::guard::{GUARD, TERM};
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

/// Starts the program under guard. When the handle is dropped its pipe ends, and with it
/// everything the guard watches.
fn start(program: &Program) -> std::io::Result<tokio::process::Child> {
    Command::new(std::env::current_exe()?)
        .arg(GUARD)
        .arg("--")
        .args(&program.line)
        .current_dir(&program.folder)
        .env_clear()
        .envs(program.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}

/// Runs the program to its end; `told` hears every line.
pub(crate) async fn supervise(
    program: &Program,
    mut stop: watch::Receiver<Stop>,
    mut told: impl FnMut(Channel, String),
) -> std::io::Result<Ended> {
    let mut child = start(program)?;
    let group = child.id();
    let mut out = Lines::new(child.stdout.take().expect("stdout is piped"));
    let mut err = Lines::new(child.stderr.take().expect("stderr is piped"));
    let mut leash = Leash::new(child.stdin.take().expect("stdin is piped"), program.limit);
    leash.send(&first_line(&program.input)).await;
    let wish = *stop.borrow_and_update();
    leash.obey(wish).await;

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
            ended = child.wait(), if status.is_none() => {
                let ended = ended?;
                avenge(group, ended);
                status = Some(ended);
                leash.next = Some(Instant::now() + DRAIN);
            }
            changed = stop.changed(), if status.is_none() => {
                let wish = if changed.is_ok() { *stop.borrow_and_update() } else { Stop::Now };
                leash.obey(wish).await;
            }
            () = sleep_until(leash.next.unwrap_or_else(far_away)), if leash.next.is_some() => {
                if status.is_some() { break; }
                leash.time_is_up().await;
            }
        }
    }
    let status = status.expect("the loop ends only after the program");
    Ok(leash.because.unwrap_or(Ended::Exit(status)))
}

/// A guard that was killed took nobody with it: ends what it watched. The group keeps its
/// number as long as anybody is in it.
fn avenge(group: Option<u32>, ended: ExitStatus) {
    let group = group.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let (Some(group), Some(_)) = (group, ended.signal()) {
        // ESRCH says that nobody is left, which is what is wanted.
        let _nobody = kill_process_group(group, Signal::KILL);
    }
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_hours(24)
}

fn first_line(input: &str) -> String {
    format!("{}\n", serde_json::Value::from(input))
}

/// The guard's pipe and the next moment at which something is due.
struct Leash {
    pipe: Option<ChildStdin>,
    limit: Option<Duration>,
    next: Option<Instant>,
    because: Option<Ended>,
}

impl Leash {
    fn new(pipe: ChildStdin, limit: Option<Duration>) -> Self {
        Self {
            pipe: Some(pipe),
            limit,
            next: limit.map(|limit| Instant::now() + limit),
            because: None,
        }
    }

    /// Writes to the guard; one that is gone is told by its exit status instead.
    async fn send(&mut self, text: &str) {
        if let Some(pipe) = &mut self.pipe {
            let _gone = pipe.write_all(text.as_bytes()).await;
            let _gone = pipe.flush().await;
        }
    }

    async fn obey(&mut self, wish: Stop) {
        match wish {
            Stop::No => {}
            Stop::Ask => self.ask(Ended::Cancelled, LAST_WORDS).await,
            Stop::Now => {
                self.because.get_or_insert(Ended::Cancelled);
                self.pipe = None;
            }
        }
    }

    async fn ask(&mut self, because: Ended, patience: Duration) {
        self.because.get_or_insert(because);
        self.send(TERM).await;
        self.next = Some(Instant::now() + patience);
    }

    /// The limit was reached, or the patience after it.
    async fn time_is_up(&mut self) {
        if let (None, Some(limit)) = (self.because, self.limit) {
            self.ask(Ended::TimedOut(limit), TIME_UP).await;
        } else {
            self.pipe = None;
            self.next = None;
        }
    }
}
