//! What people have still to decide before a stage can run.
//!
//! Promises: looks at inputs that are here and says nothing where they are not; the stage itself
//! then tells, when it runs. Must not know: who asks people, and how.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use cache::{Kept, Store};
use stages::{Context, Params, Stage, StageError, Undecided};

use super::decide::Planner;
use super::input::{Inputs, Item, Origin};
use crate::config::{Action, Reference, StageSpec};

/// What people are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct People {
    /// The rows, at least one.
    pub rows: Vec<Undecided>,
    /// The file with their decisions, as the pipeline writes it.
    pub file: PathBuf,
}

/// The input of a stage that people write, and its file.
pub fn decisions(spec: &StageSpec) -> Option<(&'static str, &Path)> {
    let Action::Builtin { stage, .. } = &spec.action else {
        return None;
    };
    let port = stage.decisions()?;
    let input = spec.inputs.iter().find(|input| input.name == port)?;
    match input.references.first()? {
        Reference::Path(path) => Some((port, path)),
        Reference::Product { .. } => None,
    }
}

impl Planner<'_> {
    /// What people have to decide before `stage` can run on `inputs`, if anything, as far as can be
    /// known here.
    pub fn people(&self, stage: usize, inputs: &Inputs) -> Option<People> {
        let (_, file) = decisions(&self.pipeline.stages[stage])?;
        let rows = self.ask(stage, inputs, |room, params, ctx| {
            room.undecided(params, ctx)
        })?;
        // Rows that cannot be read are the stage's to tell.
        let rows = rows.ok().filter(|rows| !rows.is_empty())?;
        Some(People {
            rows,
            file: file.to_owned(),
        })
    }

    /// The edited text of `row` as a decision keeps it; `None` where inputs are not here.
    pub fn edited(
        &self,
        stage: usize,
        inputs: &Inputs,
        row: &str,
        text: &str,
    ) -> Option<Result<serde_json::Value, StageError>> {
        self.ask(stage, inputs, |room, params, ctx| {
            room.edited(params, ctx, row, text)
        })
    }

    /// Asks a built-in stage something about its inputs.
    fn ask<T>(
        &self,
        stage: usize,
        inputs: &Inputs,
        question: impl FnOnce(&dyn Stage, &Params, &Context<'_>) -> T,
    ) -> Option<T> {
        let spec = &self.pipeline.stages[stage];
        let Action::Builtin {
            stage: room,
            params,
        } = &spec.action
        else {
            return None;
        };
        let scratch = self.store.scratch().ok()?;
        let inputs = lay_out(self.store, inputs, scratch.path())?;
        let ctx = Context {
            inputs,
            derived: BTreeMap::new(),
            output: PathBuf::new(),
            checkpoint: PathBuf::new(),
            keep: PathBuf::new(),
            seed: spec.seed,
            threads: 1,
            pin: None,
            network: false,
            events: &|_| {},
            cancel: &AtomicBool::new(false),
        };
        Some(question(*room, params, &ctx))
    }
}

/// Links to the inputs, by port, as a running stage would see them; `None` where bytes are not here.
fn lay_out(
    store: &Store,
    inputs: &Inputs,
    folder: &Path,
) -> Option<BTreeMap<String, Vec<PathBuf>>> {
    let mut paths: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (port, items) in inputs {
        for item in items {
            let place = seen(store, item, folder)?;
            paths.entry(port.clone()).or_default().push(place);
        }
    }
    Some(paths)
}

fn seen(store: &Store, item: &Item, folder: &Path) -> Option<PathBuf> {
    if let Origin::Path {
        kept: Kept::Outside(path),
        ..
    } = &item.origin
    {
        return Some(path.clone());
    }
    let place = folder.join(&item.place);
    let above = place.parent().expect("an input lies in a folder");
    std::fs::create_dir_all(above).ok()?;
    store.view(&item.tree, &place).ok()?;
    Some(place)
}
