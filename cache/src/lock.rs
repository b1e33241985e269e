//! Locks between processes: one file each, by `flock` on a local disk, by leases ([`crate::lease`]) in a
//! store that several machines see.
//!
//! Promises: a lock is free the moment its holder dies, however it dies (a lease: when it was seen to stand
//! still for long enough). Under `flock` the file is removed by its holder while still locked; whoever
//! waited on the removed file notices and starts over.

use std::fs::{self, File, TryLockError};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::error::Error;
use crate::lease::{Lease, Leases};

/// How a store locks.
#[derive(Clone, Debug)]
pub(crate) enum Locks {
    /// By the kernel of this machine.
    Files(Disk),
    /// By beats.
    Leases(Leases),
}

/// A held lock; dropping it frees it.
#[derive(Debug)]
pub struct KeyLock(Held);

#[derive(Debug)]
enum Held {
    File(#[expect(dead_code, reason = "it is dropped, which frees it")] FileLock),
    Lease(Lease),
}

/// A lock of the kernel's.
#[derive(Debug)]
struct FileLock {
    /// Keeps the lock: `flock` belongs to the open file.
    _file: File,
    path: PathBuf,
    disk: Disk,
}

impl Locks {
    /// Takes the lock at `path`, waiting for it if `wait`; `None` when another holds it.
    pub(crate) fn acquire(&self, path: &Path, wait: bool) -> Result<Option<KeyLock>, Error> {
        match self {
            Self::Files(disk) => {
                let held = FileLock::acquire(path, wait, disk)?;
                Ok(held.map(|held| KeyLock(Held::File(held))))
            }
            Self::Leases(leases) => loop {
                if let Some(held) = leases.try_take(path)? {
                    return Ok(Some(KeyLock(Held::Lease(held))));
                }
                if !wait {
                    return Ok(None);
                }
                std::thread::sleep(leases.pause());
            },
        }
    }

    /// Whether a living process holds the lock at `path`.
    pub(crate) fn is_held(&self, path: &Path) -> bool {
        match self {
            Self::Files(_) => match File::open(path) {
                Ok(file) => file.try_lock_shared().is_err(),
                Err(error) => error.kind() != std::io::ErrorKind::NotFound,
            },
            Self::Leases(leases) => leases.is_held(path),
        }
    }

    /// [`Locks::is_held`] of a lock that is there, seen to the end: a lease is watched until it beats or
    /// has stood still for long enough.
    pub(crate) fn lives(&self, path: &Path) -> Result<bool, Error> {
        match self {
            Self::Files(_) => Ok(self.is_held(path)),
            Self::Leases(leases) => leases.lives(path),
        }
    }

    /// Whether the lease at `path` is this store's own.
    pub(crate) fn owns(&self, path: &Path) -> bool {
        match self {
            Self::Files(_) => false,
            Self::Leases(leases) => leases.owns(path),
        }
    }

    /// Waits a moment before the next try.
    pub(crate) fn pause(&self) {
        if let Self::Leases(leases) = self {
            std::thread::sleep(leases.pause());
        }
    }
}

impl KeyLock {
    /// Whether it is still held: asked before anything is published under it. A lock of the kernel's
    /// always is; a lease may be lost to a freeze.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    pub fn check(&self) -> Result<(), Error> {
        match &self.0 {
            Held::File(_) => Ok(()),
            Held::Lease(lease) => lease.check(),
        }
    }

    /// After a freeze: holds it again, if nobody took it over meanwhile.
    pub(crate) fn renew(&self) -> Result<(), Error> {
        match &self.0 {
            Held::File(_) => Ok(()),
            Held::Lease(lease) => lease.renew(),
        }
    }

    /// Whether its beats came in time; looks at nothing but the clock.
    pub(crate) fn is_fresh(&self) -> bool {
        match &self.0 {
            Held::File(_) => true,
            Held::Lease(lease) => lease.is_fresh(),
        }
    }

    /// Who last took the lock at `path`.
    pub(crate) fn holder(path: &Path) -> Option<Holder> {
        let mut text = String::new();
        File::open(path).ok()?.read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }
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
    pub(crate) fn this() -> Self {
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

impl FileLock {
    fn acquire(path: &Path, wait: bool, disk: &Disk) -> Result<Option<Self>, Error> {
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
}

impl Drop for FileLock {
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

pub(crate) fn host() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// This machine's name as a part of file names: without what means something there.
pub(crate) fn machine() -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    host().chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_second_taker_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let locks = Locks::Files(Disk::default());
        let held = locks.acquire(&path, false).unwrap().unwrap();
        assert!(locks.acquire(&path, false).unwrap().is_none() && locks.is_held(&path));
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
        assert!(!path.exists() && !locks.is_held(&path));
        assert!(locks.acquire(&path, false).unwrap().is_some());
    }

    #[test]
    fn only_one_at_a_time_is_inside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let inside = AtomicUsize::new(0);
        let locks = Locks::Files(Disk::default());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let held = locks.acquire(&path, true).unwrap();
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
