//! `tunesmith accept STAGE`

use clap::Args;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::report::{screen, shown_path};
use crate::run::{self, AcceptError, Options};

#[derive(Args, Clone, Debug)]
pub(super) struct AcceptArgs {
    /// The stages whose present results count from now on
    #[arg(value_name = "STAGE", required = true)]
    stages: Vec<String>,
    /// Tell it as JSON, an object a stage
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn accept(common: &Common, args: &AcceptArgs) -> Result<Exit, Trouble> {
    if !common.sets.is_empty() {
        return Err(Trouble::new(
            Exit::Config,
            "accept::set",
            "`accept` with `--set` would bless results of a pipeline that is written nowhere",
            "write the value into `pipeline.yaml` first",
        ));
    }
    let project = common.project()?;
    let stages = project.graph.named(&project.pipeline, &args.stages)?;
    let stages = stages
        .iter()
        .map(|at| project.pipeline.stages[*at].id.clone());
    for stage in &stages.collect::<Vec<_>>() {
        // Each anew: accepting one stage settles what the next one reads.
        let project = common.project()?;
        let done = run::accept(&project, &Options::default(), stage)?;
        if args.json {
            let told = serde_json::json!({
                "stage": done.stage, "folder": shown_path(&done.folder),
                "reasons": done.reasons, "changed": done.changed,
            });
            screen::say(&format!("{told}\n"));
            continue;
        }
        let mut text = format!(
            "accepted {} as the result of `{}`\n",
            shown_path(&done.folder).display(),
            done.stage
        );
        for reason in &done.reasons {
            text.push_str(&format!("  although {reason}\n"));
        }
        if !done.changed.is_empty() {
            let names: Vec<_> = done
                .changed
                .iter()
                .map(|name| format!("`{name}`"))
                .collect();
            text.push_str(&format!(
                "  with other bytes than its last result: {}\n",
                names.join(", ")
            ));
        }
        text.push_str("  marked in pipeline.lock; never given to a remote store\n");
        screen::say(&text);
    }
    Ok(Exit::Ok)
}

impl From<AcceptError> for Trouble {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::Faults(found) => found.into(),
            AcceptError::Plan(error) => error.into(),
            AcceptError::Store(error) => error.into(),
            AcceptError::Lock(error) => Self::new(
                Exit::Failed,
                "lock::not-written",
                error.to_string(),
                "check the disk and accept again",
            ),
            AcceptError::Refused {
                code,
                message,
                mend,
            } => Self::new(Exit::Failed, code, message, &mend),
        }
    }
}
