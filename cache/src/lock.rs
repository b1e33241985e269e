//! Locks between processes: one file each, locked with `flock`.
//!
//! Promises: a lock is free the moment its holder dies, however it dies. The file is removed by
//! its holder while still locked; whoever waited on the removed file notices and starts over.

use std::fs::{self, File, TryLockError};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::error::Error;

/// A held lock; dropping it frees it.
#[derive(Debug)]
pub struct KeyLock {
    /// Keeps the lock: `flock` belongs to the open file.
    _file: File,
    path: PathBuf,
    disk: Disk,
}

/// The longest command line that a lock file tells, in characters.
const LONGEST_COMMAND: usize = 200;

/// Who holds a lock: what the lock file says, one JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Host name.
    pub host: String,
    /// When it took the lock, seconds since 1970.
    pub since: u64,
    /// Its command line.
    pub command: String,
}

impl Holder {
    /// This process, from now on.
    fn this() -> Self {
        static COMMAND: OnceLock<String> = OnceLock::new();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            pid: std::process::id(),
            host: host(),
            since: now.map_or(0, |since| since.as_secs()),
            command: COMMAND.get_or_init(command).clone(),
        }
    }
}

/// `tunesmith run train`: the program without its folder.
fn command() -> String {
    let words = std::env::args_os().enumerate().map(|(at, word)| {
        let word = word.to_string_lossy().into_owned();
        match at {
            0 => word.rsplit('/').next().unwrap_or_default().to_owned(),
            _ => word,
        }
    });
    let line = words.collect::<Vec<_>>().join(" ");
    line.chars().take(LONGEST_COMMAND).collect()
}

impl KeyLock {
    /// Takes the lock, waiting for it if `wait`; `None` when another holds it.
    pub(crate) fn acquire(path: &Path, wait: bool, disk: &Disk) -> Result<Option<Self>, Error> {
        loop {
            let file = disk.open(path).map_err(Error::io("lock", path))?;
            if wait {
                file.lock().map_err(Error::io("lock", path))?;
            } else {
                match file.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => return Ok(None),
                    Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
                }
            }
            if !stands_at(&file, path) {
                continue;
            }
            let holder = serde_json::to_string(&Holder::this()).expect("a holder is plain data");
            // Only people read it: a full disk is no reason to refuse the lock.
            let _ = disk.rewrite(&file, path, holder.as_bytes());
            return Ok(Some(Self {
                _file: file,
                path: path.to_owned(),
                disk: disk.clone(),
            }));
        }
    }

    /// Who last took the lock at `path`.
    pub(crate) fn holder(path: &Path) -> Option<Holder> {
        let mut text = String::new();
        File::open(path).ok()?.read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        let _ = self.disk.remove_file(&self.path);
    }
}

fn stands_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

fn host() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_second_taker_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let disk = Disk::default();
        let held = KeyLock::acquire(&path, false, &disk).unwrap().unwrap();
        assert!(KeyLock::acquire(&path, false, &disk).unwrap().is_none());
        let holder = KeyLock::holder(&path).unwrap();
        assert_eq!(
            holder,
            Holder {
                since: holder.since,
                ..Holder::this()
            }
        );
        assert_eq!(holder.pid, std::process::id());
        assert!(holder.since > 1_700_000_000 && !holder.command.is_empty());
        drop(held);
        assert!(!path.exists());
        assert!(
            KeyLock::acquire(&path, false, &Disk::default())
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn only_one_at_a_time_is_inside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let held = KeyLock::acquire(&path, true, &Disk::default()).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(held);
                    }
                });
            }
        });
    }
}
