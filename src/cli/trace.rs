//! `tunesmith trace [RUN]`

use std::path::{Path, PathBuf};

use clap::Args;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::report::{Trace, screen};
use crate::run::{home, journal, journals};

#[derive(Args, Clone, Debug)]
pub(super) struct TraceArgs {
    /// The number of the run, as in .tunesmith/runs/; the last one that did something if none is named
    #[arg(value_name = "RUN")]
    run: Option<u64>,
    /// Write it to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn trace(common: &Common, args: &TraceArgs) -> Result<Exit, Trouble> {
    let (pipeline, _) = common.pipeline()?;
    let home = home(&pipeline);
    let known = journals(&home);
    let number = args.run.or(known.last().copied());
    let number = number
        .filter(|number| known.contains(number))
        .ok_or_else(|| {
            let cause = match args.run {
                Some(number) => format!("there is no record of run {number}"),
                None => "nothing has run here yet".to_owned(),
            };
            let mend = match (known.first(), known.last()) {
                (Some(first), Some(last)) => format!("name one from {first} to {last}"),
                _ => "run something: tunesmith run".to_owned(),
            };
            Trouble::new(Exit::Failed, "trace::no-run", cause, &mend)
        })?;
    let events = journal(&home, number).map_err(|error| {
        let cause = format!("cannot read the record of run {number}: {error}");
        Trouble::new(
            Exit::Failed,
            "trace::unreadable",
            cause,
            "check `.tunesmith/runs`",
        )
    })?;
    let trace = Trace::of(&events);
    match &args.output {
        Some(file) => write(&trace, file)?,
        None => screen::say(&format!("{}\n", trace.json())),
    }
    Ok(Exit::Ok)
}

/// Writes a trace to a file.
pub(super) fn write(trace: &Trace, file: &Path) -> Result<(), Trouble> {
    std::fs::write(file, format!("{}\n", trace.json())).map_err(|error| {
        let cause = format!("cannot write `{}`: {error}", file.display());
        Trouble::new(
            Exit::Failed,
            "trace::not-written",
            cause,
            "check the folder and its permissions",
        )
    })
}
