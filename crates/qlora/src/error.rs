//! What can go wrong in the engine: a place, a cause and, where there is one, a mend.
//!
//! Codes are stable (`qlora::truncated`); messages are lowercase and in the present tense.
//! This file must not know how errors are drawn.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the engine. [`Error::code`] is stable, [`Error::mend`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is there but does not say what it should.
    #[error("`{}`: {what}", path.display())]
    Format {
        path: PathBuf,
        what: String,
        mend: String,
    },
    /// A file ends before the bytes that its own header announces.
    #[error("`{}` is cut short: {actual} bytes where its header announces {expected}", path.display())]
    Truncated {
        path: PathBuf,
        expected: u64,
        actual: u64,
    },
    /// A model file has no such tensor.
    #[error("`{}` has no tensor `{name}`", path.display())]
    MissingTensor { path: PathBuf, name: String },
    /// A setting of a model or an adapter that changes the maths and is not known here.
    #[error("`{key}: {value}` is not supported")]
    Unsupported {
        key: String,
        value: String,
        mend: String,
    },
    /// Two things that must fit do not.
    #[error("{what}: expected {expected}, found {actual}")]
    Shape {
        what: String,
        expected: String,
        actual: String,
    },
    /// A loss, a gradient or a weight is NaN or infinite.
    #[error("non-finite value at step {step} (rows: {})", rows.join(", "))]
    NonFinite { step: u64, rows: Vec<String> },
    /// The operating system refused.
    #[error("`{}`: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    /// A setting of the caller that cannot hold.
    #[error("{what}")]
    Config { what: String, mend: String },
    /// A conversation that cannot be encoded.
    #[error("{what}")]
    Chat { what: String, mend: String },
    /// A GPU, its driver or its libraries refuse.
    #[error("{what}")]
    Device { what: String, mend: String },
    /// A card, or the host for what is pinned, does not give the memory that was counted on.
    #[error("{what}: there is not enough memory")]
    OutOfMemory { what: String, mend: String },
    /// Another process of a data-parallel run is gone, has stopped or does not fit.
    #[error("{what}")]
    Ranks { what: String, mend: String },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// A stable name for the kind of failure.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Format { .. } => "qlora::format",
            Self::Truncated { .. } => "qlora::truncated",
            Self::MissingTensor { .. } => "qlora::missing-tensor",
            Self::Unsupported { .. } => "qlora::unsupported",
            Self::Shape { .. } => "qlora::shape",
            Self::NonFinite { .. } => "qlora::non-finite",
            Self::Io { .. } => "qlora::io",
            Self::Config { .. } => "qlora::config",
            Self::Chat { .. } => "qlora::chat",
            Self::Device { .. } => "qlora::device",
            Self::OutOfMemory { .. } => "qlora::out-of-memory",
            Self::Ranks { .. } => "qlora::ranks",
            Self::Cancelled => "qlora::cancelled",
        }
    }

    /// What the reader can do about it.
    pub fn mend(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Format { mend, .. }
            | Self::Unsupported { mend, .. }
            | Self::Config { mend, .. }
            | Self::Chat { mend, .. }
            | Self::Device { mend, .. }
            | Self::OutOfMemory { mend, .. }
            | Self::Ranks { mend, .. } => (!mend.is_empty()).then_some(Cow::Borrowed(mend)),
            Self::Truncated { .. } => Some(Cow::Borrowed(
                "delete the file and fetch it again: the download was interrupted",
            )),
            Self::MissingTensor { .. } => Some(Cow::Borrowed(
                "check that every shard of the model is there and that its config names the right architecture",
            )),
            Self::NonFinite { .. } => Some(Cow::Borrowed(
                "lower the learning rate, or look at the named rows",
            )),
            Self::Shape { .. } | Self::Io { .. } | Self::Cancelled => None,
        }
    }

    /// A [`Error::Format`] with all three parts.
    pub fn format(
        path: impl AsRef<Path>,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::Format {
            path: path.as_ref().to_path_buf(),
            what: what.into(),
            mend: mend.into(),
        }
    }

    /// A [`Error::Unsupported`] with all three parts.
    pub fn unsupported(
        key: impl Into<String>,
        value: impl ToString,
        mend: impl Into<String>,
    ) -> Self {
        Self::Unsupported {
            key: key.into(),
            value: value.to_string(),
            mend: mend.into(),
        }
    }

    /// A [`Error::Device`] with both parts.
    pub fn device(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Device {
            what: what.into(),
            mend: mend.into(),
        }
    }

    /// A [`Error::Ranks`] with both parts.
    pub fn ranks(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Ranks {
            what: what.into(),
            mend: mend.into(),
        }
    }

    /// A [`Error::Shape`] with all three parts.
    pub fn shape(what: impl Into<String>, expected: impl ToString, actual: impl ToString) -> Self {
        Self::Shape {
            what: what.into(),
            expected: expected.to_string(),
            actual: actual.to_string(),
        }
    }

    /// A function that puts a path to an [`std::io::Error`]: `fs::read(p).map_err(Error::io(p))`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }
}
