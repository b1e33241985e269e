//! Looks made ahead: what files of the store and laid-out files looked like a moment ago, seen by
//! another thread while this one has other work.
//!
//! Promises: a pure speed-up. What was seen counts once, and only where it is just what is
//! remembered; else the file is looked at again. Whoever changes something first says
//! [`Store::forget_glances`].

use std::fs::File;
use std::path::Path;

use rustix::fs::{AtFlags, statat};

use crate::stat::Stat;
use crate::store::Store;
use crate::tree::Tree;
use crate::{Digest, Record};

/// A folder to look below: short paths cost a fraction of long ones.
pub struct Below(File);

/// The files of a result, all there a moment ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance(Vec<Stat>);

impl Below {
    /// The store below `base`, if there is one.
    pub fn store(base: &Path) -> Option<Self> {
        Self::folder(&base.join("store"))
    }

    pub(crate) fn folder(folder: &Path) -> Option<Self> {
        File::open(folder).ok().map(Self)
    }

    /// What lies at a relative path: its stat and mode. Links are not followed.
    pub(crate) fn look(&self, path: &str) -> Option<(Stat, u32)> {
        let found = statat(&self.0, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        #[allow(
            clippy::unnecessary_cast,
            clippy::cast_lossless,
            reason = "its type differs between systems"
        )]
        let mode = found.st_mode as u32;
        Some((Stat::of_raw(&found), mode))
    }

    /// Looks at a record and the blobs of its outputs; nothing if any is missing.
    pub fn result<'a>(
        &self,
        key: &Digest,
        result: &Digest,
        outputs: impl Iterator<Item = &'a Tree>,
    ) -> Option<Glance> {
        let mut path = String::with_capacity(160);
        let (key, result) = (key.digits(), result.digits());
        for step in ["records/", &key[..2], "/", &key, "/", &result, ".json"] {
            path.push_str(step);
        }
        self.look(&path)?;
        let mut blobs = Vec::new();
        for (_, _, digest, _) in outputs.flat_map(Tree::files) {
            let digits = digest.digits();
            path.clear();
            for step in ["blobs/", &digits[..2], "/", &digits] {
                path.push_str(step);
            }
            blobs.push(self.look(&path)?.0);
        }
        Some(Glance(blobs))
    }
}

impl Store {
    /// Whether a record and all its blobs are there, unharmed, by a glance at them.
    pub fn held(&self, record: &Record, glance: &Glance) -> bool {
        let memo = self.memo();
        let mut files = record.outputs.values().flat_map(Tree::files);
        let mut seen = glance.0.iter();
        let same = files.all(|(_, _, digest, _)| memo.blob(&digest).as_ref() == seen.next());
        same && seen.next().is_none()
    }

    /// From here on files change: what was seen of laid-out ones counts no more.
    pub fn forget_glances(&self) {
        self.memo().forget_glances();
    }
}
