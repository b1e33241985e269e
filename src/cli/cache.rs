//! `tunesmith cache verify | du | gc`

use std::collections::BTreeSet;

use cache::{FaultKind, Store};
use clap::{Args, Subcommand};

use super::Common;
use super::exit::{Exit, Trouble};
use crate::plan::Last;
use crate::report::words::{bytes, count};
use crate::report::{screen, shown_path};
use crate::run::home;

#[derive(Args, Clone, Debug)]
pub(super) struct CacheArgs {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Subcommand, Clone, Copy, Debug)]
enum CacheCommand {
    /// Rehash everything that is stored
    Verify,
    /// Show how much is stored
    Du,
    /// Drop results that are old and are not the last of any profile
    Gc {
        /// Keep results that are younger than this
        #[arg(long, value_name = "DAYS", default_value_t = 14)]
        days: u32,
    },
}

pub(super) fn cache(common: &Common, args: &CacheArgs) -> Result<Exit, Trouble> {
    let (pipeline, _) = common.pipeline()?;
    let store = Store::open(&home(&pipeline))?;
    match args.command {
        CacheCommand::Verify => verify(&store),
        CacheCommand::Du => usage(&store),
        CacheCommand::Gc { days } => collect(&store, &pipeline.profiles, &pipeline.profile, days),
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

fn usage(store: &Store) -> Result<Exit, Trouble> {
    let usage = store.usage()?;
    screen::say(&format!(
        "{} in {}, {}\n  of these {} in {} that no result names (copies of inputs, mostly)\n",
        bytes(usage.bytes),
        count(usage.blobs, "blob"),
        count(usage.records, "record"),
        bytes(usage.loose_bytes),
        count(usage.loose_blobs, "blob"),
    ));
    Ok(Exit::Ok)
}

fn collect(store: &Store, profiles: &[String], own: &str, days: u32) -> Result<Exit, Trouble> {
    let profiles = profiles.iter().map(String::as_str).chain([own]);
    let mut last = BTreeSet::new();
    for profile in profiles {
        let results = Last::load(store.home(), profile);
        last.extend(results.iter().map(|result| (result.key, result.result)));
    }
    let age = jiff::SignedDuration::from_hours(i64::from(days) * 24);
    let oldest = (jiff::Timestamp::now() - age).to_string();
    let dropped = store.collect(|record| {
        last.contains(&(record.key, record.result())) || record.made.started > oldest
    })?;
    screen::say(&format!(
        "dropped {} and {} ({})\n",
        count(dropped.records, "record"),
        count(dropped.blobs, "blob"),
        bytes(dropped.bytes),
    ));
    Ok(Exit::Ok)
}
