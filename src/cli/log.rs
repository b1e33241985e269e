//! `tunesmith log STAGE`

use clap::Args;
use serde_json::json;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::report::screen;
use crate::run::{Project, kept_log, log_path};

#[derive(Args, Clone, Debug)]
pub(super) struct LogArgs {
    /// The stage
    #[arg(value_name = "STAGE")]
    stage: String,
    /// The log that belongs to the present result, even if a later try failed
    #[arg(long)]
    result: bool,
    /// Tell it as JSON, an object a stage
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn log(common: &Common, args: &LogArgs) -> Result<Exit, Trouble> {
    let project = common.project()?;
    let names = std::slice::from_ref(&args.stage);
    for stage in project.graph.named(&project.pipeline, names)? {
        let id = &project.pipeline.stages[stage].id;
        let bytes = of(&project, id, args.result)?;
        let text = String::from_utf8_lossy(&bytes);
        screen::say(&if args.json {
            format!("{}\n", json!({ "stage": id, "log": text }))
        } else {
            text.into_owned()
        });
    }
    Ok(Exit::Ok)
}

fn of(project: &Project, stage: &str, result: bool) -> Result<Vec<u8>, Trouble> {
    let pipeline = &project.pipeline;
    let path = log_path(project.store.home(), &pipeline.profile, stage);
    let written = match std::fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            let cause = format!("cannot read `{}`: {error}", path.display());
            let mend = "check its permissions";
            return Err(Trouble::new(Exit::Failed, "log::unreadable", cause, mend));
        }
    };
    let kept = || -> Result<Option<Vec<u8>>, Trouble> {
        let last = project.last();
        let Some(last) = last.get(stage) else {
            return Ok(None);
        };
        let records = project.store.records(&last.key)?;
        let mut records = records.iter();
        let record = records.find(|record| record.result() == last.result);
        Ok(record.and_then(|record| kept_log(record, &project.store)))
    };
    let found = match written {
        Some(bytes) if !result => Some(bytes),
        _ => kept()?,
    };
    found.ok_or_else(|| {
        Trouble::new(
            Exit::Failed,
            "log::none",
            format!(
                "`{stage}` has no log here under profile `{}`",
                pipeline.profile
            ),
            &format!("run it: tunesmith run {stage}"),
        )
    })
}
