//! Roots: the checkouts that use a shared store, and what each of them needs.
//!
//! ```text
//! BASE/roots/<blake3 of the path, short>.json   {"checkout": "/path", "results": [[KEY, RESULT]]}
//! ```
//!
//! Promises: a checkout is registered when it opens the store; its file's mtime says when it was
//! last seen; what it needs is written down there, so that a checkout which cannot be looked at
//! (an unmounted disk, a removed worktree) keeps its results until the root is forgotten.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::error::Error;
use crate::store::Store;

/// A registration that young is not written again.
const FRESH: Duration = Duration::from_hours(24);

/// A checkout that uses the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Its folder.
    pub checkout: PathBuf,
    /// The results that it needed when it was last looked at: key and result.
    pub results: BTreeSet<(Digest, Digest)>,
    /// When it last opened the store.
    #[serde(skip, default = "SystemTime::now")]
    pub seen: SystemTime,
}

impl Store {
    /// Registers a checkout. Costs one look where it was seen within the last day.
    pub fn register(&self, checkout: &Path) -> Result<(), Error> {
        let file = self.root_file(checkout);
        let now = SystemTime::now();
        let known = file.metadata().and_then(|meta| meta.modified());
        if known.is_ok_and(|seen| now.duration_since(seen).is_ok_and(|age| age < FRESH)) {
            return Ok(());
        }
        let results = read(&file).map(|root| root.results).unwrap_or_default();
        self.remember_root(checkout, results)
    }

    /// Writes down what a checkout needs.
    pub fn remember_root(
        &self,
        checkout: &Path,
        results: BTreeSet<(Digest, Digest)>,
    ) -> Result<(), Error> {
        let folder = self.base.join("roots");
        let made = self.disk.make_folders(&folder);
        made.map_err(Error::io("create", &folder))?;
        let root = Root {
            checkout: checkout.to_owned(),
            results,
            seen: SystemTime::now(),
        };
        let text = serde_json::to_vec(&root).expect("a root is plain data");
        self.aside()?.write(&text, &self.root_file(checkout))
    }

    /// The checkouts that are registered, by folder. A file that does not parse is left out.
    pub fn roots(&self) -> Vec<Root> {
        let listing = fs::read_dir(self.base.join("roots"));
        let listing = listing.into_iter().flatten().flatten();
        let mut roots: Vec<_> = listing.filter_map(|entry| read(&entry.path())).collect();
        roots.sort_by(|a, b| a.checkout.cmp(&b.checkout));
        roots
    }

    /// Forgets a checkout.
    pub fn forget_root(&self, checkout: &Path) -> Result<(), Error> {
        let file = self.root_file(checkout);
        let removed = self.disk.remove_file(&file);
        removed.map_err(Error::io("remove", &file))
    }

    fn root_file(&self, checkout: &Path) -> PathBuf {
        let name = Digest::of(checkout.as_os_str().as_encoded_bytes());
        self.base
            .join("roots")
            .join(format!("{}.json", name.short()))
    }
}

fn read(file: &Path) -> Option<Root> {
    let seen = file.metadata().and_then(|meta| meta.modified()).ok()?;
    let root: Root = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    Some(Root { seen, ..root })
}
