//! `pipeline.lock`: what the last run resolved, one field a line, sorted, committed to git.
//!
//! ```text
//! accepted.laptop.train = "41d0…"
//! result.laptop.train.adapter = "9f2c…"
//! source."hub:glaiveai/glaive-function-calling-v2@main" = "e7f4b645…"
//! ```
//!
//! Promises: a `source` pin is shared by all profiles, a `result` belongs to one; reading gives
//! every fault with its line; writing changes only the entries that a run settled, in one step,
//! even with two runs at once. The lines are TOML, for tools that like it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use cache::Digest;

use crate::config::{Fault, Faults};

/// The name of the file, beside `pipeline.yaml`.
pub const FILE_NAME: &str = "pipeline.lock";

const HEADER: &str = "# What the last run resolved. Written by tunesmith; commit it.\n";

/// The entries of a lock file, or of a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    sources: BTreeMap<String, String>,
    /// (profile, stage) -> output name -> tree digest.
    results: BTreeMap<(String, String), BTreeMap<String, Digest>>,
    /// (profile, stage) -> the key whose result a person vouches for.
    accepted: BTreeMap<(String, String), Digest>,
}

/// Why the lock file could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It does not parse (any more).
    #[error(transparent)]
    Faults(#[from] Faults),
    /// The file system refused.
    #[error("cannot write `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Lock {
    /// Reads a lock file; one that is not there is empty.
    pub fn load(file: &Path) -> Result<Self, Faults> {
        match fs::read_to_string(file) {
            Ok(text) => Self::parse(file, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => {
                let fault = Fault::nowhere("lock::unreadable", format!("cannot be read: {error}"))
                    .mend("check the file, or delete it and run again");
                Err(Faults::new(file, "", vec![fault]))
            }
        }
    }

    /// Reads the text of a lock file.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Faults> {
        let mut lock = Self::default();
        let mut faults = Vec::new();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let body = line.trim_end();
            let span = start..start + body.len();
            start += line.len();
            if body.trim_start().is_empty() || body.trim_start().starts_with('#') {
                continue;
            }
            if let Err((code, message, mend)) = lock.read_line(body) {
                faults.push(Fault::at(&span, code, message).label("here").mend(mend));
            }
        }
        if faults.is_empty() {
            Ok(lock)
        } else {
            Err(Faults::new(file, text, faults))
        }
    }

    /// What an outside source resolved to.
    pub fn source(&self, id: &str) -> Option<&str> {
        self.sources.get(id).map(String::as_str)
    }

    /// The digests of a stage's outputs under a profile.
    pub fn results(&self, profile: &str, stage: &str) -> Option<&BTreeMap<String, Digest>> {
        // Two short copies: a lookup by borrowed pair is not worth a type of its own.
        self.results.get(&(profile.to_owned(), stage.to_owned()))
    }

    /// Stages with their outputs under a profile.
    pub fn stages(&self, profile: &str) -> impl Iterator<Item = (&str, &BTreeMap<String, Digest>)> {
        let results = self.results.iter();
        let results = results.filter(move |((of, _), _)| of == profile);
        results.map(|((_, stage), outputs)| (stage.as_str(), outputs))
    }

    /// Forgets what a source resolved to; whether it was there.
    pub fn forget_source(&mut self, id: &str) -> bool {
        self.sources.remove(id).is_some()
    }

    /// Forgets the results of stages that `known` does not name under a profile; which.
    pub fn keep_stages(&mut self, profile: &str, known: impl Fn(&str) -> bool) -> Vec<String> {
        let goes = |(of, stage): &(String, String)| of == profile && !known(stage);
        let gone = self.results.keys().filter(|name| goes(name));
        let gone: Vec<String> = gone.map(|(_, stage)| stage.clone()).collect();
        self.results.retain(|name, _| !goes(name));
        self.accepted.retain(|name, _| !goes(name));
        gone
    }

    /// Replaces the file by these entries, in one step.
    pub fn save(&self, file: &Path) -> Result<(), LockError> {
        let io = |source| LockError::Io {
            path: file.to_owned(),
            source,
        };
        let guard = File::open(folder_of(file)).map_err(io)?;
        guard.lock().map_err(io)?;
        self.write(file).map_err(io)
    }

    /// The outputs of every stage under any profile.
    pub fn all_results(&self) -> impl Iterator<Item = &BTreeMap<String, Digest>> {
        self.results.values()
    }

    /// The key whose result somebody accepted by hand, if the stage's result is such a one.
    pub fn accepted(&self, profile: &str, stage: &str) -> Option<Digest> {
        let name = (profile.to_owned(), stage.to_owned());
        self.accepted.get(&name).copied()
    }

    /// Says that the stage's result was accepted by hand for this key, or that it was not.
    pub fn set_accepted(&mut self, profile: &str, stage: &str, key: Option<Digest>) {
        let name = (profile.to_owned(), stage.to_owned());
        match key {
            Some(key) => self.accepted.insert(name, key),
            None => self.accepted.remove(&name),
        };
    }

    /// Pins a source.
    pub fn set_source(&mut self, id: &str, pin: &str) {
        self.sources.insert(id.to_owned(), pin.to_owned());
    }

    /// Sets the outputs of a stage; outputs that it no longer has are dropped.
    pub fn set_results(&mut self, profile: &str, stage: &str, outputs: BTreeMap<String, Digest>) {
        let name = (profile.to_owned(), stage.to_owned());
        self.results.insert(name, outputs);
    }

    /// Forgets the outputs of a stage.
    pub fn forget_results(&mut self, profile: &str, stage: &str) {
        let name = (profile.to_owned(), stage.to_owned());
        self.results.remove(&name);
        self.accepted.remove(&name);
    }

    /// Takes over every entry of `newer`.
    pub fn merge(&mut self, newer: &Self) {
        self.sources.extend(newer.sources.clone());
        self.results.extend(newer.results.clone());
        for name in newer.results.keys() {
            self.accepted.remove(name);
        }
        self.accepted.extend(newer.accepted.clone());
    }

    /// The sources alone.
    pub fn pins(&self) -> Self {
        Self {
            sources: self.sources.clone(),
            ..Self::default()
        }
    }

    /// Whether every entry of `part` stands here with the same value: then there is nothing to
    /// write.
    pub fn contains(&self, part: &Self) -> bool {
        let sources = part
            .sources
            .iter()
            .all(|(id, pin)| self.sources.get(id) == Some(pin));
        let same = |(name, outputs)| {
            self.results.get(name) == Some(outputs)
                && self.accepted.get(name) == part.accepted.get(name)
        };
        sources && part.results.iter().all(same)
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let source = |(id, pin): (&String, &String)| line(&["source", id], pin);
        let mut lines: Vec<String> = self.sources.iter().map(source).collect();
        for ((profile, stage), outputs) in &self.results {
            let result = |(product, digest): (&String, &Digest)| {
                line(&["result", profile, stage, product], &digest.hex())
            };
            lines.extend(outputs.iter().map(result));
        }
        for ((profile, stage), key) in &self.accepted {
            lines.push(line(&["accepted", profile, stage], &key.hex()));
        }
        lines.sort();
        format!("{HEADER}{}", lines.concat())
    }

    /// Brings the file up to date with what a run settled; `false` when it was already.
    pub fn update(file: &Path, settled: &Self) -> Result<bool, LockError> {
        let io = |source| LockError::Io {
            path: file.to_owned(),
            source,
        };
        // Two runs may end together: the folder's lock makes reading and writing one step.
        let guard = File::open(folder_of(file)).map_err(io)?;
        guard.lock().map_err(io)?;
        let mut lock = Self::load(file)?;
        if lock.contains(settled) {
            return Ok(false);
        }
        lock.merge(settled);
        lock.write(file).map_err(io)?;
        Ok(true)
    }

    /// Writes the file; whoever calls holds the folder's lock.
    fn write(&self, file: &Path) -> io::Result<()> {
        let aside = folder_of(file).join(format!(".{FILE_NAME}.aside"));
        let write = || {
            let mut written = File::create(&aside)?;
            written.write_all(self.text().as_bytes())?;
            written.sync_all()?;
            fs::rename(&aside, file)
        };
        write().inspect_err(|_| {
            let _ = fs::remove_file(&aside);
        })
    }

    fn read_line(&mut self, line: &str) -> Result<(), Wrong> {
        if ["<<<<<<<", "=======", ">>>>>>>", "|||||||"]
            .iter()
            .any(|mark| line.starts_with(mark))
        {
            let message = "a merge conflict is not resolved".to_owned();
            return Err((
                "lock::conflict",
                message,
                "keep either side, then run again",
            ));
        }
        let (path, value) = split(line).ok_or_else(|| {
            let message = "this is no line of a lock file".to_owned();
            (
                "lock::syntax",
                message,
                "write `name = \"value\"`, or delete the line and run again",
            )
        })?;
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let twice = match *path {
            ["source", id] => self.sources.insert(id.to_owned(), value).is_some(),
            ["accepted", profile, stage] => {
                let name = (profile.to_owned(), stage.to_owned());
                self.accepted.insert(name, digest(&value)?).is_some()
            }
            ["result", profile, stage, product] => {
                let digest = digest(&value)?;
                let outputs = self.results.entry((profile.to_owned(), stage.to_owned()));
                outputs
                    .or_default()
                    .insert(product.to_owned(), digest)
                    .is_some()
            }
            _ => {
                let message = format!("unknown entry `{}`", path.join("."));
                let mend = "entries are `source.ID`, `result.PROFILE.STAGE.OUTPUT` and \
                            `accepted.PROFILE.STAGE`: \
                            a newer tunesmith may have written it";
                return Err(("lock::unknown-entry", message, mend));
            }
        };
        if twice {
            let message = format!("`{}` stands here a second time", path.join("."));
            return Err(("lock::duplicate", message, "keep one of the two lines"));
        }
        Ok(())
    }
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Code, message, mend.
type Wrong = (&'static str, String, &'static str);

