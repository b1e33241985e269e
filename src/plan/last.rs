//! The last result of every stage under one profile: what "why" is compared with, and what makes
//! a run that does nothing fast.
//!
//! `.tunesmith/last/PROFILE.jsonl`, a line a result behind its sum (`SUM {...}`), appended; the last
//! line of a stage counts. A line with a flipped bit counts as none.
//! Losing it costs reasons ("it has no result yet") and time, never a result.
#![expect(
    clippy::disallowed_types,
    reason = "ten thousand entries are looked up at every start; what is written is sorted"
)]

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cache::{Digest, Glance, Glances, KeyParts, Made, Record, ResultLooks, Tree};
use serde::{Deserialize, Serialize};

use super::error::PlanError;

/// Lines that may be out of date before the file is written anew.
const SLACK: usize = 1000;

/// The last results.
#[derive(Debug)]
pub struct Last {
    file: PathBuf,
    entries: HashMap<String, LastResult>,
    lines: usize,
    /// What another thread sees of their files in the store.
    glances: Glances,
}

/// A record less its parts, which follow from the key's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastResult {
    /// Stage id.
    pub stage: String,
    /// Its key.
    pub key: Digest,
    /// Digest of the outputs, [`Record::result`].
    pub result: Digest,
    /// What it made.
    pub outputs: BTreeMap<String, Tree>,
    /// What it found out.
    pub outcome: serde_json::Value,
    /// When, where and how long.
    pub made: Made,
    /// Whether its bytes were left at the remote.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub distant: bool,
    /// Its number among the results that another thread looks at.
    #[serde(skip)]
    look: Option<usize>,
}

impl LastResult {
    /// Whether it tells of `record`.
    fn is(&self, record: &Record) -> bool {
        let Made {
            started,
            millis,
            host,
            program,
            stage,
            revision,
            accepted,
            // It stays with the record.
            log: _,
        } = &record.made;
        let made = &self.made;
        // The digest of the outputs follows from them.
        self.key == record.key
            && self.outputs == record.outputs
            && self.outcome == record.outcome
            && (&made.started, &made.millis, &made.host) == (started, millis, host)
            && (&made.program, &made.stage, &made.accepted) == (program, stage, accepted)
            && made.revision == *revision
    }

    /// The record, given the parts of its key.
    pub(super) fn record(&self, parts: KeyParts) -> Record {
        Record {
            key: self.key,
            parts,
            outputs: self.outputs.clone(),
            outcome: self.outcome.clone(),
            made: self.made.clone(),
        }
    }
}

impl Last {
    /// The last results under `profile`, of a store at `home`. Lines that do not parse are
    /// skipped.
    pub fn load(home: &Path, profile: &str) -> Self {
        Self::read(Self::path(home, profile))
    }

    /// The last results that changed last: for whoever does not know the profile yet.
    pub fn newest(home: &Path) -> Option<Self> {
        Some(Self::read(newest(home)?))
    }

    /// The profile of [`Last::newest`], for whoever looks at what lies elsewhere under that name.
    pub fn newest_profile(home: &Path) -> Option<String> {
        let file = newest(home)?;
        let name = file.file_stem()?.to_str()?;
        // A name that was written another way is not worth it.
        (file_name(name) == name).then(|| name.to_owned())
    }

    /// The looks at the files of every result in the store at `home`, for another thread to make: the plan
    /// makes those that it needs before.
    pub fn looks(&mut self, home: &Path) -> Option<ResultLooks> {
        let mut looks = ResultLooks::below(home)?;
        for entry in self.entries.values_mut() {
            let outputs = entry.outputs.values();
            entry.look = Some(looks.add(&entry.key, &entry.result, outputs));
        }
        self.glances = looks.glances();
        Some(looks)
    }

    /// What was seen of a result's files in the store, once.
    pub(super) fn glance(&self, entry: &LastResult) -> Option<Glance> {
        self.glances.take(entry.look?)
    }

    /// No look counts any more.
    pub(super) fn forget_glances(&mut self) {
        self.glances.stop();
    }

    /// Whether these are the last results under `profile`, of a store at `home`.
    pub fn is_of(&self, home: &Path, profile: &str) -> bool {
        self.file == Self::path(home, profile)
    }

