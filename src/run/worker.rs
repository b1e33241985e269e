//! Built-in stages as child processes: which worker, what it is asked, what it says.

use std::path::PathBuf;
use std::process::ExitStatus;

use stages::contract::WorkerMessage;
use stages::{Outcome, StageError, StageEvent};

/// Names the worker executable when it does not lie beside the command.
const WORKER: &str = "TUNESMITH_WORKER";

const NAME: &str = "tunesmith-worker";

/// The worker executable: `TUNESMITH_WORKER`, else beside the command.
pub(crate) fn find() -> Result<PathBuf, StageError> {
    let beside = || {
        let command = std::env::current_exe().ok()?;
        Some(command.parent()?.join(NAME))
    };
    let path = std::env::var_os(WORKER).map(PathBuf::from).or_else(beside);
    match path {
        Some(path) if path.is_file() => Ok(path),
        path => {
            let place = path.map_or_else(String::new, |path| format!(" at `{}`", path.display()));
            Err(StageError::new(
                "run::no-worker",
                format!("there is no `{NAME}`{place}"),
                format!("build it (`cargo build --release -p {NAME}`) or name it in {WORKER}"),
            ))
        }
    }
}

/// What a worker has said; the last message decides.
#[derive(Default)]
pub(crate) struct Heard {
    ended: Option<Result<Outcome, StageError>>,
}

impl Heard {
    /// Understands one line of the worker's standard output. A line that is no message is
    /// a library's chatter and goes to the log.
    pub(crate) fn line(&mut self, line: &str) -> Option<StageEvent> {
        match serde_json::from_str(line) {
            Ok(WorkerMessage::Event(event)) => Some(event),
            Ok(WorkerMessage::Done(outcome)) => {
                self.ended = Some(Ok(outcome));
                None
            }
            Ok(WorkerMessage::Failed(error)) => {
                self.ended = Some(Err(error));
                None
            }
            Err(_) => Some(StageEvent::Log {
                text: line.to_owned(),
            }),
        }
    }

    /// How the stage ended.
    pub(crate) fn ended(self, status: ExitStatus) -> Result<Outcome, StageError> {
        match self.ended {
            Some(Ok(outcome)) if status.success() => Ok(outcome),
            Some(Err(error)) => Err(error),
            _ => Err(died("the worker", status)),
        }
    }
}

/// An end without a word: most often the kernel's, for memory.
pub(crate) fn died(who: &str, status: ExitStatus) -> StageError {
    match status.code() {
        Some(137) => StageError::new(
            "run::killed",
            format!("{who} was killed (signal 9)"),
            "most often the machine ran out of memory: ask for less of it, or close programs",
        ),
        Some(code @ 129..=192) => StageError::new(
            "run::killed",
            format!("{who} was ended by signal {}", code - 128),
            "look at its log",
        ),
        Some(code) => StageError::new(
            "run::exit",
            format!("{who} exits with status {code}"),
            "look at its log",
        ),
        None => StageError::new(
            "run::killed",
            format!("the guard process of {who} was killed, and {who} with it"),
            "run again; somebody outside sent the signal",
        ),
    }
}
