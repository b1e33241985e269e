//! Leases: locks for a store that several machines see, where `flock` cannot be relied on.
//!
//! A lease is a file made where nothing may stand (`O_CREAT | O_EXCL`), that says who holds it and counts
//! beats. Its holder writes the next beat every few seconds, from a thread. Who wants it watches: bytes
//! that stand still for [`Pace::patience`] of the watcher's own time are a dead holder's. No clock of one
//! machine is ever compared with another's. On the machine of the holder its process is looked for, too,
//! so a killed one is known at once.
//!
//! Promises: a holder that stood still (frozen, suspended, cut off) for longer than half the patience, or
//! whose file is not its own any more, is told so by [`Lease::check`], which it asks before it publishes
//! anything. What is left is the moment between that look and the publishing itself; results are created
//! under names of their own content, so two holders in that moment harm nothing.

mod beat;
#[cfg(test)]
mod model_tests;
mod owner;
mod takeover;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::error::Error;
use beat::{Beating, now};
use owner::{Content, Owner};
pub(crate) use takeover::AWAY;

/// How often a holder beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From one beat to the next.
    pub beat: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(5),
        }
    }
}

impl Pace {
    /// How long bytes must stand still before their holder counts as dead: eight beats, so that a slow
    /// server costs a few of them and not the lease. Network file systems may show a file as it was
    /// some seconds ago (`acregmax`, 60 s, bounds what is not opened anew; leases are).
    pub fn patience(self) -> Duration {
        self.beat * 8
    }

    /// How long a holder that could not beat still counts on its lease.
    fn trust(self) -> Duration {
        self.patience() / 2
    }
}

/// All leases of one open store: those it holds and those it watches.
#[derive(Clone, Debug)]
pub(crate) struct Leases(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    pace: Pace,
    disk: Disk,
    owner: Owner,
    beating: Beating,
    watched: Mutex<BTreeMap<PathBuf, Seen>>,
    next: AtomicU64,
}

/// Bytes that were seen under a name, and since when they stand still.
#[derive(Debug)]
struct Seen {
    bytes: Vec<u8>,
    since: Instant,
}

/// A held lease; dropping it frees it.
#[derive(Debug)]
pub(crate) struct Lease {
    path: PathBuf,
    id: String,
    leases: Leases,
}

impl Leases {
    pub(crate) fn new(pace: Pace, disk: Disk) -> Self {
        Self(Arc::new(Inside {
            pace,
            owner: Owner::this(),
            beating: Beating::new(pace),
            watched: Mutex::default(),
            next: AtomicU64::new(0),
            disk,
        }))
    }

    /// Takes the lease at `path` if nobody holds it, as far as is known by now: whoever asks again later
    /// has watched for longer.
    pub(crate) fn try_take(&self, path: &Path) -> Result<Option<Lease>, Error> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", self.0.owner.id);
        let content = Content::first(&id, &self.0.owner);
        let aside = takeover::aside(path, &self.0.owner.id, number);
        let expired = |found: &[u8]| self.is_expired(path, found);
        let taken = takeover::take(&*self.0, path, &content.bytes(), &aside, &expired);
        if !taken.map_err(Error::io("lock", path))? {
            return Ok(None);
        }
        self.watched().remove(path);
        let file = Disk::reopen(path).map_err(Error::io("lock", path))?;
        self.0.beating.add(path, file, content, &self.0.disk);
        Ok(Some(Lease {
            path: path.to_owned(),
            id,
            leases: self.clone(),
        }))
    }

    /// Whether a living process holds the lease at `path`, as far as is known by now.
    pub(crate) fn is_held(&self, path: &Path) -> bool {
        match takeover::Names::read(&*self.0, path) {
            Ok(Some(found)) => !self.is_expired(path, &found),
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// Watches the lease at `path` until its holder beats, or is known to be dead.
    pub(crate) fn lives(&self, path: &Path) -> Result<bool, Error> {
        let read = || {
            let found = takeover::Names::read(&*self.0, path);
            found.map_err(Error::io("read", path))
        };
        let Some(first) = read()? else {
            return Ok(false);
        };
        loop {
            if self.is_expired(path, &first) {
                return Ok(false);
            }
            std::thread::sleep(self.pause());
            match read()? {
                Some(found) if found == first => {}
                // It beat, or another has it.
                Some(_) => return Ok(true),
                None => return Ok(false),
            }
        }
    }

    /// Whether the lease at `path` is held through here.
    pub(crate) fn owns(&self, path: &Path) -> bool {
        self.0.beating.holds(path)
    }

    /// From one look to the next.
    pub(crate) fn pause(&self) -> Duration {
        self.0.pace.beat.min(Duration::from_millis(100))
    }

    fn is_expired(&self, path: &Path, found: &[u8]) -> bool {
        if Content::parse(found).is_some_and(|content| self.0.owner.knows_as_dead(&content)) {
            return true;
        }
        let mut watched = self.watched();
        let now = Instant::now();
        let seen = watched.entry(path.to_owned()).or_insert_with(|| Seen {
            bytes: found.to_vec(),
            since: now,
        });
        if seen.bytes != found {
            *seen = Seen {
                bytes: found.to_vec(),
                since: now,
            };
        }
        now.duration_since(seen.since) >= self.0.pace.patience()
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Seen>> {
        self.0
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Whether its last beat is recent enough to count on it.
    pub(crate) fn is_fresh(&self) -> bool {
        let inside = &self.leases.0;
        let beaten = inside.beating.last(&self.id);
        beaten.is_some_and(|last| now().saturating_sub(last) < inside.pace.trust())
    }

    /// Whether it is still one's own: asked before anything is published.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let inside = &self.leases.0;
        let fresh = self.is_fresh();
        let found = takeover::Names::read(&**inside, &self.path);
        let found = found.map_err(Error::io("read", &self.path))?;
        let own = found.and_then(|found| Content::parse(&found));
        if fresh && own.is_some_and(|own| own.id == self.id) {
            return Ok(());
        }
        Err(Error::LeaseLost {
            path: self.path.clone(),
        })
    }

    /// After a freeze: takes up beating again, if nobody took it over meanwhile.
    pub(crate) fn renew(&self) -> Result<(), Error> {
        let revived = self.leases.0.beating.revive(&self.id);
        revived.map_err(Error::io("lock", &self.path))?;
        self.check()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let inside = &self.leases.0;
        inside.beating.remove(&self.id);
        let number = inside.next.fetch_add(1, Ordering::Relaxed);
        let aside = takeover::aside(&self.path, &inside.owner.id, number);
        let mine = |found: &[u8]| Content::parse(found).is_some_and(|found| found.id == self.id);
        // What cannot be freed now expires.
        let _ = takeover::release(&**inside, &self.path, &aside, &mine);
    }
}

impl takeover::Names for Inside {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, path: &Path, bytes: &[u8]) -> io::Result<bool> {
        let file: File = match self.disk.new_file(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(error),
        };
        self.disk.write(&file, path, bytes)?;
        // To the server: until then others may see an empty file, which stands still like any other.
        self.disk.sync_open(&file, path)?;
        Ok(true)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<bool> {
        match self.disk.rename(from, to) {
            Ok(()) => Ok(true),
            Err(error) if gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<bool> {
        self.disk.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.disk.remove_file(path) {
            Err(error) if gone(&error) => Ok(()),
            other => other,
        }
    }
}

/// Nothing has this name, or had it a moment ago (NFS).
fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.kind() == io::ErrorKind::StaleNetworkFileHandle
}
