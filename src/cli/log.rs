//! `tunesmith log STAGE`

use clap::Args;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::report::screen;
use crate::run::{home, log_path};

#[derive(Args, Clone, Debug)]
pub(super) struct LogArgs {
    /// The stage
    #[arg(value_name = "STAGE")]
    stage: String,
}

pub(super) fn log(common: &Common, args: &LogArgs) -> Result<Exit, Trouble> {
    let (pipeline, graph) = common.pipeline()?;
    graph.named(&pipeline, std::slice::from_ref(&args.stage))?;
    let path = log_path(&home(&pipeline), &pipeline.profile, &args.stage);
    match std::fs::read(&path) {
        Ok(bytes) => {
            screen::say(&String::from_utf8_lossy(&bytes));
            Ok(Exit::Ok)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Trouble::new(
            Exit::Failed,
            "log::none",
            format!(
                "`{}` has not run here under profile `{}`",
                args.stage, pipeline.profile
            ),
            &format!("run it: tunesmith run {}", args.stage),
        )),
        Err(error) => Err(Trouble::new(
            Exit::Failed,
            "log::unreadable",
            format!("cannot read `{}`: {error}", path.display()),
            "check its permissions",
        )),
    }
}
