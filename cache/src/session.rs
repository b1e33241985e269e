//! This process's own folder below `tmp/`, and the sweeping of dead processes' folders.
//!
//! Promises: everything unfinished lies there; it goes when its process ends, or when the next
//! one opens the store. A folder belongs to whoever holds the lock beside it, so a live one is
//! never swept, not even from another container on the same host.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;
use crate::lock::KeyLock;
use crate::stat;

#[derive(Debug)]
pub(crate) struct Session {
    folder: PathBuf,
    next: AtomicU64,
    /// Freed after the folder is gone: fields drop after `Drop::drop`.
    _alive: KeyLock,
}

/// An empty folder on the store's file system; removed with all it holds when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _session: Arc<Session>,
}

impl Session {
    pub(crate) fn open(tmp: &Path) -> Result<Self, Error> {
        loop {
            let name = format!("{}-{:x}", std::process::id(), stat::now());
            let alive = tmp.join(format!("{name}.alive"));
            let Some(lock) = KeyLock::acquire(&alive, false)? else {
                continue;
            };
            let folder = tmp.join(name);
            match fs::create_dir(&folder) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(Error::io("create", &folder)(error)),
            }
            return Ok(Self {
                folder,
                next: AtomicU64::new(0),
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
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
        Ok(Scratch {
            path,
            _session: Arc::clone(self),
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = remove_all(&self.folder);
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
        let _ = remove_all(&self.path);
    }
}

/// Removes what dead processes left below `tmp`.
pub(crate) fn sweep(tmp: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(tmp).map_err(Error::io("list", tmp))?.flatten() {
        let path = entry.path();
        let folder = path.with_extension("");
        let alive = path.with_extension("alive");
        let dead = match OpenOptions::new().read(true).write(true).open(&alive) {
            Ok(file) => File::try_lock(&file).is_ok(),
            // The lock file is made before the folder and removed after it: the owner is gone.
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if dead {
            let _ = remove_all(&folder);
            let _ = fs::remove_file(&alive);
        }
    }
    Ok(())
}

/// Removes a folder even where a stage left folders that nobody may write.
fn remove_all(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            open_up(folder);
            fs::remove_dir_all(folder)
        }
        other => other,
    }
}

fn open_up(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeping_takes_the_dead_and_leaves_the_living() {
        let dir = tempfile::tempdir().unwrap();
        let session = Arc::new(Session::open(dir.path()).unwrap());
        let scratch = session.scratch().unwrap();
        fs::write(scratch.path().join("x"), "x").unwrap();
        // What a killed process leaves: a folder, perhaps with a lock file that nobody holds.
        fs::create_dir_all(dir.path().join("999-1/0")).unwrap();
        fs::create_dir_all(dir.path().join("999-2/0")).unwrap();
        fs::write(dir.path().join("999-2.alive"), "999 host").unwrap();

        sweep(dir.path()).unwrap();
        assert!(scratch.path().join("x").exists());
        assert!(!dir.path().join("999-1").exists());
        assert!(!dir.path().join("999-2").exists());
        assert!(!dir.path().join("999-2.alive").exists());

        drop(scratch);
        drop(session);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
