//! From the outputs of a try to its result: taken into the store, committed, shown in `out/`.
//!
//! Promises: inputs that were read in place are looked at again before the result counts; the key's lock
//! goes with the record that is committed and stays with whoever could not commit one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cache::{KeyLock, Made, Record, Ticket, Tree};
use stages::{Outcome, StageError};

use super::checkpoints;
use super::executor::Voice;
use super::job::{Job, Message};
use super::log;
use super::out::{Found, Out};
use super::prepare::{self, Prepared, stored};
use crate::config::Action;
use crate::plan::key;

/// What took longer to make waits until no power cut takes it back: the wait is little beside it.
const QUICK: Duration = Duration::from_millis(200);

/// The lock of the key that is being made; gone with the record.
pub(super) type Locked = Arc<Mutex<Option<KeyLock>>>;

/// Takes the outputs into the store. Blocks.
pub(super) fn collect(
    job: &Job,
    prepared: &Prepared,
    mut outcome: Outcome,
    mut made: Made,
) -> Result<Record, StageError> {
    for (name, path) in &prepared.products {
        let empty = || path.is_dir() && path.read_dir().is_ok_and(|mut dir| dir.next().is_none());
        if path.symlink_metadata().is_err() || empty() {
            return Err(missing(job, prepared, name, path));
        }
    }
    if matches!(job.spec().action, Action::Shell { .. })
        && let Some((_, path)) = prepared.products.iter().find(|(name, _)| name == "metrics")
        && path.is_file()
    {
        outcome.metrics = prepare::metrics(path)?;
    }
    made.log = log::keep(&job.log, &job.store);
    // A source that was resolved is found again under its pin, which the lock will name.
    let parts = match &outcome.pin {
        Some(pin) => key::pinned(&job.parts, pin),
        None => job.parts.clone(),
    };
    let outputs = adopt(job, prepared)?;
    Ok(Record {
        key: parts.digest(),
        parts,
        outputs,
        outcome: outcome.kept(),
        made,
    })
}

/// Takes what was made into the store, if its inputs are still those that it was made from. Blocks.
pub(super) fn adopt(job: &Job, prepared: &Prepared) -> Result<BTreeMap<String, Tree>, StageError> {
    let mut outputs = BTreeMap::new();
    for (name, path) in &prepared.products {
        let tree = job.store.adopt(path).map_err(|error| stored(&error))?;
        outputs.insert(name.clone(), tree);
    }
    same_inputs(job)?;
    Ok(outputs)
}

/// Makes the result exist. That of a stage that was quick to make comes into its place with others
/// a moment later; whatever was worth more is safe when this returns. Blocks.
pub(super) fn keep(
    job: &Job,
    record: &Record,
    lock: &Locked,
    took: Duration,
) -> Result<Ticket, StageError> {
    let store = &job.store;
    // It stays where it is until the record has it: another try may follow.
    let mut lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(held) = &mut *lock {
        // Whoever was frozen for long may find that what it stored was collected.
        let mine = store.still_mine(&job.key, held);
        let whole = mine.and_then(|stayed| Ok(stayed || store.present(record)?));
        if !whole.map_err(|error| stored(&error))? {
            return Err(frozen(job));
        }
    }
    let ticket = store.commit_soon(record, &mut lock);
    let ticket = ticket.map_err(|error| stored(&error))?;
    drop(lock);
    let resolved = record.key != job.key;
    if took > QUICK || resolved || checkpoints::hold_something(job) {
        let settled = job.store.settle();
        let failed = ticket.failure().map_or(settled, Err);
        failed.map_err(|error| stored(&error))?;
    }
    // The result is there: what was kept for resuming is of no more use.
    if !job.pipeline.checkpoints.keep {
        checkpoints::drop_of(job);
    }
    Ok(ticket)
}

/// This process stood still for so long that another collected what it had stored.
fn frozen(job: &Job) -> StageError {
    let text = "this process stood still for too long, and what it had stored is gone";
    let error = StageError::new(
        "run::frozen",
        format!("`{}`: {text}", job.spec().id),
        "run again",
    );
    error.retryable()
}

/// Refuses what was made of an input that changed meanwhile.
fn same_inputs(job: &Job) -> Result<(), StageError> {
    for (path, tree) in job.outside() {
        let same = job.store.unchanged(path, tree);
        if !same.map_err(|error| stored(&error))? {
            return Err(changed(path));
        }
    }
    Ok(())
}

