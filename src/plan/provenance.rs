//! Which parameters a result comes from: its own key's, and those of the results it was made of,
//! found by content.
//!
//! Promises: reads records alone, so results of other branches and of past runs are as good as
//! today's, as long as they are in the store.

use std::collections::{BTreeMap, BTreeSet};

use cache::{Digest, KeyParts, Record};

/// Parts of a key that say how it is made up, and no parameter.
const MAKEUP: [&str; 2] = ["key", "kind"];

/// Records by what they made.
pub struct Provenance<'a> {
    made: BTreeMap<String, Vec<&'a Record>>,
}

impl<'a> Provenance<'a> {
    /// Over these records.
    pub fn new(records: &'a [Record]) -> Self {
        let mut made: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
        for record in records {
            for tree in record.outputs.values() {
                made.entry(tree.digest().hex()).or_default().push(record);
            }
        }
        // The newest last: where two keys made the same bytes, it counts.
        for records in made.values_mut() {
            records.sort_by(|a, b| a.made.started.cmp(&b.made.started));
        }
        Self { made }
    }

    /// The record of a stage's cell with just these outputs. Where several keys made the same
    /// bytes, the one that read what is `beside` it.
    pub fn of(
        &self,
        stage: &str,
        outputs: &BTreeMap<String, Digest>,
        beside: &BTreeSet<String>,
    ) -> Option<&'a Record> {
        let first = outputs.values().next()?;
        let made = self.made.get(&first.hex())?;
        let same = |record: &&&Record| {
            record.outputs.len() == outputs.len()
                && outputs.iter().all(|(name, digest)| {
                    record.outputs.get(name).map(cache::Tree::digest) == Some(*digest)
                })
        };
        let mut found: Vec<_> = made.iter().filter(same).collect();
        let read = |record: &Record| {
            let inputs = record
                .parts
                .iter()
                .filter(|(name, _)| name.starts_with("input."));
            inputs.filter(|(_, value)| beside.contains(*value)).count()
        };
        found.sort_by_key(|record| (record.made.stage == stage, read(record)));
        found.last().map(|record| **record)
    }

    /// `train.lr` -> its value, for the result of `parts` and everything above it. `cell` is the
    /// bracketed part of the stage's name: of results with equal bytes, that cell's count.
    pub fn parameters(&self, stage: &str, parts: &KeyParts) -> BTreeMap<String, String> {
        let cell = stage.find('[').map_or("", |at| &stage[at..]);
        let mut found = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![(base(stage).to_owned(), parts)];
        while let Some((stage, parts)) = open.pop() {
            for (name, value) in parts.iter() {
                if let Some(port) = name.strip_prefix("input.") {
                    if port.ends_with(".name") || !seen.insert(value.to_owned()) {
                        continue;
                    }
                    let made = self.made.get(value).map_or(&[][..], Vec::as_slice);
                    let same_cell = made
                        .iter()
                        .rfind(|record| record.made.stage.ends_with(cell));
                    if let Some(record) = same_cell.or(made.last()) {
                        open.push((base(&record.made.stage).to_owned(), &record.parts));
                    } else {
                        found.insert(format!("{stage}.{port}"), value.chars().take(12).collect());
                    }
                } else if !MAKEUP.contains(&name) && !name.starts_with("output.") {
                    let field = name.strip_prefix("with.").unwrap_or(name);
                    found
                        .entry(format!("{stage}.{field}"))
                        .or_insert_with(|| value.to_owned());
                }
            }
        }
        found
    }
}

/// A stage's name without its cell.
pub fn base(stage: &str) -> &str {
    stage.split('[').next().unwrap_or(stage)
}