fn digest(value: &str) -> Result<Digest, Wrong> {
    let bad = |bad: cache::BadDigest| {
        (
            "lock::digest",
            bad.to_string(),
            "delete the line and run again",
        )
    };
    value.parse().map_err(bad)
}

fn line(path: &[&str], value: &str) -> String {
    let path: Vec<String> = path.iter().map(|step| bare_or_quoted(step)).collect();
    format!("{} = {}\n", path.join("."), quoted(value))
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

fn bare_or_quoted(step: &str) -> String {
    if !step.is_empty() && step.bytes().all(is_bare) {
        step.to_owned()
    } else {
        quoted(step)
    }
}

/// A JSON string: also a TOML one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Reads `a."b c" = "value"` as the steps `a`, `b c` and the value.
fn split(line: &str) -> Option<(Vec<String>, String)> {
    let mut rest = line.trim_start();
    let mut path = Vec::new();
    loop {
        let step;
        (step, rest) = if rest.starts_with('"') {
            string(rest)?
        } else {
            let end = rest.bytes().position(|byte| !is_bare(byte))?;
            (end > 0).then(|| (rest[..end].to_owned(), &rest[end..]))?
        };
        path.push(step);
        match rest.strip_prefix('.') {
            Some(next) => rest = next,
            None => break,
        }
    }
    let (value, rest) = string(rest.trim_start().strip_prefix('=')?.trim_start())?;
    rest.trim().is_empty().then_some((path, value))
}

/// The quoted text that `text` begins with, and what follows.
fn string(text: &str) -> Option<(String, &str)> {
    let mut read = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let value = read.next()?.ok()?;
    let end = read.byte_offset();
    text.starts_with('"').then(|| (value, &text[end..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn faults(text: &str) -> String {
        let faults = Lock::parse(Path::new("pipeline.lock"), text).unwrap_err();
        faults.to_string()
    }

    #[test]
    fn lines_are_sorted_and_quoted_only_where_they_must() {
        let mut lock = Lock::default();
        lock.set_source("hub:o/d@main", "e7f4");
        lock.set_source("plain", "1");
        let outputs = BTreeMap::from([("adapter".to_owned(), digest("a"))]);
        lock.set_results("laptop", "train", outputs);
        insta::assert_snapshot!(lock.text(), @r#"
        # What the last run resolved. Written by tunesmith; commit it.
        result.laptop.train.adapter = "17762fddd969a453925d65717ac3eea21320b66b54342fde15128d6caf21215f"
        source."hub:o/d@main" = "e7f4"
        source.plain = "1"
        "#);
    }

    #[test]
    fn every_fault_has_its_line() {
        let text = "# fine\n\nsource.a = \"1\"\nsource.a = \"2\"\n<<<<<<< ours\nresult.p.s.o = \"xyz\"\n\
                    result.p.s = \"1\"\nnonsense\nsource.b = \"1\" tail\n=======\n";
        insta::assert_snapshot!(faults(text), @r"
        pipeline.lock:4:1: lock::duplicate: `source.a` stands here a second time
        pipeline.lock:5:1: lock::conflict: a merge conflict is not resolved
        pipeline.lock:6:1: lock::digest: `xyz` is not a digest (64 lowercase hex digits)
        pipeline.lock:7:1: lock::unknown-entry: unknown entry `result.p.s`
        pipeline.lock:8:1: lock::syntax: this is no line of a lock file
        pipeline.lock:9:1: lock::syntax: this is no line of a lock file
        pipeline.lock:10:1: lock::conflict: a merge conflict is not resolved
        ");
    }

    #[test]
    fn an_update_touches_only_what_was_settled() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE_NAME);
        let mut mine = Lock::default();
        mine.set_source("a", "1");
        mine.set_results("p", "s", BTreeMap::from([("x".to_owned(), digest("x"))]));
        assert!(Lock::update(&file, &mine).unwrap());
        assert!(!Lock::update(&file, &mine).unwrap());

        let mut theirs = Lock::default();
        theirs.set_results("q", "s", BTreeMap::from([("y".to_owned(), digest("y"))]));
        assert!(Lock::update(&file, &theirs).unwrap());
        let both = Lock::load(&file).unwrap();
        assert!(both.contains(&mine) && both.contains(&theirs));

        // An output that was renamed leaves no line behind.
        theirs.set_results("q", "s", BTreeMap::from([("z".to_owned(), digest("y"))]));
        Lock::update(&file, &theirs).unwrap();
        let names = Lock::load(&file).unwrap();
        let names: Vec<_> = names.results("q", "s").unwrap().keys().cloned().collect();
        assert_eq!(names, ["z"]);
    }

    #[test]
    fn runs_that_end_together_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE_NAME);
        std::thread::scope(|scope| {
            for number in 0..16 {
                let file = &file;
                scope.spawn(move || {
                    let mut part = Lock::default();
                    part.set_source(&format!("s{number}"), "1");
                    Lock::update(file, &part).unwrap();
                });
            }
        });
        let lock = Lock::load(&file).unwrap();
        assert!((0..16).all(|number| lock.source(&format!("s{number}")).is_some()));
    }

    proptest! {
        #[test]
        fn any_lock_survives_its_text(
            sources in prop::collection::btree_map(".*", ".*", 0..4),
            results in prop::collection::btree_map((".*", ".*"), prop::collection::btree_map(".*", ".*", 1..3), 0..4),
        ) {
            let mut lock = Lock::default();
            for (id, pin) in &sources {
                lock.set_source(id, pin);
            }
            for ((profile, stage), outputs) in results {
                let outputs = outputs.into_iter().map(|(name, text)| (name, digest(&text)));
                lock.set_results(&profile, &stage, outputs.collect());
            }
            let text = lock.text();
            prop_assert_eq!(Lock::parse(Path::new("x"), &text), Ok(lock.clone()));
            prop_assert_eq!(lock.text(), text);
        }

        #[test]
        fn any_text_is_a_lock_or_refused_with_lines(text in "[a-z.=\"<# \n\\\\]{0,60}") {
            if let Err(faults) = Lock::parse(Path::new("x"), &text) {
                prop_assert!(faults.items.iter().all(|fault| fault.span.is_some()));
            }
        }
    }
}
