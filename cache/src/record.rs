//! Records: which key made which outputs, with the parts of the key.
//!
//! Promises: a record names only blobs that were durable before it; one key may own several
//! results; a record that does not rehash to its key is not believed, and neither is one with a
//! bit that flipped.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::key::Prefixed;
use crate::store::{Condition, Store};
use crate::{Digest, KeyParts, Tree};

/// One result of one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The digest of `parts`.
    pub key: Digest,
    /// What the key is made of.
    pub parts: KeyParts,
    /// Output name -> what it holds.
    pub outputs: BTreeMap<String, Tree>,
    /// What the maker found out beside its files; the store does not look into it.
    pub outcome: serde_json::Value,
    /// When, where and how long.
    pub made: Made,
}

/// The circumstances of a result, in no key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// When it began, RFC 3339.
    pub started: String,
    /// How long it took, milliseconds.
    pub millis: u64,
    /// Host name.
    pub host: String,
    /// Program and version.
    pub program: String,
    /// What its maker calls the thing that made it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stage: String,
    /// Which version of its project its maker says it was made from; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// Whether a person said that these outputs are those of the key, instead of a stage having
    /// made them. Such a result stays where it is: it is never given to others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepted: bool,
    /// What the stage wrote while it ran, secrets masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Log>,
}

/// The log of a stage, as kept with its result. Losing it costs no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Log {
    /// A short one.
    Text(String),
    /// A long one: a file in the store.
    Stored(Tree),
}

/// Something that a record names and the store has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Output name.
    pub product: String,
    /// File below a folder, or empty.
    pub path: String,
    /// The blob.
    pub digest: Digest,
    /// What is the matter.
    pub cause: LackCause,
}

/// What is the matter with a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LackCause {
    /// It is not there.
    Missing,
    /// Its bytes changed; it was put in quarantine.
    Damaged,
}

impl Record {
    /// The digest of the outputs: tells the results of one key apart.
    pub fn result(&self) -> Digest {
        let outputs = self.outputs.iter();
        Self::result_of(outputs.map(|(name, tree)| (name.as_str(), tree.digest())))
    }

    /// [`Record::result`] of a record that has these outputs (sorted by name).
    pub fn result_of<'a>(outputs: impl IntoIterator<Item = (&'a str, Digest)>) -> Digest {
        let mut parts = Prefixed::default();
        for (name, digest) in outputs {
            parts.push(name);
            parts.push(&digest.digits());
        }
        parts.digest()
    }

    /// Everything in the store that the record names: its outputs, and its log if that is a
    /// file there. What must not be collected while the record stays.
    pub fn trees(&self) -> impl Iterator<Item = &Tree> {
        let log = match &self.made.log {
            Some(Log::Stored(tree)) => Some(tree),
            _ => None,
        };
        self.outputs.values().chain(log)
    }

    /// Whether the key is that of the parts.
    pub(crate) fn rehashes(&self) -> bool {
        self.parts.digest() == self.key
    }
}

impl Store {
    /// The results of `key`, by result digest. Files that are no record of this key are skipped
    /// ([`Store::verify`] puts them in quarantine). Those that wait for their places come along.
    pub fn records(&self, key: &Digest) -> Result<Vec<Record>, Error> {
        // First: one that is put meanwhile is found in its place.
        let waiting = self.waiting_of(key);
        let mut records = self.placed_records(key)?;
        let known: Vec<_> = records.iter().map(Record::result).collect();
        records.extend(
            waiting
                .into_iter()
                .filter(|record| !known.contains(&record.result())),
        );
        Ok(records)
    }

    fn placed_records(&self, key: &Digest) -> Result<Vec<Record>, Error> {
        let folder = self.key_folder(key);
        let listing = match fs::read_dir(&folder) {
            Ok(listing) => listing,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", &folder)(error)),
        };
        let mut paths: Vec<_> = listing.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let mut records = Vec::new();
        for path in paths {
            let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
            records.extend(parse(&bytes).filter(|record| record.key == *key));
        }
        Ok(records)
    }

    /// Whether a record of this key and result is in the store. Costs one look, no reading.
    pub fn has_record(&self, key: &Digest, result: &Digest) -> bool {
        self.record_path(key, result).exists()
    }

    /// Whether every blob of the record's outputs is in the store, unharmed.
    pub fn present(&self, record: &Record) -> Result<bool, Error> {
        for tree in record.outputs.values() {
            for (_, _, digest, _) in tree.files() {
                if self.condition(&digest)? != Condition::Sound {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Every blob of a record's outputs that is missing or was damaged.
    pub fn lacking(&self, outputs: &BTreeMap<String, Tree>) -> Result<Vec<Lack>, Error> {
        let mut lacks = Vec::new();
        for (product, tree) in outputs {
            for (path, _, digest, _) in tree.files() {
                let cause = match self.condition(&digest)? {
                    Condition::Sound => continue,
                    Condition::Missing => LackCause::Missing,
                    Condition::Damaged => LackCause::Damaged,
                };
                lacks.push(Lack {
                    product: product.clone(),
                    path: path.to_owned(),
                    digest,
                    cause,
                });
            }
        }
        Ok(lacks)
    }

    pub(crate) fn key_folder(&self, key: &Digest) -> PathBuf {
        let hex = key.digits();
        self.below(&["/records/", &hex[..2], "/", &hex])
    }

    pub(crate) fn record_path(&self, key: &Digest, result: &Digest) -> PathBuf {
        let (hex, result) = (key.digits(), result.digits());
        self.below(&["/records/", &hex[..2], "/", &hex, "/", &result, ".json"])
    }
}

/// How a record's text begins: then comes the digest of all that follows. Parts and blobs are
/// named by their digests; metrics, paths and circumstances would be believed with a flipped bit.
const SUM: &[u8] = b"{\"sum\":\"";

/// A record as it lies in a store.
pub(crate) fn text(record: &Record) -> Vec<u8> {
    let plain = serde_json::to_vec(record).expect("a record is plain data");
    let rest = [b"\",", &plain[1..], b"\n"].concat();
    [SUM, Digest::of(&rest).hex().as_bytes(), &rest].concat()
}

/// Whether the bytes are those that their sum was made of. A text without a sum is older than
/// sums are.
fn unharmed(bytes: &[u8]) -> bool {
    let Some(bytes) = bytes.strip_prefix(SUM) else {
        return true;
    };
    let parts = bytes.split_at_checked(Digest::HEX);
    parts.is_some_and(|(sum, rest)| Digest::of(rest).hex().as_bytes() == sum)
}

/// A record that is unharmed, rehashes to its key and whose paths stay below their folder, or
/// nothing.
pub(crate) fn parse(bytes: &[u8]) -> Option<Record> {
    if !unharmed(bytes) {
        return None;
    }
    let record: Record = serde_json::from_slice(bytes).ok()?;
    let below = |path: &str| path.split('/').all(|step| !matches!(step, "" | "." | ".."));
    let folders = record.outputs.values().filter(|tree| tree.is_folder());
    let tame = folders.flat_map(Tree::files).all(|(path, ..)| below(path));
    (tame && record.rehashes()).then_some(record)
}
