//! The checked pipeline: every name resolved, every `${...}` evaluated, one profile.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use stages::{Effect, Params, Stage};

use super::cell::Cell;
use super::checkpoints::Checkpoints;
use super::pick::PickSpec;
use super::resources::{Pools, Resources};

use super::remote::RemoteSpec;
use super::store::StoreSpec;

/// Byte range in the text of `pipeline.yaml`.
pub type Span = Range<usize>;

/// A whole pipeline under one profile.
pub struct Pipeline {
    /// `name:`
    pub name: String,
    /// Folder of the pipeline file; relative paths start here.
    pub root: PathBuf,
    /// The pipeline file.
    pub file: PathBuf,
    /// Its text, for drawing faults.
    pub text: String,
    /// The chosen profile (`default` where the file declares none).
    pub profile: String,
    /// Every profile the file declares.
    pub profiles: Vec<String>,
    /// `seed:`, 0 by default; part of every key.
    pub seed: u64,
    /// Parameters after profile and `--set`.
    pub params: BTreeMap<String, Value>,
    /// `pools:`: sizes that the file declares; the others are the machine's.
    pub pools: Pools,
    /// `checkpoints:`: how long half-done work is kept.
    pub checkpoints: Checkpoints,
    /// `store:`: where results are kept, and how long.
    pub store: StoreSpec,
    /// `remote:`: where results are fetched from and put.
    pub remote: RemoteSpec,
    /// `default:`: what a plain run makes; `None` means every stage without an outside
    /// effect.
    pub default: Option<Vec<String>>,
    /// Stages of this profile in file order (a stage may say `profiles: [..]`).
    pub stages: Vec<StageSpec>,
}

/// One stage.
pub struct StageSpec {
    /// Its name with its cell, `train[lr=1e-4]`: nothing else is called so.
    pub id: String,
    /// Its name as the file has it.
    pub name: String,
    /// What a sweep binds here.
    pub cell: Cell,
    /// `pick:`: which cell of a sweep above it reads; `inputs` are those of the first candidate.
    pub pick: Option<PickSpec>,
    /// `fingerprint:` of a command: programs whose output is a part of the key.
    pub fingerprint: Vec<String>,
    /// Where the name stands.
    pub span: Span,
    /// `about:`, one line for people.
    pub about: Option<String>,
    /// What it does.
    pub action: Action,
    /// Its inputs in file order.
    pub inputs: Vec<InputSpec>,
    /// `env:`: keyed, handed through.
    pub env: BTreeMap<String, String>,
    /// `secrets:`: names handed through unkeyed, masked in logs.
    pub secrets: Vec<String>,
    /// What it takes while it runs.
    pub resources: Resources,
    /// Retries and time-out.
    pub limits: Limits,
    /// Checks on its metrics, in no key.
    pub gates: Vec<Gate>,
    /// Whether it changes something outside.
    pub effect: Effect,
    /// `seed:` of the stage, else the pipeline's; part of the key.
    pub seed: u64,
    /// Fields and their places, `with.lr`, `inputs.rows`: for faults found later.
    pub spans: BTreeMap<String, Span>,
}

/// What a stage does.
pub enum Action {
    /// `uses:` a built-in stage.
    Builtin {
        /// The stage.
        stage: &'static dyn Stage,
        /// Checked parameters.
        params: Params,
    },
    /// `run:` a shell command.
    Shell {
        /// The command after substitution of parameters; `${inputs.x}` and
        /// `${outputs.x}` stay and are filled in by the executor.
        command: String,
        /// Outputs: name and path below the scratch folder. The first is the default.
        outputs: Vec<(String, String)>,
    },
}

/// One named input.
#[derive(Clone, Debug)]
pub struct InputSpec {
    /// Port name.
    pub name: String,
    /// Where the value stands.
    pub span: Span,
    /// What it names; several where a list is written.
    pub references: Vec<Reference>,
}

/// What an input names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// An output of another stage.
    Product {
        /// Stage id.
        stage: String,
        /// Output name.
        product: String,
    },
    /// A file or folder, relative to the pipeline's folder or absolute.
    Path(PathBuf),
}

/// Retries and time-out, in no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Further tries after a retryable failure.
    pub retries: u32,
    /// Wall-clock limit.
    pub timeout: Option<Duration>,
}

/// `gates:` entry, `tool_selection: ">= 0.8"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// Metric name.
    pub metric: String,
    /// Whether the metric must be at least (true) or at most (false) the threshold.
    pub at_least: bool,
    /// The threshold.
    pub threshold: f64,
    /// Where it stands.
    pub span: Span,
}

impl Pipeline {
    /// `pipeline.yaml:14:5`: line and column of a place, both from 1.
    pub fn shown_place(&self, span: &Span) -> String {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        format!("{name}:{line}:{column}")
    }
}

impl StageSpec {
    /// Where a field stands, `with.lr`: the nearest place that is written, in the end the
    /// stage's name.
    pub fn place(&self, field: &str) -> Span {
        let mut path = field;
        loop {
            if let Some(span) = self.spans.get(path) {
                return span.clone();
            }
            match path.rfind('.') {
                Some(dot) => path = &path[..dot],
                None => return self.span.clone(),
            }
        }
    }

    /// The stages that it may read, and where it says so.
    pub fn reads(&self) -> Vec<(&str, &Span)> {
        let mut found = Vec::new();
        let candidates = self.pick.iter().flat_map(|pick| &pick.candidates);
        let all = std::iter::once(&self.inputs).chain(candidates.clone().map(|one| &one.inputs));
        for input in all.flatten() {
            for reference in &input.references {
                if let Reference::Product { stage, .. } = reference {
                    found.push((stage.as_str(), &input.span));
                }
            }
        }
        if let Some(pick) = &self.pick {
            found.extend(candidates.map(|one| (one.measured.as_str(), &pick.span)));
        }
        found
    }

    /// Output names with their paths, the default first.
    pub fn products(&self) -> Vec<(&str, &str)> {
        match &self.action {
            Action::Builtin { stage, .. } => stage
                .products()
                .iter()
                .map(|product| (product.name, product.path))
                .collect(),
            Action::Shell { outputs, .. } => outputs
                .iter()
                .map(|(name, path)| (name.as_str(), path.as_str()))
                .collect(),
        }
    }
}
