//! What a command leaves behind for its caller: an exit code, and on trouble the reason.

use std::io::IsTerminal;
use std::process::ExitCode;

use serde_json::json;

use crate::config::{Fault, Faults};
use crate::plan::PlanError;
use crate::report::{annotations, faults, screen};
use crate::run::{Halt, OpenError, RunError, Verdict};

/// Exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// A stage failed.
    Failed = 1,
    /// The pipeline or the command line is at fault.
    Config = 2,
    /// A gate is broken.
    Gate = 3,
    /// `plan --check` found something to run.
    Stale = 4,
    /// The lock forbids going on.
    Locked = 5,
    /// People have to decide something first.
    People = 6,
    /// It was cancelled.
    Cancelled = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Ok => Self::Ok,
            Verdict::Failed => Self::Failed,
            Verdict::Gate => Self::Gate,
            Verdict::Locked => Self::Locked,
            Verdict::People => Self::People,
            Verdict::Cancelled | Verdict::Superseded => Self::Cancelled,
        }
    }
}

/// Why a command could not do what it was asked.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Faults with places.
    Faults(Faults),
    /// Anything else: exit code, stable code, cause, mend.
    Other(Exit, String, String, String),
}

impl Trouble {
    pub(super) fn new(exit: Exit, code: &str, cause: impl Into<String>, mend: &str) -> Self {
        Self::Other(exit, code.to_owned(), cause.into(), mend.to_owned())
    }

    /// Says it, for people or as JSON lines, and gives the exit code.
    pub(super) fn tell(self, json: bool) -> Exit {
        let draw = |found: &Faults| {
            if json {
                faults::json(found)
            } else {
                faults::draw(found, look())
            }
        };
        match self {
            Self::Faults(found) => {
                screen::complain(&draw(&found));
                let env = |name: &str| std::env::var(name).ok();
                screen::complain(&annotations(&env, &found));
                Exit::Config
            }
            Self::Other(exit, code, cause, mend) => {
                let fault = Fault::nowhere(&code, cause).mend(mend);
                let found = Faults::new(std::path::Path::new(""), "", vec![fault]);
                screen::complain(&draw(&found));
                exit
            }
        }
    }
}

/// Says what a person should know although the command did what it was asked.
pub(super) fn note(code: &str, text: &str, json: bool) {
    screen::complain(&if json {
        format!("{}\n", json!({ "code": code, "message": text }))
    } else {
        format!("note: {text} ({code})\n")
    });
}

/// Columns of a drawn fault: what every terminal has, and the same text everywhere.
const WIDTH: usize = 100;

/// How faults are drawn on standard error.
fn look() -> faults::Look {
    let terminal = std::io::stderr().is_terminal();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    faults::Look {
        colour: terminal && !plain,
        width: WIDTH,
    }
}

impl From<Faults> for Trouble {
    fn from(found: Faults) -> Self {
        Self::Faults(found)
    }
}

impl From<cache::Error> for Trouble {
    fn from(error: cache::Error) -> Self {
        Self::new(Exit::Failed, error.code(), error.to_string(), error.mend())
    }
}

impl From<OpenError> for Trouble {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Faults(found) => found.into(),
            OpenError::Store(error) => error.into(),
        }
    }
}

impl From<Halt> for Trouble {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Open(error) => error.into(),
            Halt::Run(error) => error.into(),
        }
    }
}

impl From<PlanError> for Trouble {
    fn from(error: PlanError) -> Self {
        let exit = if error.is_locked() {
            Exit::Locked
        } else {
            Exit::Failed
        };
        Self::new(exit, error.code(), error.to_string(), error.mend())
    }
}

impl From<RunError> for Trouble {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Faults(found) => found.into(),
            RunError::Runtime(_) => Self::new(
                Exit::Failed,
                "run::runtime",
                error.to_string(),
                "the machine is short of processes or files: close some programs",
            ),
        }
    }
}
