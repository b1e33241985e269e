//! Rehashing everything: the answer to "is my store whole?".

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::Digest;
use crate::error::Error;
use crate::record::{Record, parse};
use crate::store::{Condition, Store};
use crate::tree::Tree;

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Blobs read.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Records read.
    pub records: usize,
    /// What is wrong, by path. Bad files are in `store/quarantine` now.
    pub faults: Vec<Fault>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub kind: FaultKind,
}

/// What is wrong with a file of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A blob whose bytes are not those of its name; in quarantine.
    BadBlob,
    /// A file among the records that is no record, or not the one of its name; in quarantine.
    BadRecord,
    /// A record that names a blob which is not there: the stage will run again when needed.
    Incomplete {
        /// The first such blob.
        missing: Digest,
    },
}

impl Store {
    /// Reads every blob and every record.
    pub fn verify(&self) -> Result<Verification, Error> {
        self.place();
        let blobs = self.blob_files()?;
        let looked: Vec<(u64, Option<Fault>)> = blobs
            .par_iter()
            .map(|path| self.verify_blob(path))
            .collect::<Result<_, Error>>()?;
        let mut found = Verification {
            blobs: blobs.len(),
            bytes: looked.iter().map(|(size, _)| size).sum(),
            ..Verification::default()
        };
        found
            .faults
            .extend(looked.into_iter().filter_map(|(_, fault)| fault));
        for path in self.record_files()? {
            found.records += 1;
            found.faults.extend(self.verify_record(path)?);
        }
        found.faults.sort_by(|a, b| a.path.cmp(&b.path));
        // Forgetting a hash is no failure.
        let _ = self.flush();
        Ok(found)
    }

    fn verify_blob(&self, path: &Path) -> Result<(u64, Option<Fault>), Error> {
        let size = path.metadata().map_or(0, |meta| meta.len());
        let fault = || Fault {
            path: path.to_owned(),
            kind: FaultKind::BadBlob,
        };
        let name = path.file_name().and_then(|name| name.to_str());
        let digest = name.and_then(|name| name.parse::<Digest>().ok());
        let Some(digest) = digest.filter(|digest| self.blob_path(digest) == path) else {
            self.quarantine(path)?;
            return Ok((size, Some(fault())));
        };
        let sound = self.rehash(&digest)? == Condition::Sound;
        Ok((size, (!sound).then(fault)))
    }

    fn verify_record(&self, path: PathBuf) -> Result<Option<Fault>, Error> {
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let record = parse(&bytes);
        let at = |record: &Record| self.record_path(&record.key, &record.result()) == path;
        let record = record.filter(at);
        let Some(record) = record else {
            self.quarantine(&path)?;
            let kind = FaultKind::BadRecord;
            return Ok(Some(Fault { path, kind }));
        };
        let mut blobs = record.outputs.values().flat_map(Tree::files);
        let missing = blobs.find(|(_, _, digest, _)| !self.blob_path(digest).exists());
        Ok(missing.map(|(_, _, missing, _)| Fault {
            path,
            kind: FaultKind::Incomplete { missing },
        }))
    }

    pub(crate) fn blob_files(&self) -> Result<Vec<PathBuf>, Error> {
        below(&self.root.join("blobs"), 2)
    }

    pub(crate) fn record_files(&self) -> Result<Vec<PathBuf>, Error> {
        below(&self.root.join("records"), 3)
    }
}

/// The paths exactly `depth` levels below `folder`, sorted.
fn below(folder: &Path, depth: usize) -> Result<Vec<PathBuf>, Error> {
    let mut level = vec![folder.to_owned()];
    for _ in 0..depth {
        let mut next = Vec::new();
        for folder in level.iter().filter(|path| path.is_dir()) {
            let listing = fs::read_dir(folder).map_err(Error::io("list", folder))?;
            next.extend(listing.flatten().map(|entry| entry.path()));
        }
        level = next;
    }
    level.sort();
    Ok(level)
}
