//! Before a stage runs: its scratch folder, its inputs in it, its environment and its
//! command line.
//!
//! Promises: the environment is the declared one and nothing else; a built-in stage reads
//! blobs in place, a shell command gets files of its own that it may write to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cache::{Scratch, Tree};
use serde_json::Value;
use stages::contract::{RANKS, WorkerRequest};
use stages::{Effect, Params, Stage, StageError};

use super::checkpoints;
use super::job::{Job, read_in_place};
use super::machine::VISIBLE;
use super::process::Program;
use super::{plain, shell, worker};
use crate::config::Action;
use crate::plan::Item;

/// Variables that every stage sees, unkeyed.
const PASSED: [&str; 5] = ["PATH", "HOME", "TMPDIR", VISIBLE, "CUDA_DEVICE_ORDER"];

/// Tells a command where it may keep half-done work: a folder of its key's own, which is
/// there again when the command was killed and runs again.
const CHECKPOINT: &str = "TUNESMITH_CHECKPOINT";

/// Variables that built-in stages see besides: where this machine's libraries lie (CUDA's are loaded at run
/// time), and how it reaches the network.
const OF_THE_MACHINE: [&str; 10] = [
    "LD_LIBRARY_PATH",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "https_proxy",
    "http_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
];

/// A stage ready to start.
pub(crate) struct Prepared {
    /// Goes with everything in it when dropped.
    pub(crate) _scratch: Scratch,
    pub(crate) program: Program,
    /// The command of a `run:` stage, filled in, for its log.
    pub(crate) command: Option<String>,
    /// Product names and where the stage leaves them.
    pub(crate) products: Vec<(String, PathBuf)>,
}

/// The store's error as a stage's.
pub(crate) fn stored(error: &cache::Error) -> StageError {
    StageError::new(error.code(), error.to_string(), error.mend())
}

/// Lays everything out. Blocks.
///
/// `devices` are the GPUs that the stage was given, `derived` what it reads besides its inputs.
pub(crate) fn prepare(
    job: &Job,
    devices: &[String],
    derived: &BTreeMap<String, Tree>,
) -> Result<Prepared, StageError> {
    let scratch = job.store.scratch().map_err(|error| stored(&error))?;
    match &job.spec().action {
        Action::Builtin { stage, params } => {
            builtin(job, *stage, params, devices, derived, scratch)
        }
        Action::Shell { command, outputs } => command_line(job, command, outputs, devices, scratch),
    }
}

fn builtin(
    job: &Job,
    stage: &dyn Stage,
    params: &Params,
    devices: &[String],
    derived: &BTreeMap<String, Tree>,
    scratch: Scratch,
) -> Result<Prepared, StageError> {
    let mut inputs = BTreeMap::new();
    for (port, items) in &job.inputs {
        let mut paths = Vec::new();
        for item in items {
            let place = scratch.path().join(&item.place);
            view(job, item, &place)?;
            paths.push(place);
        }
        inputs.insert(port.clone(), paths);
    }
    let mut made = BTreeMap::new();
    for (name, tree) in derived {
        let place = folder(&scratch.path().join("derived"))?.join(name);
        job.store
            .view(tree, &place)
            .map_err(|error| stored(&error))?;
        made.insert(name.clone(), place);
    }
    let output = folder(&scratch.path().join("output"))?;
    let base = job.store.base();
    let request = WorkerRequest {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        kind: stage.kind().to_owned(),
        version: stage.version(),
        params: params.given().clone(),
        inputs,
        derived: made,
        output: output.clone(),
        checkpoint: folder(&checkpoints::folder_of(job))?,
        keep: folder(&base.join("kept").join(stage.kind()))?,
        seed: job.spec().seed,
        threads: job.threads,
        pin: job.pin.clone(),
        network: job.network,
    };
    let mut env = environment(
        job,
        devices,
        stage.passes_env().iter().copied().chain(OF_THE_MACHINE),
    )?;
    env.push(("RAYON_NUM_THREADS".to_owned(), job.threads.to_string()));
    if devices.len() > 1 {
        env.push((RANKS.to_owned(), devices.len().to_string()));
    }
    let worker = worker::find()?;
    let products = stage.products().iter();
    Ok(Prepared {
        command: None,
        products: products
            .map(|product| (product.name.to_owned(), output.join(product.path)))
            .collect(),
        program: Program {
            line: vec![worker.display().to_string()],
            // What a stage leaves outside (`upload` into a folder) is relative to the pipeline;
            // every other stage has nothing to look for there.
            folder: match stage.effect() {
                Effect::External => job.pipeline.root.clone(),
                Effect::None => scratch.path().to_owned(),
            },
            env,
            input: serde_json::to_string(&request).expect("a request is plain data"),
            limit: job.spec().limits.timeout,
        },
        _scratch: scratch,
    })
}

