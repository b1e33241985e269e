//! This process's own folder below `tmp/`, and the sweeping of dead processes' folders.
//!
//! Promises: everything unfinished lies there; it goes when its process ends, or when the next
//! one opens the store. A folder belongs to whoever holds the lock beside it, so a live one is
//! never swept, not even from another container on the same host.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::Disk;
use crate::error::Error;
use crate::lease::AWAY;
use crate::lock::{KeyLock, Locks, machine};
use crate::stat;

#[derive(Debug)]
pub(crate) struct Session {
    folder: PathBuf,
    next: AtomicU64,
    disk: Disk,
    /// Freed after the folder is gone: fields drop after `Drop::drop`.
    alive: KeyLock,
}

/// An empty folder on the store's file system; removed with all it holds when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    session: Arc<Session>,
}

impl Session {
    pub(crate) fn open(tmp: &Path, disk: &Disk, locks: &Locks) -> Result<Self, Error> {
        loop {
            // With the host: several machines may have a process of this number.
            let host = match locks {
                Locks::Files(_) => String::new(),
                Locks::Leases(_) => format!("{}-", machine()),
            };
            let name = format!("{host}{}-{:x}", std::process::id(), stat::now());
            let alive = tmp.join(format!("{name}.alive"));
            let Some(lock) = locks.acquire(&alive, false)? else {
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
                alive: lock,
            });
        }
    }

    /// Whether nobody can have swept it: its lease was not lost to a freeze, as far as is known here.
    pub(crate) fn stands(&self) -> bool {
        self.alive.is_fresh()
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

/// Removes what dead processes left below `tmp`. The lock file is made before the folder and removed
/// after it: where there is none, the owner is gone.
pub(crate) fn sweep(tmp: &Path, disk: &Disk, locks: &Locks) -> Result<(), Error> {
    for entry in fs::read_dir(tmp).map_err(Error::io("list", tmp))?.flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().contains(AWAY) {
            // Being taken over, or left by somebody who was: the collector's to drop.
            continue;
        }
        let folder = path.with_extension("");
        let alive = path.with_extension("alive");
        if !locks.is_held(&alive) {
            let _ = disk.remove_all(&folder);
            let _ = disk.remove_file(&alive);
        }
    }
    Ok(())
}

/// [`sweep`] where nobody else has the store open: what is not this process's own is a dead one's, also of
/// another machine, of which a single look says nothing.
pub(crate) fn sweep_alone(tmp: &Path, disk: &Disk, locks: &Locks) -> Result<(), Error> {
    for entry in fs::read_dir(tmp).map_err(Error::io("list", tmp))?.flatten() {
        let path = entry.path();
        let alive = path.with_extension("alive");
        if !locks.owns(&alive) {
            let _ = disk.remove_all(&path);
            let _ = disk.remove_file(&path);
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
        let locks = Locks::Files(Disk::default());
        let session = Arc::new(Session::open(dir.path(), &Disk::default(), &locks).unwrap());
        let scratch = session.scratch().unwrap();
        fs::write(scratch.path().join("x"), "x").unwrap();
        // What a killed process leaves: a folder, perhaps with a lock file that nobody holds.
        fs::create_dir_all(dir.path().join("999-1/0")).unwrap();
        fs::create_dir_all(dir.path().join("999-2/0")).unwrap();
        fs::write(dir.path().join("999-2.alive"), "999 host").unwrap();

        sweep(dir.path(), &Disk::default(), &locks).unwrap();
        assert!(scratch.path().join("x").exists());
        assert!(!dir.path().join("999-1").exists());
        assert!(!dir.path().join("999-2").exists());
        assert!(!dir.path().join("999-2.alive").exists());

        drop(scratch);
        drop(session);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
