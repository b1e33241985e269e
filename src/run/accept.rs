//! `accept`: what lies in `out/` becomes a stage's result, on a person's word.
//!
//! For a change that is known to be harmless (a comment in a script that is an input) and for
//! results that were edited by hand.
//!
//! Promises: the record is marked, so that it is never given to a remote store, and `--locked`
//! takes it only where `pipeline.lock` says that it was accepted; the bytes are copied, `out/`
//! stays as it is; what the stage found out (metrics) is that of its last result, and says so by
//! the mark.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cache::{Made, Record, Tree};
use stages::Effect;

use super::finish::digests;
use super::project::Project;
use super::{Options, link, planner, prepare, selection};
use crate::config::{Action, Faults, StageSpec};
use crate::lock::{Lock, LockError};
use crate::plan::{Decision, PlanError, Planner, Settled, key};

/// What was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// Stage id.
    pub stage: String,
    /// Where its outputs were found.
    pub folder: PathBuf,
    /// Why the stage would have run; empty where it was its results that were edited.
    pub reasons: Vec<String>,
    /// Outputs whose bytes are not those of the last result.
    pub changed: Vec<String>,
}

/// Why nothing was.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The pipeline or its lock is at fault.
    #[error(transparent)]
    Faults(#[from] Faults),
    /// The plan has no answer.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] cache::Error),
    /// The lock file cannot be written.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// There is nothing that could be accepted.
    #[error("{message}")]
    Refused {
        /// Stable code.
        code: &'static str,
        /// Why.
        message: String,
        /// How to mend it.
        mend: String,
    },
}

/// Makes what lies in `out/` the result of `stage`.
pub fn accept(project: &Project, options: &Options, stage: &str) -> Result<Accepted, AcceptError> {
    let options = Options {
        targets: vec![stage.to_owned()],
        ..options.clone()
    };
    let selected = selection(project, &options)?;
    let link = link(project, &options, None);
    let mut planner = planner(project, &options, &link, &selected, false);
    let (last, above) = selected.split_last().expect("a stage was named");
    let mut settled = Settled::new();
    for above in above {
        match planner.decide(*above, &settled)? {
            Decision::Fresh { record, .. } | Decision::Remote { record, .. } => {
                settled.insert(*above, record.outputs);
            }
            _ => return Err(upstream(&project.pipeline.stages[*above].id, stage)),
        }
    }
    let spec = &project.pipeline.stages[*last];
    if spec.effect == Effect::External {
        let message = format!("`{stage}` acts outside: its receipt is the service's to give");
        let mend = format!("run it: `tunesmith run {stage}`");
        return Err(refused("accept::outside", message, mend));
    }
    let decision = planner.decide(*last, &settled)?;
    take(project, &mut planner, *last, decision)
}

fn take(
    project: &Project,
    planner: &mut Planner<'_>,
    stage: usize,
    decision: Decision,
) -> Result<Accepted, AcceptError> {
    let spec = &project.pipeline.stages[stage];
    let folder = project.results().join(&spec.id);
    let (mut parts, reasons) = match decision {
        Decision::Fresh { record, .. } | Decision::Remote { record, .. } => {
            (record.parts, Vec::new())
        }
        Decision::Run { parts, reasons, .. } => {
            (parts, reasons.iter().map(ToString::to_string).collect())
        }
        Decision::Waiting { .. } | Decision::Ready { .. } | Decision::People { .. } => {
            unreachable!("bug: everything above is settled, and it does not act outside")
        }
    };
    let last = planner.last().get(&spec.id).cloned();
    let outputs = present(project, spec, &folder)?;
    let before = last.as_ref().map(|last| &last.outputs);
    if reasons.is_empty() && before == Some(&outputs) {
        let message = format!("`{}` is up to date, and nobody edited its results", spec.id);
        let mend = "edit them in `out/` first, or leave it".to_owned();
        return Err(refused("accept::nothing", message, mend));
    }
    let kept = last.as_ref().map(|last| stages::Outcome::of(&last.outcome));
    let mut outcome = kept.unwrap_or_default();
    if let (Action::Shell { .. }, Some(metrics)) = (&spec.action, metrics(spec, &folder)) {
        let read = prepare::metrics(&metrics);
        outcome.metrics =
            read.map_err(|error| refused("accept::bad-metrics", error.message, error.mend))?;
    }
    if let Some(pin) = &outcome.pin {
        parts = key::pinned(&parts, pin);
    }
    let record = Record {
        key: parts.digest(),
        parts,
        outcome: outcome.kept(),
        made: Made {
            started: jiff::Timestamp::now().to_string(),
            // What it took to make them, for the forecast.
            millis: last.as_ref().map_or(0, |last| last.made.millis),
            host: super::host(),
            program: super::PROGRAM.to_owned(),
            revision: super::revision::revision(&project.pipeline.root),
            stage: spec.id.clone(),
            accepted: true,
            ..Made::default()
        },
        outputs,
    };
    commit(project, planner, stage, record, &outcome)?;
    let outputs = present(project, spec, &folder)?;
    Ok(Accepted {
        stage: spec.id.clone(),
        folder,
        reasons,
        changed: outputs
            .iter()
            .filter(|(name, tree)| before_of(last.as_ref(), name) != Some(tree.digest()))
            .map(|(name, _)| name.clone())
            .collect(),
    })
}

