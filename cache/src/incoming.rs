//! Files that become blobs: whole and sealed first, then durable, then in their places.
//!
//! Promises: nothing comes to stand under a blob's name whose bytes are not durable; files that come
//! together are made durable together; one that was written to after it was hashed is refused.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Digest;
use crate::aside::{Aside, Whole};
use crate::error::Error;
use crate::stat::Stat;
use crate::store::{Condition, Store, seal};
use crate::{read, stat};

/// A whole, sealed file that is to become the blob of its digest.
pub(crate) struct Incoming {
    file: Whole,
    digest: Digest,
    /// As it was when it was hashed.
    sealed: Stat,
}

impl Store {
    /// A complete file aside, to come into its place; nothing if a sound blob stands there.
    pub(crate) fn incoming(&self, aside: Aside, digest: Digest) -> Result<Option<Incoming>, Error> {
        if self.stands(&digest)? {
            return Ok(None);
        }
        let path = &aside.path;
        seal(&aside.file, path, &self.disk).map_err(Error::io("write", path))?;
        let meta = aside.file.metadata().map_err(Error::io("read", path))?;
        let sealed = Stat::of(&meta);
        let file = aside.close();
        Ok(Some(Incoming {
            file,
            digest,
            sealed,
        }))
    }

    /// [`Store::incoming`] of a file below a scratch folder, which was sealed before it was hashed.
    pub(crate) fn incoming_move(
        &self,
        path: &Path,
        digest: Digest,
        sealed: Stat,
    ) -> Result<Option<Incoming>, Error> {
        if self.stands(&digest)? {
            return Ok(None);
        }
        let file = Whole::at(path.to_owned(), self.disk.clone());
        Ok(Some(Incoming {
            file,
            digest,
            sealed,
        }))
    }

    /// Puts a complete file aside into its place, unless a sound one is there.
    pub(crate) fn install(&self, aside: Aside, digest: Digest) -> Result<(), Error> {
        let incoming = self.incoming(aside, digest)?;
        self.bring_in(incoming.into_iter().collect())
    }

    /// Brings files into their places.
    pub(crate) fn bring_in(&self, incoming: Vec<Incoming>) -> Result<(), Error> {
        if incoming.is_empty() {
            return Ok(());
        }
        let files: Vec<_> = incoming.iter().map(|one| one.file.path()).collect();
        self.make_durable(&files, &std::collections::BTreeSet::new())?;
        for mut one in incoming {
            let place = self.blob_path(&one.digest);
            match one.file.put(&place) {
                Ok(()) => self.placed(&place, one.digest, Some(one.sealed))?,
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                    self.carry_over(one.file.path(), one.digest)?;
                }
                Err(error) => return Err(Error::io("move", one.file.path())(error)),
            }
        }
        Ok(())
    }

    /// Copies a file from another file system into its place.
    fn carry_over(&self, path: &Path, digest: Digest) -> Result<(), Error> {
        let aside = self.aside()?;
        let open = fs::File::open(path).map_err(Error::io("read", path))?;
        let write = |piece: &[u8]| self.disk.write(&aside.file, &aside.path, piece);
        let (found, _) = read::pump(&open, 0, write).map_err(Error::io("copy", path))?;
        if found != digest {
            return Err(Error::Moving {
                path: path.to_owned(),
            });
        }
        let place = self.blob_path(&digest);
        seal(&aside.file, &aside.path, &self.disk).map_err(Error::io("write", &place))?;
        aside.put(&place)?;
        self.placed(&place, digest, None)
    }

    /// Whether a sound blob stands there already; else its folder is ready for it. Somebody may
    /// have put it there and not have come to sync its name, so that is done with ours.
    fn stands(&self, digest: &Digest) -> Result<bool, Error> {
        let place = self.blob_path(digest);
        let shard = place.parent().expect("a blob lies in a folder");
        self.make_folder(shard)?;
        let sound = self.condition(digest)? == Condition::Sound;
        if sound {
            self.stood(*digest, shard);
        }
        Ok(sound)
    }

    fn placed(&self, place: &PathBuf, digest: Digest, sealed: Option<Stat>) -> Result<(), Error> {
        self.changed_folder(place.parent().expect("a blob lies in a folder"));
        let meta = fs::symlink_metadata(place).map_err(Error::io("read", place))?;
        let now = stat::Stat::of(&meta);
        // A rename moves the ctime, a write the mtime.
        let same = |sealed: Stat| (sealed.size, sealed.mtime) == (now.size, now.mtime);
        if sealed.is_none_or(same) {
            self.memo().remember_blob(digest, now);
            return Ok(());
        }
        self.quarantine(place)?;
        Err(Error::Moving {
            path: place.clone(),
        })
    }
}
