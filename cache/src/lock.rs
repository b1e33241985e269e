//! Locks between processes: one file each, locked with `flock`.
//!
//! Promises: a lock is free the moment its holder dies, however it dies. The file is removed by
//! its holder while still locked; whoever waited on the removed file notices and starts over.

use std::fs::{self, File, TryLockError};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Host name.
    pub host: String,
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
            let holder = format!("{} {}\n", std::process::id(), host());
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
        let (pid, host) = text.trim_end().split_once(' ')?;
        Some(Holder {
            pid: pid.parse().ok()?,
            host: host.to_owned(),
        })
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
        let held = KeyLock::acquire(&path, false, &Disk::default())
            .unwrap()
            .unwrap();
        assert!(
            KeyLock::acquire(&path, false, &Disk::default())
                .unwrap()
                .is_none()
        );
        assert_eq!(KeyLock::holder(&path).unwrap().pid, std::process::id());
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
