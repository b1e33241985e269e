//! From the remote into the store.
//!
//! Promises: the record is committed last, and only when every blob of its outputs is there with
//! the bytes of its name; a transfer that breaks goes on where it broke; half a blob is never
//! seen by anybody.

use std::collections::BTreeMap;

use super::objects::{Refusal, RefusalKind};
use super::{Moved, Remote, SHORT_ENDS, Seen, Unmoved, blob_path, record_path, side_by_side};
use crate::aside::Aside;
use crate::record::Log;
use crate::store::{Condition, Store};
use crate::{Digest, Error, Record, Tree};

impl Remote {
    /// Brings the blobs of a record that [`Remote::find`] gave, and commits it. Its log comes
    /// along where it is there; losing that is no loss.
    pub fn pull(&self, store: &Store, record: &Record, seen: &Seen<'_>) -> Result<Moved, Unmoved> {
        let wanted = lacking(store, record.outputs.values())?;
        side_by_side(&wanted, |(digest, size)| {
            let fetched = self.fetch(store, digest, *size, seen);
            if let Err(Unmoved::Remote(_)) = &fetched {
                // A push that makes it anew looks at all of it.
                let path = record_path(&record.key, &record.result());
                self.bad().insert(path);
            }
            fetched
        })?;
        if let Some(Log::Stored(log)) = &record.made.log {
            for (digest, size) in lacking(store, [log])? {
                let _no_loss = self.fetch(store, &digest, size, &|_| {});
            }
        }
        store.commit(record)?;
        Ok(Moved {
            blobs: wanted.len(),
            bytes: wanted.iter().map(|(_, size)| size).sum(),
        })
    }

    fn fetch(
        &self,
        store: &Store,
        digest: &Digest,
        size: u64,
        seen: &Seen<'_>,
    ) -> Result<(), Unmoved> {
        self.health.may_go_on()?;
        let path = blob_path(digest);
        let aside = store.aside()?;
        let mut writing = Writing {
            aside: &aside,
            hasher: blake3::Hasher::new(),
            at: 0,
            seen,
            failed: None,
        };
        let mut short_ends = 0;
        let found = self.health.request(|| {
            let from = writing.at;
            if from > size {
                return Ok(true);
            }
            let found = self
                .objects
                .get(&path, from, &mut |piece| writing.write(piece, size));
            if let (Ok(true), true) = (&found, writing.at < size) {
                short_ends += 1;
                if short_ends < SHORT_ENDS {
                    let cause = format!("`{path}` ended at byte {} of {size}", writing.at);
                    return Err(Refusal::new(RefusalKind::Passing, cause));
                }
            }
            // What came before a break is kept; only a file of ours that cannot be written ends it.
            match writing.failed.take() {
                Some(error) => Err(Refusal::own(&error)),
                None => found,
            }
        })?;
        let (at, found_digest) = (writing.at, Digest::from_hasher(&writing.hasher));
        if !found {
            let cause = format!("`{path}` is not there");
            self.health.count("remote::missing", &cause);
            self.bad().insert(path);
            return Err(Unmoved::Remote(cause));
        }
        if at != size || found_digest != *digest {
            let cause = self.refuse(&path, "holds other bytes than its name says");
            return Err(Unmoved::Remote(cause));
        }
        store.install(aside, *digest)?;
        Ok(())
    }
}

/// A blob on its way.
struct Writing<'a> {
    aside: &'a Aside,
    hasher: blake3::Hasher,
    at: u64,
    seen: &'a Seen<'a>,
    /// The disk refused.
    failed: Option<std::io::Error>,
}

impl Writing<'_> {
    fn write(&mut self, piece: &[u8], size: u64) -> std::io::Result<()> {
        self.at += piece.len() as u64;
        if self.at > size {
            // Longer than its name says: there is no need to read on, or to fill the disk.
            return Ok(());
        }
        let Aside {
            file, path, disk, ..
        } = self.aside;
        if let Err(error) = disk.write(file, path, piece) {
            let told = std::io::Error::from(error.kind());
            self.failed = Some(error);
            return Err(told);
        }
        self.hasher.update(piece);
        (self.seen)(piece.len() as u64);
        Ok(())
    }
}

/// The blobs of trees that the store has not, each once, the largest first.
fn lacking<'a>(
    store: &Store,
    trees: impl IntoIterator<Item = &'a Tree>,
) -> Result<Vec<(Digest, u64)>, Error> {
    let files = trees.into_iter().flat_map(Tree::files);
    let blobs: BTreeMap<Digest, u64> = files.map(|(_, _, digest, size)| (digest, size)).collect();
    let mut lacking = Vec::new();
    for (digest, size) in blobs {
        if store.condition(&digest)? != Condition::Sound {
            lacking.push((digest, size));
        }
    }
    lacking.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    Ok(lacking)
}
