//! Who has the store open: everybody who uses it, or one that collects, alone.
//!
//! Under `flock` it is a shared lock of the file `in-use`, which a collector wants alone. Under leases
//! everybody has a lease of a name of its own in `users/`, and a collector one called `collecting`. Each
//! makes its own first and looks for the others after: of two that come together at least one sees the
//! other. A collector gives way; a user waits until the collector is done. Making a name in a folder also
//! makes a network client look at that folder anew, so nobody looks at an old listing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::disk::Disk;
use crate::error::Error;
use crate::lock::{KeyLock, Locks, machine};
use crate::stat;

/// One open store among others.
#[derive(Debug)]
pub(crate) enum Presence {
    /// A shared `flock`.
    File(File),
    /// A lease among others.
    Lease(Leased),
}

/// A lease in `users/`.
#[derive(Debug)]
pub(crate) struct Leased {
    folder: PathBuf,
    own: Mutex<Own>,
    locks: Locks,
}

/// Under which name, and the lease.
#[derive(Debug)]
struct Own {
    path: PathBuf,
    lease: KeyLock,
}

/// The lease of whoever collects.
const COLLECTING: &str = "collecting";

impl Presence {
    /// Enters the store at `root`; waits while somebody collects.
    pub(crate) fn enter(root: &Path, disk: &Disk, locks: &Locks) -> Result<Self, Error> {
        if let Locks::Files(_) = locks {
            let path = root.join("in-use");
            let file = disk.open(&path).map_err(Error::io("open", &path))?;
            file.lock_shared().map_err(Error::io("lock", &path))?;
            return Ok(Self::File(file));
        }
        let folder = root.join("users");
        let made = disk.make_folders(&folder);
        made.map_err(Error::io("create", &folder))?;
        Ok(Self::Lease(Leased {
            own: Mutex::new(enter(&folder, locks)?),
            folder,
            locks: locks.clone(),
        }))
    }

    /// Does something while nobody else has the store open.
    ///
    /// # Errors
    /// [`Error::InUse`].
    pub(crate) fn alone<T>(
        &self,
        root: &Path,
        act: impl FnOnce(&Alone<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let in_use = || Error::InUse {
            path: root.to_owned(),
        };
        match self {
            Self::File(file) => {
                let alone = file.try_lock().map_err(|_| in_use());
                let done = alone.and_then(|()| act(&Alone(None)));
                // A failed try may have lost the shared lock: take it again either way.
                let lock = file.lock_shared();
                lock.map_err(Error::io("lock", root))?;
                done
            }
            Self::Lease(leased) => {
                let path = leased.folder.join(COLLECTING);
                let alone = leased.locks.acquire(&path, false)?.ok_or_else(in_use)?;
                if leased.others()? {
                    return Err(in_use());
                }
                act(&Alone(Some(&alone)))
            }
        }
    }

    /// Whether it can still be relied on that nobody collects; of a lease that was lost to a freeze it
    /// enters anew, and says so: what was not named by a record yet may be gone.
    pub(crate) fn renew(&self) -> Result<bool, Error> {
        let Self::Lease(leased) = self else {
            return Ok(true);
        };
        let mut own = leased.own();
        if own.lease.check().is_ok() {
            return Ok(true);
        }
        *own = enter(&leased.folder, &leased.locks)?;
        Ok(false)
    }
}

/// Takes a lease under a new name, and waits until nobody collects.
fn enter(folder: &Path, locks: &Locks) -> Result<Own, Error> {
    let collecting = folder.join(COLLECTING);
    loop {
        let name = format!("{}-{}-{:x}", machine(), std::process::id(), stat::now());
        let path = folder.join(name);
        let lease = locks.acquire(&path, true)?.expect("waiting ends with it");
        if !locks.is_held(&collecting) {
            return Ok(Own { path, lease });
        }
        drop(lease);
        locks.pause();
    }
}

impl Leased {
    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody else has the store open. One who is not known to be dead is watched until it beats,
    /// or has stood still for long enough.
    fn others(&self) -> Result<bool, Error> {
        let own = self.own().path.clone();
        let listing = fs::read_dir(&self.folder).map_err(Error::io("list", &self.folder))?;
        for entry in listing.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path == own || name == COLLECTING {
                continue;
            }
            if self.locks.lives(&path)? {
                return Ok(true);
            }
            // A dead one's, and what it moved aside.
            if let Some(dead) = self.locks.acquire(&path, false)? {
                drop(dead);
            }
        }
        Ok(false)
    }
}

/// Proof that nobody else has the store open.
pub(crate) struct Alone<'a>(Option<&'a KeyLock>);

impl Alone<'_> {
    /// Whether that still holds: asked before anything is dropped.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.0.map_or(Ok(()), KeyLock::check)
    }
}
