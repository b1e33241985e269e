//! How much a store holds, and dropping what nobody needs.
//!
//! Promises: collecting runs alone (whoever has the store open keeps it out), drops records first
//! and blobs after, so a kill in the middle leaves blobs without records and never the reverse.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::error::Error;
use crate::record::{Record, parse};
use crate::store::Store;
use crate::tree::Tree;

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Blobs.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that no record names: copies of local inputs, mostly.
    pub loose_blobs: usize,
    /// Their bytes.
    pub loose_bytes: u64,
    /// Records.
    pub records: usize,
}

/// What a collection dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Records dropped.
    pub records: usize,
    /// Blobs dropped.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Store {
    /// How much the store holds.
    pub fn usage(&self) -> Result<Usage, Error> {
        let mut usage = Usage::default();
        let mut named = BTreeSet::new();
        for (_, record) in self.all_records()? {
            usage.records += 1;
            named.extend(self.blobs_of(&record));
        }
        for path in self.blob_files()? {
            let size = path.metadata().map_or(0, |meta| meta.len());
            usage.blobs += 1;
            usage.bytes += size;
            if !named.contains(&path) {
                usage.loose_blobs += 1;
                usage.loose_bytes += size;
            }
        }
        Ok(usage)
    }

    /// Drops every record that `keep` does not want, then every blob that no record names.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process, or another `Store` of this one, has it open.
    pub fn collect(&self, keep: impl Fn(&Record) -> bool) -> Result<Collected, Error> {
        let in_use = |_| Error::InUse {
            path: self.root.clone(),
        };
        let alone = self.in_use.try_lock().map_err(in_use);
        let collected = alone.and_then(|()| self.collect_alone(keep));
        // A failed try may have lost the shared lock: take it again either way.
        let lock = self.in_use.lock_shared();
        lock.map_err(Error::io("lock", &self.root))?;
        collected
    }

    fn collect_alone(&self, keep: impl Fn(&Record) -> bool) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        let mut named = BTreeSet::new();
        for (path, record) in self.all_records()? {
            if keep(&record) {
                named.extend(self.blobs_of(&record));
                continue;
            }
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            collected.records += 1;
            // Goes only with the last result of its key.
            let _ = fs::remove_dir(self.key_folder(&record.key));
        }
        for path in self.blob_files()? {
            if named.contains(&path) {
                continue;
            }
            let size = path.metadata().map_or(0, |meta| meta.len());
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            collected.blobs += 1;
            collected.bytes += size;
        }
        Ok(collected)
    }

    fn all_records(&self) -> Result<Vec<(PathBuf, Record)>, Error> {
        let mut records = Vec::new();
        for path in self.record_files()? {
            let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
            records.extend(parse(&bytes).map(|record| (path, record)));
        }
        Ok(records)
    }

    fn blobs_of(&self, record: &Record) -> Vec<PathBuf> {
        let files = record.trees().flat_map(Tree::files);
        files
            .map(|(_, _, digest, _)| self.blob_path(&digest))
            .collect()
    }
}
