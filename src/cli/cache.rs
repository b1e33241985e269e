//! `tunesmith cache verify | du | gc | push | pull`

use std::collections::BTreeMap;
use std::time::Duration;

use cache::{Amount, Bounds, FaultKind, RecordUsage, Store};
use clap::{Args, Subcommand};

use super::Common;
use super::exit::{Exit, Trouble};
use super::remote;
use crate::config::StoreSpec;
use crate::report::words::{bytes, count};
use crate::report::{screen, shown_path};
use crate::run::{Needs, bounds, dropped, open_store};

#[derive(Args, Clone, Debug)]
pub(super) struct CacheArgs {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum CacheCommand {
    /// Rehash everything that is stored; exit code 1 if something is damaged
    Verify,
    /// Show how much is stored, by stage and kind
    Du {
        /// Show how much is at the remote instead (lists all of it)
        #[arg(long)]
        remote: bool,
    },
    /// Put the present results of stages to the remote; all, if none is named
    Push {
        /// The stages
        #[arg(value_name = "STAGE")]
        stages: Vec<String>,
    },
    /// Fetch results of stages from the remote into the store; all, if none is named
    Pull {
        /// The stages
        #[arg(value_name = "STAGE")]
        stages: Vec<String>,
    },
    /// Drop what is old or too much, and needed by no lock file and no last result
    Gc {
        /// Drop what was not used for so many days [default: `store.max_age`, else 30]
        #[arg(long, value_name = "DAYS")]
        days: Option<u32>,
        /// Drop the longest unused until the store holds no more than this, `20GB` [default:
        /// `store.max_size`, else 100 GB]
        #[arg(long, value_name = "SIZE", value_parser = size)]
        size: Option<u64>,
        /// Only say what would be dropped
        #[arg(long)]
        dry_run: bool,
    },
}

fn size(text: &str) -> Result<u64, String> {
    StoreSpec::size(text).ok_or_else(|| "write a number and its unit, `20GB`".to_owned())
}

pub(super) fn cache(common: &Common, args: &CacheArgs) -> Result<Exit, Trouble> {
    match &args.command {
        CacheCommand::Push { stages } => return remote::push(common, stages),
        CacheCommand::Pull { stages } => return remote::pull(common, stages),
        CacheCommand::Du { remote: true } => return remote::usage(common),
        _ => {}
    }
    let (pipeline, _) = common.pipeline()?;
    let (store, spec, _) = open_store(&pipeline, None)?;
    match args.command {
        CacheCommand::Verify => verify(&store),
        CacheCommand::Du { .. } => usage(&store),
        CacheCommand::Push { .. } | CacheCommand::Pull { .. } => unreachable!("handled above"),
        CacheCommand::Gc {
            days,
            size,
            dry_run,
        } => {
            let mut bounds = bounds(&spec);
            if let Some(days) = days {
                bounds.age = Duration::from_hours(u64::from(days) * 24);
            }
            bounds.bytes = size.unwrap_or(bounds.bytes);
            let needs = Needs::look(&pipeline, &store)?;
            collect(&store, &needs, bounds, dry_run)
        }
    }
}

fn verify(store: &Store) -> Result<Exit, Trouble> {
    let found = store.verify()?;
    let mut text = String::new();
    let mut bad = 0;
    for fault in &found.faults {
        let path = shown_path(&fault.path);
        let path = path.display();
        text.push_str(&match &fault.kind {
            FaultKind::BadBlob => format!("  damaged, put in quarantine: {path}\n"),
            FaultKind::BadRecord => format!("  no record, put in quarantine: {path}\n"),
            FaultKind::Incomplete { missing } => format!(
                "  lacks {}, its stage will run again when needed: {path}\n",
                missing.short()
            ),
        });
        bad += usize::from(!matches!(fault.kind, FaultKind::Incomplete { .. }));
    }
    text.push_str(&format!(
        "{} and {} ({}) read: {}\n",
        count(found.blobs, "blob"),
        count(found.records, "record"),
        bytes(found.bytes),
        if bad == 0 {
            "all as they were stored".to_owned()
        } else {
            format!("{bad} damaged")
        }
    ));
    screen::say(&text);
    Ok(if bad == 0 { Exit::Ok } else { Exit::Failed })
}

/// Results of one stage and kind.
#[derive(Default)]
struct Row {
    results: usize,
    accepted: usize,
    bytes: u64,
    alone: u64,
}

fn usage(store: &Store) -> Result<Exit, Trouble> {
    let usage = store.usage()?;
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
        bytes(
            usage.blobs.bytes + usage.checkpoints.bytes + usage.kept.bytes + usage.quarantine.bytes
        ),
        count(usage.blobs.count, "blob"),
        count(usage.records.len(), "record"),
    ));
    screen::say(&text);
    Ok(Exit::Ok)
}

/// A line a stage, the largest first; nothing where there is no result.
fn table(records: &[RecordUsage]) -> String {
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
    if rows.is_empty() {
        return String::new();
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.bytes));
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

fn collect(store: &Store, needs: &Needs, bounds: Bounds, dry_run: bool) -> Result<Exit, Trouble> {
    let collected = if dry_run {
        store.would_collect(bounds, |record| needs.hold(record))?
    } else {
        let collected = store.collect(bounds, |record| needs.hold(record))?;
        needs.write_down(store)?;
        collected
    };
    let mut text = String::new();
    for (_, notice) in &needs.notices {
        text.push_str(&format!("{notice}\n"));
    }
    text.push_str(&format!(
        "{} {}\n  {} stay: {} needed by lock files and last results\n",
        if dry_run { "would drop" } else { "dropped" },
        dropped(&collected),
        bytes(collected.left),
        count(collected.needed, "record"),
    ));
    screen::say(&text);
    Ok(Exit::Ok)
}
