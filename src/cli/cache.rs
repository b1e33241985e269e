//! `tunesmith cache verify | du | gc | push | pull`

use std::time::Duration;

use cache::{Bounds, Collected, Fault, FaultKind, Store, Verification};
use clap::{Args, Subcommand};
use serde_json::json;

use super::Common;
use super::exit::{Exit, Trouble};
use super::{remote, usage};
use crate::config::StoreSpec;
use crate::report::words::{bytes, count};
use crate::report::{screen, shown_path};
use crate::run::{Needs, bounds, dropped, open_store};

#[derive(Args, Clone, Debug)]
pub(super) struct CacheArgs {
    #[command(subcommand)]
    command: CacheCommand,
    /// Tell it as JSON lines
    #[arg(long, global = true)]
    pub(super) json: bool,
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
    let json = args.json;
    match &args.command {
        CacheCommand::Push { stages } => return remote::push(common, stages, json),
        CacheCommand::Pull { stages } => return remote::pull(common, stages, json),
        CacheCommand::Du { remote: true } => return remote::usage(common, json),
        _ => {}
    }
    let (pipeline, _) = common.pipeline()?;
    let (store, spec, _) = open_store(&pipeline, None)?;
    match args.command {
        CacheCommand::Verify => verify(&store, json),
        CacheCommand::Du { .. } => usage::usage(&store, json),
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
            let collected = collect(&store, &needs, bounds, dry_run)?;
            screen::say(&if json {
                collected_json(&needs, &collected, dry_run)
            } else {
                collected_text(&needs, &collected, dry_run)
            });
            Ok(Exit::Ok)
        }
    }
}

fn verify(store: &Store, json: bool) -> Result<Exit, Trouble> {
    let found = store.verify()?;
    let lost = |fault: &&Fault| !matches!(fault.kind, FaultKind::Incomplete { .. });
    let bad = found.faults.iter().filter(lost).count();
    screen::say(&if json {
        verified_json(&found, bad)
    } else {
        verified_text(&found, bad)
    });
    Ok(if bad == 0 { Exit::Ok } else { Exit::Failed })
}

fn verified_text(found: &Verification, bad: usize) -> String {
    let mut text = String::new();
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
    text
}

fn verified_json(found: &Verification, bad: usize) -> String {
    let faults = found.faults.iter().map(|fault| {
        let (kind, missing) = match &fault.kind {
            FaultKind::BadBlob => ("blob", None),
            FaultKind::BadRecord => ("record", None),
            FaultKind::Incomplete { missing } => ("incomplete", Some(missing.hex())),
        };
        json!({ "kind": kind, "path": shown_path(&fault.path), "missing": missing })
    });
    let told = json!({
        "blobs": found.blobs, "records": found.records, "bytes": found.bytes, "damaged": bad,
        "faults": faults.collect::<Vec<_>>(),
    });
    format!("{told}\n")
}

fn collect(
    store: &Store,
    needs: &Needs,
    bounds: Bounds,
    dry_run: bool,
) -> Result<Collected, Trouble> {
    if dry_run {
        return Ok(store.would_collect(bounds, |record| needs.hold(record))?);
    }
    let collected = store.collect(bounds, |record| needs.hold(record))?;
    needs.write_down(store)?;
    Ok(collected)
}

fn collected_text(needs: &Needs, collected: &Collected, dry_run: bool) -> String {
    let mut text = String::new();
    for (_, notice) in &needs.notices {
        text.push_str(&format!("{notice}\n"));
    }
    text.push_str(&format!(
        "{} {}\n  {} stay: {} needed by lock files and last results\n",
        if dry_run { "would drop" } else { "dropped" },
        dropped(collected),
        bytes(collected.left),
        count(collected.needed, "record"),
    ));
    text
}

fn collected_json(needs: &Needs, collected: &Collected, dry_run: bool) -> String {
    let notices = needs.notices.iter();
    let notices = notices.map(|(code, text)| json!({ "code": code, "message": text }));
    let told = json!({
        "dry_run": dry_run, "records": collected.records, "blobs": collected.blobs,
        "checkpoints": collected.checkpoints, "quarantined": collected.quarantined,
        "bytes": collected.bytes, "left": collected.left, "needed": collected.needed,
        "notices": notices.collect::<Vec<_>>(),
    });
    format!("{told}\n")
}
