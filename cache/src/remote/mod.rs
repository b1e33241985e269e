//! A store far away that others fill and read: results by key, blobs by digest.
//!
//! ```text
//! v1/blobs/ab/<blake3>
//! v1/records/ab/<key>/<result>.json
//! v1/keys/ab/<key>.json               the first of the key's results: what is found unasked
//! ```
//!
//! Promises: blobs go there before the record that names them, and nothing that is there is
//! replaced but what was found to be bad; a record that is found rehashes to its key, and a blob
//! that is fetched has the bytes of its name, else it is refused; results that a person vouched
//! for never go there. Whatever goes wrong is counted and is nobody's failure.
//! Must not know: what kind of store it is ([`Objects`]), stages, pipelines, async runtimes.

mod folder;
mod health;
mod objects;
mod pull;
mod push;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::record::{Record, parse};
use crate::survey::Amount;
use crate::{Digest, Error};

pub use folder::Folder;
use health::Health;
pub use health::RemoteFault;
pub use objects::{Again, Objects, Refusal, RefusalKind, Request, Sink};

/// Blobs that one result moves at the same time.
const SIDE_BY_SIDE: usize = 8;

/// Ends without an error before the end of an object that count as its end.
const SHORT_ENDS: u32 = 3;

/// Records may not be larger: a million files have about 150 MB.
const LARGEST_RECORD: usize = 256 << 20;

/// A remote store. Share it between threads behind an `Arc`.
pub struct Remote {
    objects: Box<dyn Objects>,
    health: Health,
    /// Paths of objects that were found to be bad or missing.
    bad: Mutex<BTreeSet<String>>,
}

/// What was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Blobs that went over the wire.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Why a result was not moved.
#[derive(Debug, thiserror::Error)]
pub enum Unmoved {
    /// The remote refused, or an object there is bad or missing. Counted already.
    #[error("{0}")]
    Remote(String),
    /// It was told to stop, or the remote is left alone.
    #[error("{0}")]
    Stopped(String),
    /// This side's store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<Refusal> for Unmoved {
    fn from(refusal: Refusal) -> Self {
        match refusal.kind {
            RefusalKind::Stopped => Self::Stopped(refusal.cause),
            _ => Self::Remote(refusal.cause),
        }
    }
}

/// Hears of bytes as they move, from many threads.
pub type Seen<'a> = dyn Fn(u64) + Sync + 'a;

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote")
    }
}

impl Remote {
    /// A remote that is asked through `objects`. `secrets` are kept out of every message. With
    /// `patience` it is left alone after that time.
    pub fn new(
        objects: Box<dyn Objects>,
        secrets: Vec<String>,
        patience: Option<Duration>,
    ) -> Self {
        Self {
            objects,
            health: Health::new(secrets, patience),
            bad: Mutex::default(),
        }
    }

    /// A result of `key`: the `wanted` one, else the first that somebody put there. A record that
    /// is no record of that key is refused and counted.
    pub fn find(&self, key: &Digest, wanted: Option<&Digest>) -> Option<Record> {
        let path = match wanted {
            Some(result) => record_path(key, result),
            None => key_path(key),
        };
        let (mut bytes, mut record, mut short_ends) = (Vec::new(), None, 0);
        let found = self.health.request(|| {
            bytes.clear();
            let found = self.objects.get(&path, 0, &mut |piece| {
                if bytes.len() + piece.len() > LARGEST_RECORD {
                    return Err(std::io::Error::other("the record is too large"));
                }
                bytes.extend_from_slice(piece);
                Ok(())
            })?;
            record = parse(&bytes);
            if found && record.is_none() {
                // Perhaps an answer that ended early, which nothing but its bytes shows.
                short_ends += 1;
                if short_ends < SHORT_ENDS {
                    let cause = format!("`{path}` ended at byte {} as half a record", bytes.len());
                    return Err(Refusal::new(RefusalKind::Passing, cause));
                }
            }
            Ok(found)
        });
        if !found.ok()? {
            return None;
        }
        let fits = |record: &Record| {
            let result = wanted.is_none_or(|wanted| record.result() == *wanted);
            record.key == *key && result && !record.made.accepted
        };
        let record = record.filter(fits);
        if record.is_none() {
            self.refuse(&path, "is no record of its key");
        }
        record
    }

    /// Whether a result is there.
    pub fn has(&self, key: &Digest, result: &Digest) -> Result<bool, Unmoved> {
        let path = record_path(key, result);
        let size = self.health.request(|| self.objects.size(&path))?;
        Ok(size.is_some())
    }

    /// Whether a result of the key is found without knowing more.
    fn named(&self, key: &Digest) -> Result<bool, Unmoved> {
        let path = key_path(key);
        let size = self.health.request(|| self.objects.size(&path))?;
        Ok(size.is_some())
    }

    /// Blobs and records that are there, by listing all of them.
    pub fn usage(&self) -> Result<(Amount, Amount), Unmoved> {
        let count = |folder: &str| {
            self.health.request(|| {
                let mut amount = Amount::default();
                self.objects.list(folder, &mut |_, bytes| {
                    amount.count += 1;
                    amount.bytes += bytes;
                })?;
                Ok(amount)
            })
        };
        Ok((count("v1/blobs")?, count("v1/records")?))
    }

    /// Ends what is under way and refuses everything from now on.
    pub fn stop(&self) {
        self.health.stop();
        self.objects.stop();
    }

    /// Whether faults were so many that it is not asked any more.
    pub fn left_alone(&self) -> bool {
        self.health.left_alone()
    }

    /// Everything that went wrong so far, by kind.
    pub fn faults(&self) -> Vec<RemoteFault> {
        self.health.faults()
    }

    /// Counts an object that is not what it should be, and lets a push replace it.
    fn refuse(&self, path: &str, what: &str) -> String {
        let cause = format!("`{path}` {what}");
        self.health.count("remote::corrupt", &cause);
        self.bad().insert(path.to_owned());
        cause
    }

    fn bad(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_bad(&self, path: &str) -> bool {
        self.bad().contains(path)
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("v1/blobs/{}/{digest}", digest.shard())
}

fn record_path(key: &Digest, result: &Digest) -> String {
    format!("v1/records/{}/{key}/{result}.json", key.shard())
}

fn key_path(key: &Digest) -> String {
    format!("v1/keys/{}/{key}.json", key.shard())
}

/// Does `one` for every item, several at a time; ends at the first error.
fn side_by_side<T: Sync, E: Send>(
    items: &[T],
    one: impl Fn(&T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = one(item) {
                next.store(items.len(), Ordering::Relaxed);
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..SIDE_BY_SIDE.min(items.len()) {
            scope.spawn(work);
        }
        work();
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), Err)
}
