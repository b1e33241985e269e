//! This process's own folder below `tmp/`, and the sweeping of dead processes' folders.
//!
//! Promises: everything unfinished lies there; it goes when its process ends, or when the next
//! one opens the store. A folder belongs to whoever holds the lock beside it, so a live one is
//! never swept, not even from another container on the same host.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::Disk;
use crate::error::Error;
use crate::lock::KeyLock;
use crate::stat;

#[derive(Debug)]
pub(crate) struct Session {
    folder: PathBuf,
    next: AtomicU64,
    disk: Disk,
    /// Freed after the folder is gone: fields drop after `Drop::drop`.
    _alive: KeyLock,
}

/// An empty folder on the store's file system; removed with all it holds when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    session: Arc<Session>,
}

impl Session {
    pub(crate) fn open(tmp: &Path, disk: &Disk) -> Result<Self, Error> {
        loop {
            let name = format!("{}-{:x}", std::process::id(), stat::now());
            let alive = tmp.join(format!("{name}.alive"));
            let Some(lock) = KeyLock::acquire(&alive, false, disk)? else {
                continue;
            };
            let folder = tmp.join(name);
            match disk.make_folder(&folder) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(Error::io("create", &folder)(error)),
            }
            return Ok(Self {
                folder,
                next: AtomicU64::new(0),
                disk: disk.clone(),
                _alive: lock,
            });
        }
    }

    /// A path that nothing stands at.
    pub(crate) fn fresh_path(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.folder.join(number.to_string())
    }

    pub(crate) fn scratch(self: &Arc<Self>) -> Result<Scratch, Error> {
        let path = self.fresh_path();
        let made = self.disk.make_folder(&path);
        made.map_err(Error::io("create", &path))?;
        Ok(Scratch {
            path,
            session: Arc::clone(self),
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.disk.remove_all(&self.folder);
    }
}

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.session.disk.remove_all(&self.path);
    }
}

/// Removes what dead processes left below `tmp`.
pub(crate) fn sweep(tmp: &Path, disk: &Disk) -> Result<(), Error> {
    for entry in fs::read_dir(tmp).map_err(Error::io("list", tmp))?.flatten() {
        let path = entry.path();
        let folder = path.with_extension("");
        let alive = path.with_extension("alive");
        let dead = match Disk::reopen(&alive) {
            Ok(file) => File::try_lock(&file).is_ok(),
            // The lock file is made before the folder and removed after it: the owner is gone.
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if dead {
            let _ = disk.remove_all(&folder);
            let _ = disk.remove_file(&alive);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeping_takes_the_dead_and_leaves_the_living() {
        let dir = tempfile::tempdir().unwrap();
        let session = Arc::new(Session::open(dir.path(), &Disk::default()).unwrap());
        let scratch = session.scratch().unwrap();
        fs::write(scratch.path().join("x"), "x").unwrap();
        // What a killed process leaves: a folder, perhaps with a lock file that nobody holds.
        fs::create_dir_all(dir.path().join("999-1/0")).unwrap();
        fs::create_dir_all(dir.path().join("999-2/0")).unwrap();
        fs::write(dir.path().join("999-2.alive"), "999 host").unwrap();

        sweep(dir.path(), &Disk::default()).unwrap();
        assert!(scratch.path().join("x").exists());
        assert!(!dir.path().join("999-1").exists());
        assert!(!dir.path().join("999-2").exists());
        assert!(!dir.path().join("999-2.alive").exists());

        drop(scratch);
        drop(session);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
