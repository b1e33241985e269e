//! `tunesmith log STAGE`

use clap::Args;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::plan::Last;
use crate::report::screen;
use crate::run::{kept_log, log_path};

#[derive(Args, Clone, Debug)]
pub(super) struct LogArgs {
    /// The stage
    #[arg(value_name = "STAGE")]
    stage: String,
    /// The log that belongs to the present result, even if a later try failed
    #[arg(long)]
    result: bool,
}

pub(super) fn log(common: &Common, args: &LogArgs) -> Result<Exit, Trouble> {
    let project = common.project()?;
    let pipeline = &project.pipeline;
    project
        .graph
        .named(pipeline, std::slice::from_ref(&args.stage))?;
    let path = log_path(project.store.home(), &pipeline.profile, &args.stage);
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
        let last = Last::load(project.store.home(), &pipeline.profile);
        let Some(last) = last.get(&args.stage) else {
            return Ok(None);
        };
        let records = project.store.records(&last.key)?;
        let mut records = records.iter();
        let record = records.find(|record| record.result() == last.result);
        Ok(record.and_then(|record| kept_log(record, &project.store)))
    };
    let found = match written {
        Some(bytes) if !args.result => Some(bytes),
        _ => kept()?,
    };
    let Some(bytes) = found else {
        return Err(Trouble::new(
            Exit::Failed,
            "log::none",
            format!(
                "`{}` has no log here under profile `{}`",
                args.stage, pipeline.profile
            ),
            &format!("run it: tunesmith run {}", args.stage),
        ));
    };
    screen::say(&String::from_utf8_lossy(&bytes));
    Ok(Exit::Ok)
}
