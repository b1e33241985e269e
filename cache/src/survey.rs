//! What a store holds, thing by thing: what collecting and `du` look at.
//!
//! Promises: reads records and looks at everything else without reading it; a file that goes
//! meanwhile is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use crate::Digest;
use crate::error::Error;
use crate::record::{Record, parse};
use crate::stat::{self, Stat};
use crate::store::Store;
use crate::tree::Tree;

/// How much a store holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Blobs.
    pub blobs: Amount,
    /// Of these, blobs that no record names: copies of local inputs, mostly.
    pub loose: Amount,
    /// Checkpoints of stages that did not end; one a key.
    pub checkpoints: Amount,
    /// Answers that were paid for.
    pub kept: Amount,
    /// Damaged files.
    pub quarantine: Amount,
    /// Every record.
    pub records: Vec<RecordUsage>,
}

/// So many things of so many bytes in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Things.
    pub count: usize,
    /// Bytes.
    pub bytes: u64,
}

/// A record and what it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordUsage {
    /// The record.
    pub record: Record,
    /// Bytes of its blobs that are there.
    pub bytes: u64,
    /// Of these, the bytes that no other record names.
    pub alone: u64,
}

/// A file or folder.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// When it was last used or stored, nanoseconds since 1970.
    pub(crate) used: i64,
}

/// A record as it lies there.
#[derive(Debug)]
pub(crate) struct StoredRecord {
    pub(crate) record: Record,
    pub(crate) used: i64,
}

/// Everything that a store holds.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) records: Vec<StoredRecord>,
    pub(crate) blobs: BTreeMap<Digest, Held>,
    pub(crate) checkpoints: Vec<Held>,
    pub(crate) quarantine: Vec<Held>,
}

impl Survey {
    /// Bytes of everything that may be dropped.
    pub(crate) fn bytes(&self) -> u64 {
        let others = self.checkpoints.iter().chain(&self.quarantine);
        self.blobs
            .values()
            .chain(others)
            .map(|held| held.bytes)
            .sum()
    }
}

impl Store {
    /// How much the store holds.
    pub fn usage(&self) -> Result<Usage, Error> {
        let survey = self.survey()?;
        let mut names: BTreeMap<Digest, usize> = BTreeMap::new();
        for stored in &survey.records {
            for digest in blobs_of(&stored.record) {
                *names.entry(digest).or_default() += 1;
            }
        }
        let bytes = |record: &Record, most: usize| {
            let own = blobs_of(record).into_iter();
            let own = own.filter(|digest| names[digest] <= most);
            own.filter_map(|digest| survey.blobs.get(&digest))
                .map(|held| held.bytes)
                .sum()
        };
        let loose = survey.blobs.iter();
        let loose = loose.filter(|(digest, _)| !names.contains_key(digest));
        Ok(Usage {
            blobs: amount(survey.blobs.values()),
            loose: amount(loose.map(|(_, held)| held)),
            checkpoints: amount(&survey.checkpoints),
            kept: self.kept(),
            quarantine: amount(&survey.quarantine),
            records: survey
                .records
                .iter()
                .map(|stored| RecordUsage {
                    bytes: bytes(&stored.record, usize::MAX),
                    alone: bytes(&stored.record, 1),
                    record: stored.record.clone(),
                })
                .collect(),
        })
    }

    /// Notes that a record was used: collecting goes by the last use.
    pub fn used(&self, record: &Record) {
        let path = self.record_path(&record.key, &record.result());
        // A store of somebody else's, or a record that went: no reason to stop.
        if let Ok(file) = crate::disk::Disk::reopen(&path) {
            let now = std::time::SystemTime::now();
            let _ = self.disk.set_time(&file, &path, now);
        }
    }

    pub(crate) fn survey(&self) -> Result<Survey, Error> {
        let mut survey = Survey::default();
        for path in self.record_files()? {
            let Ok(meta) = path.metadata() else { continue };
            let Ok(bytes) = fs::read(&path) else { continue };
            if let Some(record) = parse(&bytes) {
                let used = Stat::of(&meta).mtime;
                survey.records.push(StoredRecord { record, used });
            }
        }
        for path in self.blob_files()? {
            let name = path.file_name().and_then(|name| name.to_str());
            let digest = name.and_then(|name| name.parse::<Digest>().ok());
            if let (Some(digest), Ok(meta)) = (digest, path.symlink_metadata()) {
                survey.blobs.insert(digest, stored(path, &meta));
            }
        }
        for path in list(&self.root.join("quarantine")) {
            if let Ok(meta) = path.symlink_metadata() {
                survey.quarantine.push(stored(path, &meta));
            }
        }
        for path in list(&self.base.join("checkpoints")) {
            // A stage at work holds the lock of its key.
            let key = path.file_name().and_then(|name| name.to_str());
            let key = key.and_then(|name| name.parse::<Digest>().ok());
            if key.is_some_and(|key| self.locks.is_held(&self.lock_path(&key))) {
                continue;
            }
            survey.checkpoints.push(below(path));
        }
        Ok(survey)
    }

    fn kept(&self) -> Amount {
        let kinds = list(&self.base.join("kept"));
        let answers: Vec<_> = kinds
            .iter()
            .flat_map(|kind| list(kind))
            .map(below)
            .collect();
        amount(&answers)
    }
}

/// The blobs that a record names, each once.
pub(crate) fn blobs_of(record: &Record) -> BTreeSet<Digest> {
    let files = record.trees().flat_map(Tree::files);
    files.map(|(_, _, digest, _)| digest).collect()
}

fn amount<'a>(held: impl IntoIterator<Item = &'a Held>) -> Amount {
    let mut amount = Amount::default();
    for held in held {
        amount.count += 1;
        amount.bytes += held.bytes;
    }
    amount
}

/// A file of the store: its mtime means nothing, the inode changed when it was moved there.
fn stored(path: PathBuf, meta: &Metadata) -> Held {
    let stat = Stat::of(meta);
    Held {
        path,
        bytes: stat.size,
        used: stat.ctime,
    }
}

/// A file or folder that a stage wrote to, by its newest file.
fn below(path: PathBuf) -> Held {
    let mut held = Held {
        bytes: 0,
        used: 0,
        path: path.clone(),
    };
    let mut open = vec![path];
    while let Some(path) = open.pop() {
        let Ok(meta) = path.symlink_metadata() else {
            continue;
        };
        held.used = held.used.max(Stat::of(&meta).mtime.min(stat::now()));
        if meta.is_dir() {
            open.extend(list(&path));
        } else {
            held.bytes += meta.len();
        }
    }
    held
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let listing = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = listing.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