    fn path(home: &Path, profile: &str) -> PathBuf {
        home.join("last")
            .join(format!("{}.jsonl", file_name(profile)))
    }

    fn read(file: PathBuf) -> Self {
        let bytes = fs::read(&file).unwrap_or_default();
        // As one text: checking it once costs less than checking every string in it. A line that is none
        // fails its sum.
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(&bytes),
        };
        let lines: Vec<_> = text.split('\n').filter(|line| !line.is_empty()).collect();
        // At the right size at once: growing costs more than counting.
        let mut entries = HashMap::with_capacity(lines.len());
        for entry in lines.iter().filter_map(|line| parsed(line)) {
            entries.insert(entry.stage.clone(), entry);
        }
        Self {
            file,
            entries,
            lines: lines.len(),
            glances: Glances::default(),
        }
    }

    /// Every last result under any profile, of a checkout whose state is at `home`.
    pub fn all(home: &Path) -> Vec<LastResult> {
        let files = files(home).into_iter();
        files
            .flat_map(|file| Self::read(file).entries.into_values())
            .collect()
    }

    /// The last result of `stage`.
    pub fn get(&self, stage: &str) -> Option<&LastResult> {
        self.entries.get(stage)
    }

    /// Every last result, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &LastResult> {
        self.entries.values()
    }

    /// Makes `record` the last result of `stage`; writes nothing if it is already. `distant`: its
    /// bytes were left at the remote.
    pub fn set(&mut self, stage: &str, record: &Record, distant: bool) -> Result<(), PlanError> {
        if self
            .entries
            .get(stage)
            .is_some_and(|entry| entry.is(record) && entry.distant == distant)
        {
            return Ok(());
        }
        let entry = LastResult {
            stage: stage.to_owned(),
            key: record.key,
            result: record.result(),
            outputs: record.outputs.clone(),
            outcome: record.outcome.clone(),
            // The log stays with the record: this file is read by every run.
            made: Made {
                log: None,
                ..record.made.clone()
            },
            distant,
            look: None,
        };
        let line = line(&entry);
        self.entries.insert(stage.to_owned(), entry);
        let written = if self.lines > 2 * self.entries.len() + SLACK {
            self.rewrite()
        } else {
            self.append(&line)
        };
        written.map_err(|source| PlanError::Last {
            path: self.file.clone(),
            source,
        })
    }

    fn append(&mut self, line: &str) -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        let mut file = match options.open(&self.file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fs::create_dir_all(self.file.parent().expect("it lies in a folder"))?;
                options.open(&self.file)?
            }
            other => other?,
        };
        self.lines += 1;
        // A line feed first: a line that a killed process left unfinished ends there.
        file.write_all(format!("\n{line}").as_bytes())
    }

    fn rewrite(&mut self) -> std::io::Result<()> {
        let mut lines: Vec<String> = self.entries.values().map(line).collect();
        lines.sort();
        let text = lines.concat();
        let aside = self
            .file
            .with_extension(format!("aside-{}", std::process::id()));
        fs::write(&aside, text)?;
        self.lines = self.entries.len();
        fs::rename(&aside, &self.file)
    }
}

/// The files of last results of a store at `home`, sorted.
fn files(home: &Path) -> Vec<PathBuf> {
    let listing = fs::read_dir(home.join("last"));
    let files = listing.into_iter().flatten().flatten();
    let jsonl = |file: &PathBuf| file.extension().is_some_and(|found| found == "jsonl");
    let mut files: Vec<_> = files.map(|entry| entry.path()).filter(jsonl).collect();
    files.sort();
    files
}

/// The file of them that changed last.
fn newest(home: &Path) -> Option<PathBuf> {
    let dated = |file: PathBuf| Some((fs::metadata(&file).ok()?.modified().ok()?, file));
    let newest = files(home).into_iter().filter_map(dated).max();
    newest.map(|(_, file)| file)
}

fn line(entry: &LastResult) -> String {
    let text = serde_json::to_string(entry).expect("a result is plain data");
    format!("{:016x} {text}\n", sum(text.as_bytes()))
}

/// A line's result, if no bit of it is another. Lines from before there were sums have none.
fn parsed(line: &str) -> Option<LastResult> {
    let text = if line.starts_with('{') {
        line
    } else {
        let (told, text) = (line.get(..16)?, line.get(16..)?.strip_prefix(' ')?);
        let told = u64::from_str_radix(told, 16).ok()?;
        (told == sum(text.as_bytes())).then_some(text)?
    };
    serde_json::from_str(text).ok()
}

