//! `tunesmith update [STAGE...]`

use clap::Args;
use serde_json::json;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::event::Envelope;
use crate::lock::Lock;
use crate::plan::key;
use crate::report::{Listener, Plain, Setting, screen, shown_path};
use crate::run::{self, Options, Verdict};

#[derive(Args, Clone, Debug)]
pub(super) struct UpdateArgs {
    /// The stages whose sources are looked up again; all that fetch something, if none is named
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// Tell what moved as JSON lines
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn update(common: &Common, args: &UpdateArgs) -> Result<Exit, Trouble> {
    let mut project = common.project()?;
    let named = project.graph.named(&project.pipeline, &args.stages)?;
    let all: Vec<usize> = (0..project.pipeline.stages.len()).collect();
    let asked = if args.stages.is_empty() { all } else { named };
    let mut targets = Vec::new();
    let mut before = Vec::new();
    for spec in asked.iter().map(|at| &project.pipeline.stages[*at]) {
        let Some(source) = key::source(spec) else {
            continue;
        };
        let old = project.lock.source(&source).map(str::to_owned);
        project.lock.forget_source(&source);
        targets.push(spec.id.clone());
        before.push((spec.id.clone(), source, old));
    }
    if targets.is_empty() {
        return Err(Trouble::new(
            Exit::Config,
            "update::nothing",
            "none of these stages has a source that `pipeline.lock` pins",
            "name a stage that fetches something without a written revision",
        ));
    }
    let options = Options {
        targets,
        write_lock: true,
        ..Options::default()
    };
    let setting = Setting {
        results: shown_path(&project.results()),
        verbose: false,
    };
    let mut plain = Plain::new(std::io::stdout(), setting);
    let mut tell = |told: &Envelope| {
        if !args.json {
            plain.hear(told);
        }
    };
    let verdict = run::run(&project, &options, &mut tell)?;
    let mut lock = Lock::load(&project.lock_file())?;
    if args.stages.is_empty() && verdict == Verdict::Ok {
        // Lines of stages and cells that are no more.
        let known = |stage: &str| project.graph.find(stage).is_some();
        let gone = lock.keep_stages(&project.pipeline.profile, known);
        if !gone.is_empty() {
            lock.save(&project.lock_file()).map_err(|error| {
                let mend = "check the disk and update again";
                Trouble::new(Exit::Failed, "lock::not-written", error.to_string(), mend)
            })?;
        }
    }
    for (stage, source, old) in before {
        let new = lock.source(&source).map(str::to_owned);
        screen::say(&if args.json {
            format!(
                "{}\n",
                json!({"stage": stage, "source": source, "old": old, "new": new})
            )
        } else {
            let shown =
                |pin: &Option<String>| pin.clone().unwrap_or_else(|| "not pinned".to_owned());
            if old == new {
                format!("{source}: still {}\n", shown(&new))
            } else {
                format!("{source}: {} -> {}\n", shown(&old), shown(&new))
            }
        });
    }
    Ok(verdict.into())
}