fn before_of(last: Option<&crate::plan::LastResult>, name: &str) -> Option<cache::Digest> {
    Some(last?.outputs.get(name)?.digest())
}

/// The record, the last result and the lock.
fn commit(
    project: &Project,
    planner: &mut Planner<'_>,
    stage: usize,
    record: Record,
    outcome: &stages::Outcome,
) -> Result<(), AcceptError> {
    let store = &project.store;
    let spec = &project.pipeline.stages[stage];
    let _held = store.lock(&record.key)?;
    // The same bytes under the same key, made by the stage: its blobs are whole again, and there
    // is nothing to take on somebody's word.
    let made = store.records(&record.key)?.into_iter();
    let mut made = made.filter(|old| old.result() == record.result() && !old.made.accepted);
    let record = if let Some(made) = made.next() {
        made
    } else {
        store.commit(&record)?;
        record
    };
    planner.settle(stage, &record)?;
    let mut lock = Lock::default();
    if let (Some(source), Some(pin)) = (key::source(spec), &outcome.pin) {
        lock.set_source(&source, pin);
    }
    let profile = &project.pipeline.profile;
    lock.set_results(profile, &spec.id, digests(&record));
    lock.set_accepted(
        profile,
        &spec.id,
        record.made.accepted.then_some(record.key),
    );
    Lock::update(&project.lock_file(), &lock)?;
    Ok(())
}

/// Copies what lies in the stage's folder of results into the store.
fn present(
    project: &Project,
    spec: &StageSpec,
    folder: &std::path::Path,
) -> Result<BTreeMap<String, Tree>, AcceptError> {
    let mut outputs = BTreeMap::new();
    for (name, path) in spec.products() {
        let place = folder.join(path);
        if !place.exists() {
            let message = format!(
                "the output `{name}` of `{}` is not there: `{}`",
                spec.id,
                place.display()
            );
            let mend = format!("run the stage: `tunesmith run {}`", spec.id);
            return Err(refused("accept::missing-output", message, mend));
        }
        outputs.insert(name.to_owned(), project.store.put(&place)?);
    }
    Ok(outputs)
}

/// The file of a command's metrics.
fn metrics(spec: &StageSpec, folder: &std::path::Path) -> Option<PathBuf> {
    let products = spec.products();
    let (_, path) = products.iter().find(|(name, _)| *name == "metrics")?;
    let place = folder.join(path);
    place.is_file().then_some(place)
}

fn upstream(above: &str, stage: &str) -> AcceptError {
    refused(
        "accept::upstream",
        format!(
            "`{above}`, which `{stage}` needs, is not up to date: nobody knows `{stage}`'s key"
        ),
        format!("run it first (`tunesmith run {above}`), or accept it, too"),
    )
}

fn refused(code: &'static str, message: String, mend: String) -> AcceptError {
    AcceptError::Refused {
        code,
        message,
        mend,
    }
}
