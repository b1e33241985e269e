//! `tunesmith explain A B`: what changed between two runs, stage by stage.

use std::collections::BTreeMap;

use cache::{KeyParts, PartDifference};
use serde_json::json;

use super::paint::Paint;
use crate::plan::Reason;

/// One stage in both runs.
pub struct Both {
    /// Its name.
    pub stage: String,
    /// What changed.
    pub change: Change,
}

/// What changed in a stage.
pub enum Change {
    /// It is in one run alone: the second, or the first.
    Only {
        /// Whether that is the second.
        second: bool,
    },
    /// Parts of its key.
    Parts(Vec<PartDifference>),
    /// The keys differ, and the record of one is gone from the store.
    Unknown,
}

/// The stages that differ. Keys by stage of both runs, and the parts of a key.
pub fn between(
    first: &BTreeMap<String, String>,
    second: &BTreeMap<String, String>,
    parts: impl Fn(&str) -> Option<KeyParts>,
) -> Vec<Both> {
    let mut found = Vec::new();
    let names = first
        .keys()
        .chain(second.keys().filter(|name| !first.contains_key(*name)));
    for stage in names {
        let change = match (first.get(stage), second.get(stage)) {
            (Some(old), Some(new)) if old == new => continue,
            (Some(old), Some(new)) => match (parts(old), parts(new)) {
                (Some(old), Some(new)) => Change::Parts(new.since(&old)),
                _ => Change::Unknown,
            },
            (old, _) => Change::Only {
                second: old.is_none(),
            },
        };
        let stage = stage.clone();
        found.push(Both { stage, change });
    }
    found
}

/// For people.
pub fn text(runs: (u64, u64), stages: &[Both]) -> String {
    let paint = Paint::for_stdout();
    let (a, b) = runs;
    if stages.is_empty() {
        return format!("run {a} and run {b} had the same keys\n");
    }
    let width = stages
        .iter()
        .map(|both| both.stage.chars().count())
        .max()
        .unwrap_or(0);
    let mut out = format!("from run {a} to run {b}\n\n");
    for both in stages {
        let lines = match &both.change {
            Change::Only { second: true } => vec![format!("only in run {b}")],
            Change::Only { second: false } => vec![format!("only in run {a}")],
            Change::Unknown => {
                vec!["its key changed; a record of it is no longer in the store".to_owned()]
            }
            Change::Parts(parts) => parts
                .iter()
                .map(|part| Reason::Changed(part.clone()).to_string())
                .collect(),
        };
        for (at, line) in lines.iter().enumerate() {
            let name = if at == 0 { both.stage.as_str() } else { "" };
            out.push_str(&format!(
                "  {}  {line}\n",
                paint.bold(&format!("{name:width$}"))
            ));
        }
    }
    out
}

/// A JSON line a stage.
pub fn json(stages: &[Both]) -> String {
    let line = |both: &Both| {
        let told = match &both.change {
            Change::Only { second } => {
                json!({ "stage": both.stage, "only_in": if *second { "second" } else { "first" } })
            }
            Change::Parts(parts) => json!({ "stage": both.stage, "parts": parts }),
            Change::Unknown => json!({ "stage": both.stage, "parts": null }),
        };
        format!("{told}\n")
    };
    stages.iter().map(line).collect()
}
