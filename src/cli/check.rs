//! `tunesmith check`

use clap::Args;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::report::{faults, screen};

#[derive(Args, Clone, Debug)]
pub(super) struct CheckArgs {
    /// Check every profile, not only the chosen one
    #[arg(long)]
    all_profiles: bool,
    /// Tell it as JSON lines, faults too
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn check(common: &Common, args: &CheckArgs) -> Result<Exit, Trouble> {
    match every(common, args) {
        Err(Trouble::Faults(found)) if args.json => {
            screen::say(&faults::json(&found));
            Ok(Exit::Config)
        }
        other => other,
    }
}

fn every(common: &Common, args: &CheckArgs) -> Result<Exit, Trouble> {
    let first = one(common, args.json)?;
    if args.all_profiles {
        for profile in first {
            let other = Common {
                profile: Some(profile),
                ..common.clone()
            };
            one(&other, args.json)?;
        }
    }
    Ok(Exit::Ok)
}

/// Checks one profile, and gives the names of the others.
fn one(common: &Common, json: bool) -> Result<Vec<String>, Trouble> {
    let (pipeline, graph) = common.pipeline()?;
    let every: Vec<usize> = graph.order().to_vec();
    crate::check::stages(&pipeline, &graph, &every, false)?;
    let count = pipeline.stages.len();
    let stages = if count == 1 { "stage" } else { "stages" };
    screen::say(&if json {
        let told = serde_json::json!({ "profile": pipeline.profile, "stages": count });
        format!("{told}\n")
    } else {
        format!(
            "{}, profile {}: {count} {stages}, no faults\n",
            pipeline.name, pipeline.profile
        )
    });
    let others = pipeline.profiles.iter();
    Ok(others
        .filter(|name| **name != pipeline.profile)
        .cloned()
        .collect())
}