/// FNV-1a over eight bytes at a time, turned: every step can be undone, so no single flip stays unseen.
/// The file is read at every start, ten thousand lines of it: a cryptographic digest would take longer
/// than the parsing.
fn sum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, word: u64| (sum.rotate_left(29) ^ word).wrapping_mul(0x0100_0000_01b3);
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let whole = words.fold(0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64, step);
    rest.iter()
        .fold(whole, |sum, byte| step(sum, u64::from(*byte)))
}

/// A profile's name as a file name: two profiles never share one.
fn file_name(profile: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    profile
        .bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02x}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Record {
        let mut parts = KeyParts::new();
        parts.push("text", text);
        Record {
            key: parts.digest(),
            parts,
            outputs: BTreeMap::new(),
            outcome: serde_json::json!({"metrics": {"loss": 0.5}}),
            made: Made::default(),
        }
    }

    #[test]
    fn the_last_line_of_a_stage_counts_and_a_torn_one_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let mut last = Last::load(dir.path(), "laptop");
        last.set("a", &record("1"), false).unwrap();
        last.set("b", &record("2"), false).unwrap();
        last.set("a", &record("3"), false).unwrap();
        let file = dir.path().join("last/laptop.jsonl");
        let whole = fs::read(&file).unwrap();
        let found = |key: &str| {
            let last = Last::load(dir.path(), "laptop");
            last.get(key).map(|entry| entry.key)
        };
        assert_eq!(found("a"), Some(record("3").key));
        for length in 0..whole.len() {
            fs::write(&file, &whole[..length]).unwrap();
            let mut last = Last::load(dir.path(), "laptop");
            last.set("c", &record("4"), false).unwrap();
            assert_eq!(found("c"), Some(record("4").key), "cut at {length}");
        }
        assert_eq!(found("b"), Some(record("2").key));
    }

    #[test]
    fn a_line_with_a_flipped_bit_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut last = Last::load(dir.path(), "p");
        last.set("a", &record("1"), false).unwrap();
        let file = dir.path().join("last/p.jsonl");
        let whole = fs::read(&file).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, &flipped).unwrap();
            let found = Last::load(dir.path(), "p");
            let same = found.get("a") == last.get("a");
            assert!(same || found.iter().next().is_none(), "bit {bit}");
        }
        // As older builds wrote it.
        let text = String::from_utf8(whole).unwrap();
        let text = text.trim().split_once(' ').unwrap().1;
        fs::write(&file, text).unwrap();
        assert_eq!(Last::load(dir.path(), "p").get("a"), last.get("a"));
    }

    #[test]
    fn what_is_known_already_is_not_written_and_old_lines_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut last = Last::load(dir.path(), "p");
        let file = dir.path().join("last/p.jsonl");
        for round in 0..2500 {
            last.set("a", &record(&(round / 2).to_string()), false)
                .unwrap();
        }
        let lines = fs::read_to_string(&file).unwrap();
        assert!(lines.lines().filter(|line| !line.is_empty()).count() < 1010);
        let before = fs::metadata(&file).unwrap().len();
        last.set("a", &record("1249"), false).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().len(), before);
        let last = Last::load(dir.path(), "p");
        assert_eq!(last.get("a").unwrap().key, record("1249").key);
    }

    #[test]
    fn without_a_profile_those_that_changed_last_are_meant() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Last::newest(dir.path()).is_none());
        for (profile, seconds) in [("a", 1), ("b", 3), ("c", 2)] {
            let mut last = Last::load(dir.path(), profile);
            last.set("s", &record(profile), false).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            fs::File::open(&last.file)
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        let newest = Last::newest(dir.path()).unwrap();
        assert_eq!(newest.get("s").unwrap().key, record("b").key);
        assert!(newest.is_of(dir.path(), "b"));
        assert!(!newest.is_of(dir.path(), "a"));
    }

    #[test]
    fn two_profiles_never_share_a_file() {
        assert_eq!(file_name("mistral-7b"), "mistral-7b");
        assert_ne!(file_name("a/b"), file_name("a_b"));
        assert_eq!(file_name("../x"), "%2e%2e%2fx");
    }
}
