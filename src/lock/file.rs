//! The file: read, and brought up to date in one step, even with two runs at once.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{FILE_NAME, Lock};
use crate::config::{Fault, Faults};

/// Why the lock file could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It does not parse (any more).
    #[error(transparent)]
    Faults(#[from] Faults),
    /// The file system refused.
    #[error("cannot write `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Lock {
    /// Reads a lock file; one that is not there is empty.
    pub fn load(file: &Path) -> Result<Self, Faults> {
        match fs::read_to_string(file) {
            Ok(text) => Self::parse(file, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => {
                let fault = Fault::nowhere("lock::unreadable", format!("cannot be read: {error}"))
                    .mend("check the file, or delete it and run again");
                Err(Faults::new(file, "", vec![fault]))
            }
        }
    }

    /// Replaces the file by these entries, in one step.
    pub fn save(&self, file: &Path) -> Result<(), LockError> {
        let io = |source| LockError::Io {
            path: file.to_owned(),
            source,
        };
        let guard = File::open(folder_of(file)).map_err(io)?;
        guard.lock().map_err(io)?;
        self.write(file).map_err(io)
    }

    /// Brings the file up to date with what a run settled; `false` when it was already.
    pub fn update(file: &Path, settled: &Self) -> Result<bool, LockError> {
        let io = |source| LockError::Io {
            path: file.to_owned(),
            source,
        };
        // Two runs may end together: the folder's lock makes reading and writing one step.
        let guard = File::open(folder_of(file)).map_err(io)?;
        guard.lock().map_err(io)?;
        let mut lock = Self::load(file)?;
        if lock.contains(settled) {
            return Ok(false);
        }
        lock.merge(settled);
        lock.write(file).map_err(io)?;
        Ok(true)
    }

    /// Writes the file; whoever calls holds the folder's lock.
    fn write(&self, file: &Path) -> io::Result<()> {
        let aside = folder_of(file).join(format!(".{FILE_NAME}.aside"));
        let write = || {
            let mut written = File::create(&aside)?;
            written.write_all(self.text().as_bytes())?;
            written.sync_all()?;
            fs::rename(&aside, file)
        };
        write().inspect_err(|_| {
            let _ = fs::remove_file(&aside);
        })
    }
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