fn command_line(
    job: &Job,
    command: &str,
    outputs: &[(String, String)],
    devices: &[String],
    scratch: Scratch,
) -> Result<Prepared, StageError> {
    let work = scratch.path().to_owned();
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut laid = Vec::new();
    for (port, all) in &job.inputs {
        for item in all {
            let place = item.place.clone();
            places.entry(port.clone()).or_default().push(place.clone());
            laid.push((place, item));
        }
    }
    let mut wanted = BTreeMap::new();
    for (name, path) in outputs {
        wanted.insert(name.clone(), shell::output(path)?);
    }
    let taken: Vec<_> = laid.iter().map(|(place, _)| place.clone()).collect();
    shell::disjoint(&taken, &wanted.values().cloned().collect::<Vec<_>>())?;
    // Folders first: what lies inside one is there already then.
    laid.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then(a.cmp(b)));
    for (place, item) in laid {
        copy(job, item, &work.join(place))?;
    }
    for (name, path) in outputs {
        let place = work.join(&wanted[name]);
        folder(if path.ends_with('/') {
            &place
        } else {
            place.parent().unwrap_or(&work)
        })?;
    }
    let filled = shell::fill(command, &places, &wanted)?;
    let mut env = environment(job, devices, std::iter::empty())?;
    let checkpoint = checkpoints::open(job).map_err(|(at, error)| StageError::io(&at, &error))?;
    env.push((CHECKPOINT.to_owned(), checkpoint.display().to_string()));
    let line = match plain::words(&filled, &work, &env) {
        Some(words) => {
            // As a shell would tell it.
            env.push(("PWD".to_owned(), work.display().to_string()));
            words
        }
        None => vec!["sh".into(), "-c".into(), filled.clone()],
    };
    Ok(Prepared {
        command: Some(filled),
        products: wanted
            .into_iter()
            .map(|(name, path)| (name, work.join(path)))
            .collect(),
        program: Program {
            line,
            folder: work,
            env,
            input: String::new(),
            limit: job.spec().limits.timeout,
        },
        _scratch: scratch,
    })
}

/// An input to read: links to blobs, or to a file too big for the store.
pub(super) fn view(job: &Job, item: &Item, place: &Path) -> Result<(), StageError> {
    folder(place.parent().expect("an input lies in a folder"))?;
    match read_in_place(item) {
        Some(path) => {
            std::os::unix::fs::symlink(path, place).map_err(|error| StageError::io(place, &error))
        }
        None => job
            .store
            .view(&item.tree, place)
            .map_err(|error| stored(&error)),
    }
}

/// An input of the stage's own.
fn copy(job: &Job, item: &Item, place: &Path) -> Result<(), StageError> {
    if place.exists() {
        return Ok(());
    }
    folder(place.parent().expect("an input lies in a folder"))?;
    match read_in_place(item) {
        // Too big to copy for every run; it is looked at again afterwards.
        Some(path) => {
            std::os::unix::fs::symlink(path, place).map_err(|error| StageError::io(place, &error))
        }
        None => job
            .store
            .lay_out_copy(&item.tree, place)
            .map_err(|error| stored(&error)),
    }
}

pub(super) fn folder(path: &Path) -> Result<PathBuf, StageError> {
    if !path.is_dir() {
        std::fs::create_dir_all(path).map_err(|error| StageError::io(path, &error))?;
    }
    Ok(path.to_owned())
}

/// The whole environment of a stage; what is written in the file wins.
pub(super) fn environment(
    job: &Job,
    devices: &[String],
    passed: impl Iterator<Item = &'static str>,
) -> Result<Vec<(String, String)>, StageError> {
    let mut env = BTreeMap::new();
    for name in PASSED.into_iter().chain(passed) {
        if let Ok(value) = std::env::var(name) {
            env.insert(name.to_owned(), value);
        }
    }
    // A stage that claims no GPU is not kept from seeing those that everybody may see.
    if job.spec().resources.of("gpu") > 0 {
        env.insert(VISIBLE.to_owned(), devices.join(","));
    }
    env.insert("LANG".to_owned(), "C.UTF-8".to_owned());
    env.insert("TZ".to_owned(), "UTC".to_owned());
    for name in &job.spec().secrets {
        match std::env::var(name) {
            Ok(value) => {
                env.insert(name.clone(), value);
            }
            // A built-in stage knows whether it needs it (not every target of `upload` does).
            Err(_) if matches!(job.spec().action, Action::Builtin { .. }) => {}
            Err(_) => {
                let error = StageError::new(
                    "run::secret-not-set",
                    format!("the secret `{name}` is not in the environment"),
                    format!("export {name}, then run again"),
                );
                return Err(error.at("secrets"));
            }
        }
    }
    env.extend(job.spec().env.clone());
    Ok(env.into_iter().collect())
}

/// Metrics of a shell stage: an output called `metrics` that is a JSON object of numbers;
/// deeper objects give dotted names.
pub(crate) fn metrics(path: &Path) -> Result<BTreeMap<String, f64>, StageError> {
    let text = std::fs::read_to_string(path).map_err(|error| StageError::io(path, &error))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| {
        StageError::new(
            "run::bad-metrics",
            format!("the output `metrics` is not JSON: {error}"),
            "write an object of numbers, `{\"accuracy\": 0.9}`, or call the output something else",
        )
        .at("outputs")
    })?;
    let mut found = BTreeMap::new();
    collect("", &value, &mut found);
    Ok(found)
}

fn collect(name: &str, value: &Value, found: &mut BTreeMap<String, f64>) {
    match value {
        Value::Number(number) => {
            found.extend(number.as_f64().map(|value| (name.to_owned(), value)));
        }
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() {
                    field.clone()
                } else {
                    format!("{name}.{field}")
                };
                collect(&name, value, found);
            }
        }
        _ => {}
    }
}
