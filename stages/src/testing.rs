//! A stage run in a test: a context over a temporary folder, events collected.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use serde_json::Value;

use crate::contract::{Context, Outcome, Params, Stage, StageError, StageEvent, canonical};

/// A folder for inputs, outputs and kept files.
pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) inputs: BTreeMap<String, Vec<PathBuf>>,
    pub(crate) derived: BTreeMap<String, PathBuf>,
    pub(crate) events: Mutex<Vec<StageEvent>>,
    pub(crate) seed: u64,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            inputs: BTreeMap::new(),
            derived: BTreeMap::new(),
            events: Mutex::new(Vec::new()),
            seed: 7,
        }
    }

    /// Writes a file and gives it to a port.
    pub(crate) fn give(&mut self, port: &str, name: &str, text: &str) -> &mut Self {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        self.inputs.entry(port.to_owned()).or_default().push(path);
        self
    }

    pub(crate) fn tools(&mut self) -> &mut Self {
        self.give("tools", "tools.yaml", include_str!("../../data/tools.yaml"))
    }

    /// Runs a stage into `out/`.
    pub(crate) fn run(&self, stage: &dyn Stage, with: Value) -> Result<Outcome, StageError> {
        self.under(stage, with, |params, ctx| stage.run(params, ctx))
    }

    /// Does something with what a run of `stage` would be given, its output in `out/`.
    pub(crate) fn under<T>(
        &self,
        stage: &dyn Stage,
        with: Value,
        then: impl FnOnce(&Params, &Context<'_>) -> T,
    ) -> T {
        let given: BTreeMap<String, Value> =
            with.as_object().unwrap().clone().into_iter().collect();
        let params = canonical(stage.fields(), &given).expect("the parameters are right");
        let output = self.out();
        let _ = std::fs::remove_dir_all(&output);
        let keep = self.folder.path().join("keep");
        for path in [&output, &keep] {
            std::fs::create_dir_all(path).unwrap();
        }
        let cancel = AtomicBool::new(false);
        let events = |event| self.events.lock().unwrap().push(event);
        then(
            &params,
            &Context {
                inputs: self.inputs.clone(),
                derived: self.derived.clone(),
                output,
                checkpoint: keep.clone(),
                keep,
                seed: self.seed,
                threads: 1,
                pin: None,
                network: true,
                events: &events,
                cancel: &cancel,
            },
        )
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    pub(crate) fn text(&self, name: &str) -> String {
        read(&self.out().join(name))
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.text(name)).unwrap()
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
