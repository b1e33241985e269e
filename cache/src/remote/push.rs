//! From the store to the remote.
//!
//! Promises: blobs first, then the record, then the name under which it is found unasked; who
//! comes second leaves what is there; bytes are hashed on their way, so what was damaged here does
//! not get there; killed at any moment, it leaves blobs that nothing names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use super::objects::{Refusal, RefusalKind};
use super::{Moved, Remote, Seen, Unmoved, blob_path, key_path, record_path, side_by_side};
use crate::record::text;
use crate::store::{Condition, Store};
use crate::{Digest, Error, Record, Tree};

/// Blobs of more bytes go in parts, and are looked for before they are sent.
const WHOLE: u64 = 8 << 20;

impl Remote {
    /// Puts a result there; nothing moves if it is there already. A result that a person vouched
    /// for is refused.
    pub fn push(&self, store: &Store, record: &Record, seen: &Seen<'_>) -> Result<Moved, Unmoved> {
        if record.made.accepted {
            let cause = "a result accepted by hand stays where it is";
            return Err(Unmoved::Stopped(cause.to_owned()));
        }
        let (key, result) = (&record.key, &record.result());
        let names = [record_path(key, result), key_path(key)];
        // A killed push may have left the record and not the key's name, without which those who
        // know no result find none.
        let there = self.has(key, result)? && self.named(key)?;
        if there && !names.iter().any(|name| self.is_bad(name)) {
            return Ok(Moved::default());
        }
        let files = record.trees().flat_map(Tree::files);
        let blobs: BTreeMap<Digest, u64> =
            files.map(|(_, _, digest, size)| (digest, size)).collect();
        let blobs: Vec<_> = blobs.into_iter().collect();
        let moved = std::sync::Mutex::new(Moved::default());
        side_by_side(&blobs, |(digest, size)| {
            if self.send(store, digest, *size, seen)? {
                let mut moved = moved
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                moved.blobs += 1;
                moved.bytes += size;
            }
            Ok::<_, Unmoved>(())
        })?;
        let text = text(record);
        for path in names {
            self.put(&path, &text)?;
        }
        Ok(moved
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Stores a small object unless a good one is there. `true` if its bytes went: a try whose
    /// answer was lost may have stored it, and then the next one finds it there.
    fn put(&self, path: &str, bytes: &[u8]) -> Result<bool, Refusal> {
        let over = self.is_bad(path);
        let mut tries = 0;
        let put = self.health.request(|| {
            tries += 1;
            self.objects.put(path, bytes, over)
        })?;
        self.bad().remove(path);
        Ok(put || tries > 1)
    }

    /// Whether the blob was sent; `false` if it was there.
    fn send(
        &self,
        store: &Store,
        digest: &Digest,
        size: u64,
        seen: &Seen<'_>,
    ) -> Result<bool, Unmoved> {
        self.health.may_go_on()?;
        let path = blob_path(digest);
        let lacking = |damaged| Error::Lacking {
            digest: *digest,
            damaged,
        };
        match store.condition(digest)? {
            Condition::Sound => {}
            condition => return Err(lacking(condition == Condition::Damaged).into()),
        }
        let place = store.blob_path(digest);
        let file = File::open(&place).map_err(Error::io("read", &place))?;
        if size <= WHOLE {
            let mut bytes = Vec::with_capacity(size as usize);
            let read = (&file).take(WHOLE + 1).read_to_end(&mut bytes);
            read.map_err(Error::io("read", &place))?;
            if Digest::of(&bytes) != *digest {
                return Err(lacking(true).into());
            }
            let sent = self.put(&path, &bytes)?;
            seen(size);
            return Ok(sent);
        }
        let there = self.health.request(|| self.objects.size(&path))?;
        if there == Some(size) && !self.is_bad(&path) {
            seen(size);
            return Ok(false);
        }
        let mut reading = Reading {
            file: &file,
            hasher: blake3::Hasher::new(),
            wanted: *digest,
            seen,
        };
        let again = |one: &mut super::Request<'_>| self.health.request(&mut *one);
        let sent = self.objects.put_parts(&path, &mut reading, size, &again);
        sent.map_err(|refusal| match refusal.kind {
            RefusalKind::Own => self.health.note(refusal),
            _ => refusal,
        })?;
        self.bad().remove(&path);
        Ok(true)
    }
}

/// A large blob on its way; its end is an error if the bytes were not those of its name.
struct Reading<'a> {
    file: &'a File,
    hasher: blake3::Hasher,
    wanted: Digest,
    seen: &'a Seen<'a>,
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        (self.seen)(read as u64);
        if read == 0 && !buffer.is_empty() && Digest::from_hasher(&self.hasher) != self.wanted {
            return Err(io::Error::other("the blob is damaged in this store"));
        }
        Ok(read)
    }
}
