//! What people are asked, by stage, and their answers on the way to the file of decisions.
//!
//! Promises: nothing is run and nothing is stored; the file is read anew before each decision is
//! written, so that two reviewers lose nothing of each other's. Must not know: terminals, editors.

use std::path::PathBuf;

use serde_json::Value;
use stages::review::{Choice, Decision as Decided, Decisions};
use stages::{StageError, Undecided};

use super::project::Project;
use super::{Options, link, planner, selection};
use crate::config::Faults;
use crate::plan::{Decision, Inputs, PlanError, Planner, decisions, preview};

/// What waits for people, stage by stage.
pub struct Reviews<'a> {
    planner: Planner<'a>,
    /// One for each stage that waits.
    pub queues: Vec<Queue>,
    /// Stages in which people have a say and of which nothing is known before these are done.
    pub unknown: Vec<(String, Vec<String>)>,
    /// Files with decisions, of all stages in which people have a say.
    files: Vec<(String, PathBuf)>,
}

/// What waits in one stage.
pub struct Queue {
    /// Its id.
    pub stage: String,
    at: usize,
    inputs: Inputs,
    /// The file as the pipeline writes it.
    pub shown: PathBuf,
    file: PathBuf,
    /// The rows.
    pub rows: Vec<Undecided>,
}

/// Why a review cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The pipeline is at fault, or a stage is not known.
    #[error(transparent)]
    Faults(#[from] Faults),
    /// The plan has no answer.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Decisions cannot be read or written, or an edited row may not stand.
    #[error(transparent)]
    Stage(#[from] StageError),
}

impl<'a> Reviews<'a> {
    /// Looks what waits in the stages named, or in all that a plain run would work on.
    pub fn look(project: &'a Project, names: &[String]) -> Result<Self, ReviewError> {
        let options = Options {
            targets: names.to_vec(),
            ..Options::default()
        };
        let selected = selection(project, &options)?;
        let link = link(project, &options, None);
        let mut planner = planner(project, &Options::default(), &link, &selected, true);
        let decided = preview(&mut planner, &selected)?;
        let mut reviews = Self {
            planner,
            queues: Vec::new(),
            unknown: Vec::new(),
            files: Vec::new(),
        };
        let pipeline = &project.pipeline;
        for (at, decision) in decided {
            let spec = &pipeline.stages[at];
            let Some((_, shown)) = decisions(spec) else {
                continue;
            };
            let file = pipeline.root.join(shown);
            reviews.files.push((spec.id.clone(), file.clone()));
            match decision {
                Decision::People { inputs, people, .. } => reviews.queues.push(Queue {
                    stage: spec.id.clone(),
                    at,
                    inputs,
                    shown: shown.to_owned(),
                    file,
                    rows: people.rows,
                }),
                Decision::Waiting { on } => {
                    let on = on.iter().map(|above| pipeline.stages[*above].id.clone());
                    reviews.unknown.push((spec.id.clone(), on.collect()));
                }
                _ => {}
            }
        }
        Ok(reviews)
    }

    /// How many rows wait.
    pub fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.rows.len()).sum()
    }

    /// Rows whose names begin with `name`, by stage: those that wait, and those that were decided
    /// about before.
    pub fn named(&self, name: &str) -> Result<Vec<(String, String)>, ReviewError> {
        let mut found = Vec::new();
        for queue in &self.queues {
            let rows = queue.rows.iter().filter(|row| row.row.starts_with(name));
            found.extend(rows.map(|row| (queue.stage.clone(), row.row.clone())));
        }
        for (stage, file) in &self.files {
            let all = Decisions::read(file)?;
            let rows = all.rows().filter(|row| row.starts_with(name));
            found.extend(rows.map(|row| (stage.clone(), row.to_owned())));
        }
        found.sort();
        found.dedup();
        // Cells of a sweep read the same rows and share the file.
        found.dedup_by(|one, other| one.1 == other.1);
        Ok(found)
    }

    /// Writes what was decided about a row. `to` is the row in place of it.
    pub fn decide(
        &mut self,
        stage: &str,
        row: &str,
        choice: Choice,
        to: Option<Value>,
    ) -> Result<Decided, ReviewError> {
        let file = self.files.iter().find(|(id, _)| id == stage);
        let (_, file) = file.expect("bug: people have no say in this stage").clone();
        let mut all = Decisions::read(&file)?;
        let waiting = self.queues.iter().flat_map(|queue| &queue.rows);
        let about = waiting
            .filter(|waiting| waiting.row == row)
            .map(|waiting| waiting.about.clone())
            .chain(all.get(row).map(|before| before.about.clone()));
        let decided = Decided {
            choice,
            about: about.into_iter().next().unwrap_or_default(),
            to,
        };
        all.set(row, decided.clone());
        all.write(&file)?;
        for queue in self.queues.iter_mut().filter(|queue| queue.file == file) {
            queue.rows.retain(|waiting| waiting.row != row);
        }
        Ok(decided)
    }

    /// What a decision keeps of a row that was edited into `text`, if that may stand.
    pub fn edited(&self, stage: &str, row: &str, text: &str) -> Result<Value, ReviewError> {
        let queue = self.queues.iter().find(|queue| queue.stage == stage);
        let edited =
            queue.and_then(|queue| self.planner.edited(queue.at, &queue.inputs, row, text));
        let gone = || {
            let message = format!("the rows of `{stage}` are not here any more");
            StageError::new("review::gone", message, "run again: `tunesmith run`")
        };
        Ok(edited.ok_or_else(gone)??)
    }
}
