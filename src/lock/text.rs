//! The entries as text: every fault of it with its line; the same text from the same entries.

use std::path::Path;

use cache::Digest;

use super::Lock;
use super::line::{line, split};
use crate::config::{Fault, Faults};

const HEADER: &str = "# What the last run resolved. Written by tunesmith; commit it.\n";

/// Code, message, mend.
type Wrong = (&'static str, String, &'static str);

impl Lock {
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

    /// The text of the file.
    pub fn text(&self) -> String {
        let source = |(id, pin): (&String, &String)| line(&["source", id], pin);
        let mut lines: Vec<String> = self.sources.iter().map(source).collect();
        for (profile, stage, outputs) in self.results.iter() {
            let result = |(product, digest): (&String, &Digest)| {
                line(&["result", profile, stage, product], &digest.hex())
            };
            lines.extend(outputs.iter().map(result));
        }
        for (profile, stage, key) in self.accepted.iter() {
            lines.push(line(&["accepted", profile, stage], &key.hex()));
        }
        lines.sort();
        format!("{HEADER}{}", lines.concat())
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
        let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
        let twice = match *path {
            ["source", id] => {
                let value = value.into_owned();
                self.sources.insert(id.to_owned(), value).is_some()
            }
            ["accepted", profile, stage] => {
                let key = digest(&value)?;
                self.accepted.insert(profile, stage, key).is_some()
            }
            ["result", profile, stage, product] => {
                let digest = digest(&value)?;
                let outputs = self.results.entry(profile, stage);
                outputs.insert(product.to_owned(), digest).is_some()
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
