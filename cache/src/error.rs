//! What can go wrong in a store: a place, a cause, a mend, a stable code.

use std::io;
use std::path::{Path, PathBuf};

use crate::Digest;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        /// What was tried: `read`, `write`.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A symbolic link points out of the folder that is to be stored.
    #[error("`{}` is a symbolic link to `{}`, outside of `{}`", path.display(), target.display(), root.display())]
    LinkLeaves {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
        /// The folder.
        root: PathBuf,
    },
    /// A symbolic link leads back to a folder above itself.
    #[error("`{}` is a symbolic link to a folder that holds it", path.display())]
    LinkLoops {
        /// The link.
        path: PathBuf,
    },
    /// A symbolic link leads nowhere.
    #[error("`{}` is a symbolic link to nothing", path.display())]
    LinkBroken {
        /// The link.
        path: PathBuf,
    },
    /// A pipe, a socket or a device.
    #[error("`{}` is neither a file nor a folder", path.display())]
    Special {
        /// What it is called.
        path: PathBuf,
    },
    /// A file name that is not UTF-8.
    #[error("the name of `{}` is not UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A file changed each time it was read.
    #[error("`{}` keeps changing while it is read", path.display())]
    Moving {
        /// The file.
        path: PathBuf,
    },
    /// A blob is not in the store, or its bytes are no longer those of its name.
    #[error("blob `{}` is {}", digest.short(), if *.damaged { "damaged" } else { "missing" })]
    Lacking {
        /// Its digest.
        digest: Digest,
        /// Whether something else stood under its name (now in quarantine).
        damaged: bool,
    },
    /// A lease was lost: this process stood still for too long, or another took it over.
    #[error("the lease `{}` was lost: this process stood still for too long", path.display())]
    LeaseLost {
        /// The lease.
        path: PathBuf,
    },
    /// Another process uses the store.
    #[error("another process uses the store `{}`", path.display())]
    InUse {
        /// The store.
        path: PathBuf,
    },
}

impl Error {
    /// Wraps an I/O error with what was done and where.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }

    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "cache::disk-full",
                io::ErrorKind::NotFound => "cache::not-found",
                io::ErrorKind::PermissionDenied => "cache::permission",
                _ => "cache::io",
            },
            Self::LinkLeaves { .. } => "cache::link-leaves",
            Self::LinkLoops { .. } => "cache::link-loops",
            Self::LinkBroken { .. } => "cache::link-broken",
            Self::Special { .. } => "cache::special-file",
            Self::NotText { .. } => "cache::name",
            Self::Moving { .. } => "cache::moving",
            Self::Lacking { .. } => "cache::lacking",
            Self::InUse { .. } => "cache::in-use",
            Self::LeaseLost { .. } => "cache::lease-lost",
        }
    }

    /// How to mend it.
    pub fn mend(&self) -> &'static str {
        match self.code() {
            "cache::disk-full" => {
                "free some space (`tunesmith cache gc` drops old results) and run again; \
                 what is stored is whole"
            }
            "cache::not-found" => "check that the path exists",
            "cache::permission" => "check who may read and write that path",
            "cache::link-leaves" => "put a copy of the file there instead of the link",
            "cache::link-loops" | "cache::link-broken" => "remove the link",
            "cache::special-file" => "only files and folders can be stored: remove it",
            "cache::name" => "rename the file",
            "cache::moving" => "wait until whatever writes it is done, then run again",
            "cache::lacking" => "run again: the stage that made it will make it anew",
            "cache::lease-lost" => {
                "run again: if another process has made the result meanwhile, it counts"
            }
            "cache::in-use" => "wait until the other `tunesmith` is done",
            _ => "check the disk and run again",
        }
    }
}
