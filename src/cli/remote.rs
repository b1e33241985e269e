//! `tunesmith cache push | pull`, and what is at the remote.

use std::collections::BTreeSet;

use cache::{Moved, Record, Remote, Unmoved};
use serde_json::json;

use super::Common;
use super::exit::{Exit, Trouble, note};
use crate::plan::{Decision, preview_with};
use crate::report::screen;
use crate::report::words::{bytes, count};
use crate::run::{self, Link, Options, Project, remote};

/// Faults after which nobody knows what the remote has; others pass, or are told result by result.
const REFUSED: [&str; 3] = ["remote::denied", "remote::nowhere", "remote::left-alone"];

/// The outcome of a result that did not arrive.
const FAILED: &str = "failed";

/// The project and the way to its remote, for a command that is of no use without one.
struct Far {
    project: Project,
    options: Options,
    link: Link,
    json: bool,
}

impl Far {
    fn open(common: &Common, stages: &[String], json: bool) -> Result<Self, Trouble> {
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
            json,
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

    /// What became of one result: said, or an object a stage.
    fn told(&self, stage: &str, outcome: &str, moved: Moved, said: Option<&str>) {
        if self.json {
            let error = said.filter(|_| outcome == FAILED);
            let told = json!({
                "stage": stage, "outcome": outcome, "blobs": moved.blobs, "bytes": moved.bytes,
                "error": error,
            });
            screen::say(&format!("{told}\n"));
        } else if let Some(said) = said {
            screen::say(&format!("  {stage}  {said}\n"));
        }
    }

    /// The last line, for people: the lines of JSON say it already.
    fn sum(&self, text: &str) {
        if !self.json {
            screen::say(text);
        }
    }

    /// What went wrong at the remote, and the exit code.
    fn end(&self, failed: usize) -> Exit {
        let complaints = remote::complaints(&self.link);
        for (code, text) in &complaints {
            note(code, text, self.json);
        }
        let refused = complaints
            .iter()
            .any(|(code, _)| REFUSED.contains(&&**code));
        if failed == 0 && !refused {
            Exit::Ok
        } else {
            Exit::Failed
        }
    }
}

/// Puts the present results of stages to the remote.
pub(super) fn push(common: &Common, stages: &[String], json: bool) -> Result<Exit, Trouble> {
    let far = Far::open(common, stages, json)?;
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
        let said = "accepted by hand: it stays here";
        far.told(id, "accepted", Moved::default(), Some(said));
    }
    let (mut sent, mut size, mut failed) = (0, 0, 0);
    let all = results.len();
    remote::push_all(
        remote,
        &far.project.store,
        results,
        &mut |told| match told.outcome {
            Ok(moved) if moved.blobs == 0 => far.told(&told.stage, "there", moved, None),
            Ok(moved) => {
                sent += 1;
                size += moved.bytes;
                far.told(&told.stage, "put", moved, Some(&shown(moved)));
            }
            Err(error) => {
                failed += 1;
                let said = format!("not put there: {error}");
                far.told(&told.stage, FAILED, Moved::default(), Some(&said));
            }
        },
    );
    let there = all - sent - failed;
    far.sum(&format!(
        "put {} ({}) to {}; {there} there already\n",
        count(sent, "result"),
        bytes(size),
        far.link.shown()
    ));
    Ok(far.end(failed))
}

fn shown(moved: Moved) -> String {
    format!("{} in {}", bytes(moved.bytes), count(moved.blobs, "blob"))
}

/// Fetches the bytes of results that are at the remote.
pub(super) fn pull(common: &Common, stages: &[String], json: bool) -> Result<Exit, Trouble> {
    let far = Far::open(common, stages, json)?;
    let remote = far.remote()?;
    let named: BTreeSet<&String> = stages.iter().collect();
    let (mut got, mut size, mut failed, mut here) = (0, 0, 0, 0);
    for (id, record, is_here) in far.results()? {
        if !named.is_empty() && !named.contains(&id) {
            continue;
        }
        if is_here {
            here += 1;
            far.told(&id, "here", Moved::default(), None);
            continue;
        }
        match remote::bring(remote, &far.project.store, &record, &|_| {}) {
            Ok(brought) => {
                got += 1;
                size += brought.moved.bytes;
                far.told(&id, "fetched", brought.moved, Some(&shown(brought.moved)));
            }
            Err(Unmoved::Store(error)) => return Err(error.into()),
            Err(error) => {
                failed += 1;
                let said = format!("not fetched: {error}");
                far.told(&id, FAILED, Moved::default(), Some(&said));
            }
        }
    }
    far.sum(&format!(
        "fetched {} ({}) from {}; {here} here already\n",
        count(got, "result"),
        bytes(size),
        far.link.shown()
    ));
    Ok(far.end(failed))
}

/// How much is at the remote.
pub(super) fn usage(common: &Common, json: bool) -> Result<Exit, Trouble> {
    let far = Far::open(common, &[], json)?;
    let exit = match far.remote()?.usage() {
        Ok((blobs, records)) if json => {
            let told = json!({
                "remote": far.link.shown(), "blobs": blobs.count, "records": records.count,
                "bytes": blobs.bytes,
            });
            screen::say(&format!("{told}\n"));
            0
        }
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
