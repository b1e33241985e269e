//! The base of a training that is only planned: where it is not fetched yet, what of it says its shape.
//!
//! Promises: a source is asked once, however many stages train on it; nothing of it is kept. Must not know: cards,
//! rows, what a shape is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cache::Scratch;
use serde_json::Value;
use stages::StageError;
use stages::fetch::{Ahead, ahead};

use super::{answered, request};
use crate::config::{Action, Reference, StageSpec};
use crate::plan::key;
use crate::run::Project;
use crate::run::prepare::stored;

/// What was found, by the stage that would fetch it.
#[derive(Default)]
pub(super) struct Bases(BTreeMap<String, Found>);

struct Found {
    path: PathBuf,
    /// Holds what was fetched for the plan.
    _scratch: Option<Scratch>,
}

impl Bases {
    /// The base of `trains`, which `stage` has not made yet, or what is there of it.
    ///
    /// # Errors
    /// `memory::no-base` where its shape cannot be had without all of it.
    pub(super) fn find(
        &mut self,
        project: &Project,
        trains: &StageSpec,
        stage: &str,
    ) -> Result<PathBuf, StageError> {
        if !self.0.contains_key(stage) {
            let found = early(project, trains, stage)?;
            self.0.insert(stage.to_owned(), found);
        }
        Ok(self.0[stage].path.clone())
    }
}

fn early(project: &Project, trains: &StageSpec, stage: &str) -> Result<Found, StageError> {
    let absent = || absent(trains, stage, "and its shape decides", None);
    let at = project.graph.find(stage).ok_or_else(absent)?;
    let spec = &project.pipeline.stages[at];
    let Action::Builtin {
        stage: room,
        params,
    } = &spec.action
    else {
        return Err(absent());
    };
    if room.kind() != "fetch" {
        return Err(absent());
    }
    match ahead(params, local(project, spec)).ok_or_else(absent)? {
        Ahead::Here(path) => Ok(Found {
            path,
            _scratch: None,
        }),
        Ahead::Config(params) => config(project, spec, params).map_err(|error| {
            let cause = format!("and its config.json cannot be had: {}", error.message);
            self::absent(trains, stage, &cause, Some(&error.mend))
        }),
    }
}

/// What `inputs.path` names, if it is no stage's.
fn local(project: &Project, spec: &StageSpec) -> Option<PathBuf> {
    let input = spec.inputs.iter().find(|input| input.name == "path")?;
    match &input.references[..] {
        [Reference::Path(path)] => Some(project.pipeline.root.join(path)),
        _ => None,
    }
}

/// Fetches the config alone, as the stage would.
fn config(
    project: &Project,
    spec: &StageSpec,
    params: BTreeMap<String, Value>,
) -> Result<Found, StageError> {
    let scratch = project.store.scratch().map_err(|error| stored(&error))?;
    let mut request = request(&scratch, "fetch", params)?;
    let pin = key::source(spec).and_then(|source| project.lock.source(&source).map(str::to_owned));
    request.pin = pin;
    request.network = true;
    answered(&request)?;
    Ok(Found {
        path: request.output.join("data"),
        _scratch: Some(scratch),
    })
}

fn absent(trains: &StageSpec, stage: &str, cause: &str, mend: Option<&str>) -> StageError {
    let run = format!("run `tunesmith run {stage}` first");
    StageError::new(
        "memory::no-base",
        format!(
            "the base of `{}` (`{stage}`) is not there yet, {cause}",
            trains.id
        ),
        mend.map_or_else(|| run.clone(), |mend| format!("{mend}; or {run}")),
    )
}
