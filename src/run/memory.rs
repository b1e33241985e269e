//! What the training stages of a plan would take of cards, asked of the worker: the command knows no CUDA.
//!
//! Promises: nothing is run and nothing is kept; rows that are not made yet are assumed, and of a base that is not
//! fetched yet its config is enough (base.rs).

mod base;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cache::Scratch;
use serde_json::{Value, json};
use stages::contract::WorkerRequest;
use stages::train::memory::{ANSWER, Forecast, KIND};
use stages::{Stage, StageError, registry};

use super::Project;
use super::prepare::stored;
use super::worker::{self, Heard};
use crate::config::{Action, Reference, StageSpec};
use crate::plan::{Decision, Settled};
use base::Bases;

/// Train stages that would take the same, and what that is.
pub struct Planned {
    /// Ids of the stages.
    pub stages: Vec<String>,
    /// What they would take.
    pub forecast: Forecast,
}

/// Ports of a train stage that a plan depends on.
const PORTS: [&str; 4] = ["base", "tools", "train", "val"];

/// Plans the memory of every train stage among `decisions`. `cards` are names or sizes; none means all that are known.
///
/// # Errors
/// What the worker says, and `memory::no-base` where the shape of a base cannot be had yet.
pub fn memory(
    project: &Project,
    decisions: &[(usize, Decision)],
    cards: &[String],
) -> Result<Vec<Planned>, StageError> {
    let known = decisions
        .iter()
        .filter_map(|(stage, decision)| match decision {
            Decision::Fresh { record, .. } => Some((*stage, record.outputs.clone())),
            _ => None,
        });
    let known: Settled = known.collect();
    let mut bases = Bases::default();
    let mut planned: Vec<Planned> = Vec::new();
    for (stage, _) in decisions {
        let spec = &project.pipeline.stages[*stage];
        if !matches!(&spec.action, Action::Builtin { stage, .. } if stage.kind() == "train") {
            continue;
        }
        let forecast = ask(project, spec, &known, &mut bases, cards)?;
        match planned.iter_mut().find(|one| one.forecast == forecast) {
            Some(same) => same.stages.push(spec.id.clone()),
            None => planned.push(Planned {
                stages: vec![spec.id.clone()],
                forecast,
            }),
        }
    }
    Ok(planned)
}

fn ask(
    project: &Project,
    spec: &StageSpec,
    known: &Settled,
    bases: &mut Bases,
    cards: &[String],
) -> Result<Forecast, StageError> {
    let Action::Builtin { stage: _, params } = &spec.action else {
        unreachable!("only train is asked about");
    };
    let scratch = project.store.scratch().map_err(|error| stored(&error))?;
    let asked = BTreeMap::from([
        ("train".to_owned(), json!(params.given())),
        ("cards".to_owned(), json!(cards)),
    ]);
    let mut request = request(&scratch, KIND, asked)?;
    let folder = folder(&scratch, "inputs")?;
    request.inputs = inputs(project, spec, known, bases, &folder)?;
    request.seed = spec.seed;
    answered(&request)?;
    let path = request.output.join(ANSWER);
    let text = std::fs::read(&path).map_err(|error| StageError::io(&path, &error))?;
    serde_json::from_slice(&text).map_err(|error| {
        let message = format!("the worker's answer is not understood: {error}");
        StageError::new(
            "memory::answer",
            message,
            "install `tunesmith` and `tunesmith-worker` from one build",
        )
    })
}

/// A request without inputs, all of whose folders lie in `scratch`.
fn request(
    scratch: &Scratch,
    kind: &str,
    params: BTreeMap<String, Value>,
) -> Result<WorkerRequest, StageError> {
    Ok(WorkerRequest {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        kind: kind.to_owned(),
        version: registry::find(kind).map_or(0, Stage::version),
        params,
        inputs: BTreeMap::new(),
        derived: BTreeMap::new(),
        output: folder(scratch, "output")?,
        checkpoint: folder(scratch, "checkpoint")?,
        keep: folder(scratch, "keep")?,
        seed: 0,
        threads: 1,
        pin: None,
        network: false,
    })
}

fn folder(scratch: &Scratch, name: &str) -> Result<PathBuf, StageError> {
    let path = scratch.path().join(name);
    std::fs::create_dir_all(&path).map_err(|error| StageError::io(&path, &error))?;
    Ok(path)
}

/// Paths of those inputs that are there.
fn inputs(
    project: &Project,
    spec: &StageSpec,
    known: &Settled,
    bases: &mut Bases,
    folder: &Path,
) -> Result<BTreeMap<String, Vec<PathBuf>>, StageError> {
    let mut inputs = BTreeMap::new();
    for input in &spec.inputs {
        let (true, [reference]) = (PORTS.contains(&&*input.name), &input.references[..]) else {
            continue;
        };
        let path = match reference {
            Reference::Path(path) => Some(project.pipeline.root.join(path)),
            Reference::Product { stage, product } => {
                let made = project.graph.find(stage);
                let tree = made
                    .and_then(|at| known.get(&at))
                    .and_then(|o| o.get(product));
                tree.map(|tree| {
                    let place = folder.join(&input.name);
                    let laid = project.store.view(tree, &place);
                    laid.map(|()| place).map_err(|error| stored(&error))
                })
                .transpose()?
            }
        };
        let path = match (path, reference) {
            (None, Reference::Product { stage, .. }) if input.name == "base" => {
                Some(bases.find(project, spec, stage)?)
            }
            (path, _) => path,
        };
        if let Some(path) = path {
            inputs.insert(input.name.clone(), vec![path]);
        }
    }
    Ok(inputs)
}

/// Runs the worker to its end.
fn answered(request: &WorkerRequest) -> Result<(), StageError> {
    let program = worker::find()?;
    let failed = |error: std::io::Error| StageError::io(&program, &error);
    let mut child = Command::new(&program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let text = serde_json::to_string(request).expect("a request is plain data");
    let mut to = child.stdin.take().expect("it is piped");
    to.write_all(text.as_bytes()).map_err(failed)?;
    drop(to);
    let output = child.wait_with_output().map_err(failed)?;
    let mut heard = Heard::default();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let _told_elsewhere = heard.line(line);
    }
    heard.ended(output.status).map(|_| ())
}
