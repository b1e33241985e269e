//! `tunesmith cache du`: how much is stored, by stage and kind.

use std::collections::BTreeMap;

use cache::{Amount, RecordUsage, Store, Usage};
use serde_json::{Value, json};

use super::exit::{Exit, Trouble};
use crate::report::screen;
use crate::report::words::{bytes, count};

/// Results of one stage and kind.
#[derive(Default)]
struct Row {
    results: usize,
    accepted: usize,
    bytes: u64,
    alone: u64,
}

pub(super) fn usage(store: &Store, json: bool) -> Result<Exit, Trouble> {
    let usage = store.usage()?;
    screen::say(&if json { line(&usage) } else { page(&usage) });
    Ok(Exit::Ok)
}

/// Bytes of everything.
fn all(usage: &Usage) -> u64 {
    usage.blobs.bytes + usage.checkpoints.bytes + usage.kept.bytes + usage.quarantine.bytes
}

fn line(usage: &Usage) -> String {
    let stages = rows(&usage.records)
        .into_iter()
        .map(|((stage, kind), row)| {
            json!({
                "stage": stage, "kind": kind, "results": row.results, "accepted": row.accepted,
                "bytes": row.bytes, "own": row.alone,
            })
        });
    let amount = |amount: Amount| json!({ "count": amount.count, "bytes": amount.bytes });
    let told = json!({
        "stages": stages.collect::<Vec<Value>>(), "records": usage.records.len(),
        "blobs": amount(usage.blobs), "loose": amount(usage.loose),
        "checkpoints": amount(usage.checkpoints), "kept": amount(usage.kept),
        "quarantine": amount(usage.quarantine), "bytes": all(usage),
    });
    format!("{told}\n")
}

fn page(usage: &Usage) -> String {
    let mut text = table(&usage.records);
    let mut line = |what: &str, amount: Amount, noun: &str| {
        if amount.count > 0 {
            let of = count(amount.count, noun);
            text.push_str(&format!("{what}: {} in {of}\n", bytes(amount.bytes)));
        }
    };
    line("copies of inputs, named by no result", usage.loose, "blob");
    line("checkpoints", usage.checkpoints, "folder");
    line("paid answers, never collected", usage.kept, "file");
    line("quarantine", usage.quarantine, "file");
    text.push_str(&format!(
        "in all: {} in {}, {}\n",
        bytes(all(usage)),
        count(usage.blobs.count, "blob"),
        count(usage.records.len(), "record"),
    ));
    text
}

/// Results by stage and kind, the largest first.
fn rows(records: &[RecordUsage]) -> Vec<((String, String), Row)> {
    let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
    for used in records {
        let kind = used.record.parts.get("kind").unwrap_or("?").to_owned();
        let stage = match &*used.record.made.stage {
            "" => "?".to_owned(),
            stage => stage.to_owned(),
        };
        let row = rows.entry((stage, kind)).or_default();
        row.results += 1;
        row.accepted += usize::from(used.record.made.accepted);
        row.bytes += used.bytes;
        row.alone += used.alone;
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.bytes));
    rows
}

/// A line a stage; nothing where there is no result.
fn table(records: &[RecordUsage]) -> String {
    let rows = rows(records);
    if rows.is_empty() {
        return String::new();
    }
    let width = |name: &str, of: fn(&(String, String)) -> &str| {
        let longest = rows
            .iter()
            .map(|(names, _)| of(names).chars().count())
            .max();
        longest.unwrap_or(0).max(name.len())
    };
    let (wide, kinds) = (
        width("stage", |names| &names.0),
        width("kind", |names| &names.1),
    );
    let mut text = format!(
        "{:wide$}  {:kinds$}  {:>7}  {:>9}  {:>9}\n",
        "stage", "kind", "results", "size", "its own"
    );
    for ((stage, kind), row) in &rows {
        let accepted = match row.accepted {
            0 => String::new(),
            some => format!("  {some} accepted"),
        };
        text.push_str(&format!(
            "{stage:wide$}  {kind:kinds$}  {:>7}  {:>9}  {:>9}{accepted}\n",
            row.results,
            bytes(row.bytes),
            bytes(row.alone),
        ));
    }
    text
}
