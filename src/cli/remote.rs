//! `tunesmith cache push | pull`, and what is at the remote.

use std::collections::BTreeSet;

use cache::{Record, Remote, Unmoved};

use super::Common;
use super::exit::{Exit, Trouble};
use crate::plan::{Decision, preview_with};
use crate::report::screen;
use crate::report::words::{bytes, count};
use crate::run::{self, Link, Options, Project, remote};

/// The project and the way to its remote, for a command that is of no use without one.
struct Far {
    project: Project,
    options: Options,
    link: Link,
}

impl Far {
    fn open(common: &Common, stages: &[String]) -> Result<Self, Trouble> {
        let project = common.project()?;
        let options = Options {
            targets: stages.to_vec(),
            ..Options::default()
        };
        let link = run::link(&project, &options, None);
        if !link.is_there() {
            return Err(Trouble::new(
                Exit::Config,
                "remote::none",
                "there is no remote",
                "write `remote: s3://bucket/prefix` into pipeline.yaml, or set TUNESMITH_REMOTE",
            ));
        }
        Ok(Self {
            project,
            options,
            link,
        })
    }

    fn remote(&self) -> Result<&Remote, Trouble> {
        let trouble = || {
            let cause = self.link.trouble().unwrap_or_default();
            let cause = format!("the remote `{}` cannot be used: {cause}", self.link.shown());
            let mend = "docs/remote.md says what each kind of store needs";
            Trouble::new(Exit::Config, "remote::unusable", cause, mend)
        };
        Ok(&**self.link.remote().ok_or_else(trouble)?)
    }

    /// Every selected stage whose result is known, with it.
    fn results(&self) -> Result<Vec<(String, Record, bool)>, Trouble> {
        let selected = run::selection(&self.project, &self.options)?;
        let mut planner = run::planner(&self.project, &self.options, &self.link, &selected, true);
        let mut ask = |questions: &[crate::plan::Question]| remote::ask(&self.link, questions);
        let decisions = preview_with(&mut planner, &selected, &mut ask)?;
        let known = decisions.into_iter().filter_map(|(stage, decision)| {
            let id = self.project.pipeline.stages[stage].id.clone();
            match decision {
                Decision::Fresh { record, .. } => Some((id, record, true)),
                Decision::Remote { record, .. } => Some((id, record, false)),
                _ => None,
            }
        });
        Ok(known.collect())
    }

    /// What went wrong at the remote, and the exit code.
    fn end(&self, failed: usize) -> Exit {
        for (code, text) in remote::complaints(&self.link) {
            screen::complain(&format!("note: {text} ({code})\n"));
        }
        if failed == 0 { Exit::Ok } else { Exit::Failed }
    }
}

/// Puts the present results of stages to the remote.
pub(super) fn push(common: &Common, stages: &[String]) -> Result<Exit, Trouble> {
    let far = Far::open(common, stages)?;
    if let Err(variable) = far.link.may_push_by_hand() {
        return Err(Trouble::new(
            Exit::Config,
            "remote::pull-request",
            format!(
                "this is the CI of a pull request (`{variable}`): nothing of it is put to the remote"
            ),
            "push from the branch it goes into; `push: always` or TUNESMITH_REMOTE_PUSH=always does it anyway",
        ));
    }
    let remote = far.remote()?;
    let here = far.results()?.into_iter().filter(|(_, _, here)| *here);
    let (accepted, results): (Vec<_>, Vec<_>) = here
        .map(|(id, record, _)| (id, record))
        .partition(|(_, record)| record.made.accepted);
    for (id, _) in &accepted {
        screen::say(&format!("  {id}  accepted by hand: it stays here\n"));
    }
    let (mut sent, mut size, mut failed) = (0, 0, 0);
    let all = results.len();
    remote::push_all(remote, &far.project.store, results, &mut |told| {
        let what = match told.outcome {
            Ok(moved) if moved.blobs == 0 => return,
            Ok(moved) => {
                sent += 1;
                size += moved.bytes;
                format!("{} in {}", bytes(moved.bytes), count(moved.blobs, "blob"))
            }
            Err(error) => {
                failed += 1;
                format!("not put there: {error}")
            }
        };
        screen::say(&format!("  {}  {what}\n", told.stage));
    });
    let there = all - sent - failed;
    screen::say(&format!(
        "put {} ({}) to {}; {there} there already\n",
        count(sent, "result"),
        bytes(size),
        far.link.shown()
    ));
    Ok(far.end(failed))
}

/// Fetches the bytes of results that are at the remote.
pub(super) fn pull(common: &Common, stages: &[String]) -> Result<Exit, Trouble> {
    let far = Far::open(common, stages)?;
    let remote = far.remote()?;
    let named: BTreeSet<&String> = stages.iter().collect();
    let (mut got, mut size, mut failed, mut here) = (0, 0, 0, 0);
    for (id, record, is_here) in far.results()? {
        if !named.is_empty() && !named.contains(&id) {
            continue;
        }
        if is_here {
            here += 1;
            continue;
        }
        let what = match remote::bring(remote, &far.project.store, &record, &|_| {}) {
            Ok(brought) => {
                got += 1;
                size += brought.moved.bytes;
                format!(
                    "{} in {}",
                    bytes(brought.moved.bytes),
                    count(brought.moved.blobs, "blob")
                )
            }
            Err(Unmoved::Store(error)) => return Err(error.into()),
            Err(error) => {
                failed += 1;
                format!("not fetched: {error}")
            }
        };
        screen::say(&format!("  {id}  {what}\n"));
    }
    screen::say(&format!(
        "fetched {} ({}) from {}; {here} here already\n",
        count(got, "result"),
        bytes(size),
        far.link.shown()
    ));
    Ok(far.end(failed))
}

/// How much is at the remote.
pub(super) fn usage(common: &Common) -> Result<Exit, Trouble> {
    let far = Far::open(common, &[])?;
    let exit = match far.remote()?.usage() {
        Ok((blobs, records)) => {
            screen::say(&format!(
                "at {}: {} in {}, {}\n",
                far.link.shown(),
                bytes(blobs.bytes),
                count(blobs.count, "blob"),
                count(records.count, "record"),
            ));
            0
        }
        Err(_) => 1,
    };
    Ok(far.end(exit))
}
