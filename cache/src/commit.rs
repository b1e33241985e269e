//! Records come into their places: at once, or together with others a little later.
//!
//! Promises: a record is put in its place only when every blob that it names and its own bytes
//! are durable; what waits for that counts for this process already, and its key stays
//! locked for others; [`Store::settle`] returns when nothing waits and no power cut takes back
//! what was put. A process that is killed before loses what waits, and nothing else; one that lost
//! the lock of a key to a freeze puts nothing under it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Digest;
use crate::aside::Whole;
use crate::durable::Alone;
use crate::error::Error;
use crate::lock::KeyLock;
use crate::record::{Record, text};
use crate::store::Store;

/// A record that is written and not in its place yet.
pub(crate) struct Waiting {
    record: Record,
    place: PathBuf,
    /// Its file; nothing once it is in its place, or cannot be.
    file: Mutex<Option<Whole>>,
    /// Freed when others can see the record.
    lock: Mutex<Option<KeyLock>>,
    ticket: Ticket,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Waiting({})", self.place.display())
    }
}

/// Tells what became of a record that was left to [`Store::settle`].
#[derive(Clone, Debug, Default)]
pub struct Ticket(Arc<Mutex<Option<Error>>>);

impl Ticket {
    /// Why the record could not be stored, if it could not. Asked after [`Store::settle`], once.
    pub fn failure(&self) -> Option<Error> {
        held(&self.0).take()
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Makes a result exist. Every blob of its outputs must be in the store. A record of the same
    /// key and outputs is replaced.
    pub fn commit(&self, record: &Record) -> Result<(), Error> {
        let ticket = self.commit_soon(record, &mut None)?;
        let settled = self.settle();
        ticket.failure().map_or(settled, Err)
    }

    /// [`Store::commit`] that leaves the waiting to [`Store::place`] or [`Store::settle`], so that many
    /// records share it. Until then this process alone sees the record; `lock`, that of its
    /// key, is taken and held as long. It stays where it is if this fails.
    pub fn commit_soon(
        &self,
        record: &Record,
        lock: &mut Option<KeyLock>,
    ) -> Result<Ticket, Error> {
        debug_assert!(record.rehashes(), "bug: the key is not that of the parts");
        let place = self.record_path(&record.key, &record.result());
        let folder = place.parent().expect("a record lies in a folder");
        self.make_folder(folder.parent().expect("a key lies in a shard"))?;
        self.make_folder(folder)?;
        let aside = self.aside()?;
        let written = self.disk.write(&aside.file, &aside.path, &text(record));
        written.map_err(Error::io("write", &place))?;
        let waiting = Waiting {
            record: record.clone(),
            place,
            file: Mutex::new(Some(aside.close())),
            lock: Mutex::new(lock.take()),
            ticket: Ticket::default(),
        };
        let ticket = waiting.ticket.clone();
        held(&self.waiting).push(Arc::new(waiting));
        Ok(ticket)
    }

    /// How many records wait for their places.
    pub fn waiting(&self) -> usize {
        held(&self.waiting).len()
    }

    /// Whether a record of this key waits for its place.
    pub fn waits(&self, key: &Digest) -> bool {
        held(&self.waiting).iter().any(|one| one.record.key == *key)
    }

    /// Puts what waits in its place: then other processes see it, and a kill takes nothing back.
    /// A power cut may, as long as [`Store::settle`] was not called. What cannot be put is told by its
    /// ticket.
    pub fn place(&self) {
        self.place_all(&self.alone());
    }

    /// [`Store::place`]; returns when no power cut takes back what was put.
    pub fn settle(&self) -> Result<(), Error> {
        let alone = self.alone();
        self.place_all(&alone);
        let synced = self.sync_names(&[], &alone);
        // What was put is there; forgetting a hash is no failure.
        let _ = self.flush();
        synced
    }

    fn place_all(&self, alone: &Alone<'_>) {
        // They stay on the list meanwhile: the keys' other users find them there.
        let waiting = held(&self.waiting).clone();
        if waiting.is_empty() {
            return;
        }
        let files: Vec<_> = waiting.iter().map(|one| one.path()).collect();
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        // The names of their blobs were noted before they came on the list.
        let durable = self.sync_names(&files, alone);
        for one in &waiting {
            let put = match &durable {
                Ok(()) => self.put_one(one),
                Err(error) => Err(error.again(&one.place)),
            };
            *held(&one.ticket.0) = put.err();
        }
        held(&self.waiting).retain(|one| !waiting.iter().any(|put| Arc::ptr_eq(one, put)));
        for one in waiting {
            drop(held(&one.file).take());
            drop(held(&one.lock).take());
        }
    }

    fn put_one(&self, one: &Waiting) -> Result<(), Error> {
        if let Some(lock) = &*held(&one.lock) {
            lock.check()?;
        }
        let mut file = held(&one.file);
        let file = file.as_mut().expect("bug: a record is put once");
        file.put(&one.place)
            .map_err(Error::io("write", &one.place))?;
        self.changed_folder(one.place.parent().expect("a record lies in a folder"));
        Ok(())
    }

    /// The records of a key that wait for their places.
    pub(crate) fn waiting_of(&self, key: &Digest) -> Vec<Record> {
        let waiting = held(&self.waiting);
        let records = waiting.iter().map(|one| &one.record);
        records
            .filter(|record| record.key == *key)
            .cloned()
            .collect()
    }
}

impl Waiting {
    fn path(&self) -> PathBuf {
        let file = held(&self.file);
        file.as_ref()
            .map_or_else(PathBuf::new, |file| file.path().to_owned())
    }
}

impl Error {
    /// The failure of a sync that several waited for, told to one of them.
    fn again(&self, place: &Path) -> Self {
        let source = match self {
            Self::Io { source, .. } => match source.raw_os_error() {
                Some(number) => io::Error::from_raw_os_error(number),
                None => source.kind().into(),
            },
            other => io::Error::other(other.to_string()),
        };
        Self::io("write", place)(source)
    }
}
