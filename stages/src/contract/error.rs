//! What a stage says when something is wrong: a code, a cause, a mend.
//!
//! A stage names the parameter or input (`with.lr`, `inputs.rows`); the configuration
//! layer turns that into a line and a column.

use serde::{Deserialize, Serialize};

/// A fault found before anything runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Stable code, `export::rank-too-high`.
    pub code: String,
    /// Field path inside the stage, `with.r` or `inputs.rows`; empty means the stage itself.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub mend: String,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct StageError {
    /// Stable code, `fetch::checksum`.
    pub code: String,
    /// Field path inside the stage, or empty.
    pub field: String,
    /// What happened, with the place (file, line, url).
    pub message: String,
    /// How to mend it.
    pub mend: String,
    /// Whether trying again may help (a time-out, a busy server).
    pub retryable: bool,
}

impl StageError {
    /// An error with a code, a cause and a mend.
    pub fn new(code: &str, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            field: String::new(),
            message: message.into(),
            mend: mend.into(),
            retryable: false,
        }
    }

    /// Names the parameter or input at fault.
    pub fn at(mut self, field: &str) -> Self {
        field.clone_into(&mut self.field);
        self
    }

    /// Marks an error that may pass by itself.
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// An I/O error with the path it met.
    pub fn io(path: &std::path::Path, error: &std::io::Error) -> Self {
        let mend = match error.kind() {
            std::io::ErrorKind::StorageFull => "free some disk space and run again",
            std::io::ErrorKind::PermissionDenied => "check the permissions of that path",
            std::io::ErrorKind::NotFound => "check that the file exists",
            _ => "check the disk and run again",
        };
        Self::new("io::failed", format!("`{}`: {error}", path.display()), mend)
    }
}

impl Fault {
    /// A fault at a field of the stage.
    pub fn new(
        code: &str,
        field: &str,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            code: code.to_owned(),
            field: field.to_owned(),
            message: message.into(),
            mend: mend.into(),
        }
    }
}
