//! Plans of real pipeline files over a real store; running is played by a function that makes
//! outputs from a key's own parts.

mod keys;
mod random;
mod reruns;
mod results;
mod toys;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use cache::{KeyParts, Made, Record, Store};
use stages::Stage;

use super::{Decision, Options, PlanError, Planner, Reason, Settled};
use crate::config::{Overrides, Pipeline};
use crate::graph::{self, Graph};
use crate::lock::Lock;
use toys::{Pull, Toy};

/// A project folder.
struct Project {
    dir: tempfile::TempDir,
    lock: Lock,
    /// Stages whose bytes depend on nothing.
    constant: BTreeSet<String>,
}

impl Project {
    fn new(yaml: &str) -> Self {
        let project = Self {
            dir: tempfile::tempdir().unwrap(),
            lock: Lock::default(),
            constant: BTreeSet::new(),
        };
        project.write("data/a.jsonl", "a");
        project.write("data/b.jsonl", "b");
        project.write("pipeline.yaml", yaml);
        project
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn store(&self) -> Store {
        Store::open(&self.dir.path().join(".tunesmith")).unwrap()
    }

    fn open(&self) -> (Pipeline, Graph) {
        let file = self.dir.path().join("pipeline.yaml");
        let registry: [&'static dyn Stage; 2] = [&Toy, &Pull];
        graph::open(&file, &Overrides::default(), &registry)
            .unwrap_or_else(|faults| panic!("{faults}"))
    }

    /// Plays a whole run and tells what happened to each stage, in order.
    fn run(&self, options: &Options) -> Vec<(String, Happened)> {
        self.try_run(options).unwrap()
    }

    fn try_run(&self, options: &Options) -> Result<Vec<(String, Happened)>, PlanError> {
        let (pipeline, graph) = self.open();
        let store = self.store();
        let mut planner = Planner::new(&pipeline, &store, &self.lock, options.clone());
        let mut settled = Settled::new();
        let mut told = Vec::new();
        for &stage in graph.order() {
            let id = pipeline.stages[stage].id.clone();
            let happened = match planner.decide(stage, &settled)? {
                Decision::Fresh { record, restored } => {
                    planner.settle(stage, &record)?;
                    settled.insert(stage, record.outputs);
                    if restored {
                        Happened::Restored
                    } else {
                        Happened::Fresh
                    }
                }
                Decision::Run { parts, reasons, .. } => {
                    let record = self.play(&store, &id, &pipeline, stage, &parts);
                    planner.settle(stage, &record)?;
                    settled.insert(stage, record.outputs);
                    Happened::Ran(reasons)
                }
                Decision::Remote { .. } => unreachable!("there is no remote"),
                Decision::People { .. } => unreachable!("nobody is asked"),
                Decision::Waiting { .. } => Happened::Waited,
                Decision::Ready { done, .. } => Happened::Ready(done),
            };
            told.push((id, happened));
        }
        Ok(told)
    }

    /// Makes each output out of the key's parts, or out of nothing.
    fn play(
        &self,
        store: &Store,
        id: &str,
        pipeline: &Pipeline,
        stage: usize,
        parts: &KeyParts,
    ) -> Record {
        let scratch = store.scratch().unwrap();
        let mut outputs = BTreeMap::new();
        for (name, _) in pipeline.stages[stage].products() {
            let path = scratch.path().join(name);
            let text = if self.constant.contains(id) {
                format!("{id} {name}")
            } else {
                format!("{id} {name} {}", parts.digest())
            };
            fs::write(&path, text).unwrap();
            outputs.insert(name.to_owned(), store.adopt(&path).unwrap());
        }
        let record = Record {
            key: parts.digest(),
            parts: parts.clone(),
            outputs,
            outcome: serde_json::Value::Null,
            made: Made::default(),
        };
        store.commit(&record).unwrap();
        record
    }

    fn parts(&self, id: &str) -> KeyParts {
        let (pipeline, graph) = self.open();
        let store = self.store();
        let options = Options {
            forced: BTreeSet::from([id.to_owned()]),
            ..Options::default()
        };
        let mut planner = Planner::new(&pipeline, &store, &self.lock, options);
        let stage = graph.find(id).unwrap();
        match planner.decide(stage, &Settled::new()).unwrap() {
            Decision::Run { parts, .. } => parts,
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Happened {
    Fresh,
    Restored,
    Ran(Vec<Reason>),
    Waited,
    Ready(bool),
}

fn ran(told: &[(String, Happened)]) -> Vec<&str> {
    let ran = told
        .iter()
        .filter(|(_, happened)| matches!(happened, Happened::Ran(_)));
    ran.map(|(id, _)| &**id).collect()
}

fn with(told: &[(String, Happened)], wanted: &Happened) -> Vec<String> {
    let such = told.iter().filter(|(_, happened)| happened == wanted);
    such.map(|(id, _)| id.clone()).collect()
}

fn sentences(told: &[(String, Happened)], id: &str) -> Vec<String> {
    match told.iter().find(|(name, _)| name == id) {
        Some((_, Happened::Ran(reasons))) => reasons.iter().map(ToString::to_string).collect(),
        other => panic!("`{id}` did not run: {other:?}"),
    }
}

const CHAIN: &str = "\
name: chain
stages:
  rows:
    run: cat ${inputs.a} > ${outputs.out}
    inputs: { a: ./data/a.jsonl }
    outputs: { out: out.jsonl }
  train:
    uses: toy
    inputs: { rows: [rows, data/b.jsonl] }
    with: { lr: 0.2 }
  eval:
    uses: toy
    inputs: { rows: train }
    gates: { score: '>= 0.5' }
";