fn missing(job: &Job, prepared: &Prepared, name: &str, path: &Path) -> StageError {
    let shown = path
        .strip_prefix(&prepared.program.folder)
        .unwrap_or(path)
        .display();
    let what = if path.is_dir() {
        "left empty"
    } else {
        "not written"
    };
    StageError::new(
        "run::missing-output",
        format!(
            "the output `{name}` (`{shown}`) was {what} by `{}`",
            job.spec().id
        ),
        "let the command write it, or take it out of `outputs`",
    )
    .at("outputs")
}

fn changed(path: &Path) -> StageError {
    StageError::new(
        "run::input-changed",
        format!("`{}` changed while the stage read it", path.display()),
        "the result was discarded; run again when the file is at rest",
    )
    .at("inputs")
}

/// Shows a new result in `out/`; that this fails costs no result. Blocks.
pub(super) fn show(job: &Job, record: &Record, voice: &Voice) {
    let out = Out {
        store: &job.store,
        root: &job.out,
        profile: &job.pipeline.profile,
    };
    let spec = job.spec();
    match out.show(&spec.id, &spec.products(), record, false) {
        Ok(found) => tell_found(&spec.id, found, |code, text| {
            voice.tell(Message::Notice(code, text));
        }),
        Err(error) => voice.tell(Message::Notice(
            error.code(),
            format!(
                "the result of `{}` is stored, but not shown: {error}",
                spec.id
            ),
        )),
    }
}

/// Says what was found in a stage's folder of results.
pub(crate) fn tell_found(
    stage: &str,
    found: Option<Found>,
    mut tell: impl FnMut(&'static str, String),
) {
    match found {
        None | Some(Found::Back) => {}
        Some(Found::Modified(files)) => {
            let names: Vec<_> = files
                .iter()
                .map(|file| format!("`{}`", file.display()))
                .collect();
            let text = format!(
                "the results of `{stage}` were modified by hand: {}",
                names.join(", ")
            );
            tell("out::modified", text);
        }
        Some(Found::Kept(moves)) => {
            for (from, to) in moves {
                let text = format!(
                    "`{}` was modified by hand: kept as `{}`",
                    from.display(),
                    to.display()
                );
                tell("out::kept", text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;
    use crate::graph;
    use crate::plan::Inputs;

    fn job(folder: &Path) -> Job {
        let text = "name: x\nstages: { s: { run: \"true\", outputs: { it: it.txt } } }\n";
        let file = folder.join("pipeline.yaml");
        let read = graph::read(&file, text.to_owned(), &Overrides::default(), &[]);
        let (pipeline, _) = read.expect("a good pipeline");
        let store = cache::Store::open(&folder.join(".tunesmith")).expect("a store");
        let mut parts = cache::KeyParts::new();
        parts.push("key", "1");
        Job {
            pipeline: Arc::new(pipeline),
            store: Arc::new(store),
            stage: 0,
            key: parts.digest(),
            parts,
            inputs: Inputs::new(),
            pin: None,
            threads: 1,
            network: false,
            forced: false,
            log: folder.join("log"),
            reasons: Vec::new(),
            out: folder.join("out"),
        }
    }

    #[test]
    fn a_commit_that_fails_leaves_the_lock_for_the_next_try() {
        let dir = tempfile::tempdir().unwrap();
        let job = job(dir.path());
        let record = Record {
            key: job.key,
            parts: job.parts.clone(),
            outputs: BTreeMap::new(),
            outcome: serde_json::Value::Null,
            made: Made::default(),
        };
        let lock: Locked = Arc::new(Mutex::new(Some(job.store.lock(&job.key).unwrap())));
        // A file where the record's folder should be.
        let records = job.store.base().join("store/records");
        let shard = records.join(&job.key.hex()[..2]);
        std::fs::write(&shard, "").unwrap();
        assert!(keep(&job, &record, &lock, Duration::ZERO).is_err());
        let other = cache::Store::open(job.store.home()).unwrap();
        let free = || other.try_lock(&job.key).unwrap().is_some();
        assert!(!free(), "the next try has the key to itself");

        std::fs::remove_file(&shard).unwrap();
        assert!(keep(&job, &record, &lock, Duration::ZERO).is_ok());
        job.store.place();
        assert!(free(), "it went with the record");
    }
}
