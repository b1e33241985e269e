//! What a running stage sees, and what it gives back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{StageError, StageEvent};

/// The world of one run: input paths, an empty output directory, a seed, an event
/// sender and a cancel flag. Nothing else.
pub struct Context<'a> {
    /// Input paths by port name, in the order written.
    pub inputs: BTreeMap<String, Vec<PathBuf>>,
    /// What was derived from the inputs, by the names that [`Stage::derives`](super::Stage::derives) gave.
    pub derived: BTreeMap<String, PathBuf>,
    /// An empty directory; products are written below it.
    pub output: PathBuf,
    /// A directory of this key's own that survives a kill (checkpoints).
    pub checkpoint: PathBuf,
    /// A directory of this stage kind's own that survives across keys (paid answers,
    /// partial downloads).
    pub keep: PathBuf,
    /// The seed of every random choice.
    pub seed: u64,
    /// Worker threads it may use.
    pub threads: usize,
    /// The pinned identity of its outside source, from the lock file.
    pub pin: Option<String>,
    /// Whether the network may be used (`--frozen` says no).
    pub network: bool,
    /// Where events go.
    pub events: &'a (dyn Fn(StageEvent) + Sync),
    /// Set when the run is to stop.
    pub cancel: &'a AtomicBool,
}

impl Context<'_> {
    /// The only path of a required input.
    pub fn input(&self, name: &str) -> Result<&Path, StageError> {
        self.optional(name).ok_or_else(|| {
            StageError::new(
                "stage::missing-input",
                format!("input `{name}` is not given"),
                format!("add `{name}:` under `inputs`"),
            )
            .at("inputs")
        })
    }

    /// The path of an optional input.
    pub fn optional(&self, name: &str) -> Option<&Path> {
        self.inputs.get(name)?.first().map(PathBuf::as_path)
    }

    /// Something derived from an input; nothing where it could not be made, and the stage does without.
    pub fn derived(&self, name: &str) -> Option<&Path> {
        self.derived.get(name).map(PathBuf::as_path)
    }

    /// All paths of a port that accepts a list.
    pub fn all(&self, name: &str) -> &[PathBuf] {
        self.inputs.get(name).map_or(&[], Vec::as_slice)
    }

    /// Sends an event.
    pub fn tell(&self, event: StageEvent) {
        (self.events)(event);
    }

    /// Sends a log line.
    pub fn log(&self, text: impl Into<String>) {
        self.tell(StageEvent::Log { text: text.into() });
    }

    /// Sends a warning.
    pub fn warn(&self, code: &str, text: impl Into<String>) {
        self.tell(StageEvent::Warning {
            code: code.to_owned(),
            text: text.into(),
        });
    }

    /// Sends progress.
    pub fn progress(&self, what: &str, done: u64, total: Option<u64>, unit: &str) {
        self.tell(StageEvent::Progress {
            done,
            total,
            unit: unit.to_owned(),
            what: what.to_owned(),
        });
    }

    /// Fails when the run is to stop; long loops call it.
    pub fn go_on(&self) -> Result<(), StageError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(StageError::new(
                "stage::cancelled",
                "cancelled",
                "run again to go on",
            ));
        }
        Ok(())
    }
}

/// What a run found out beside its files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Figures that gates and `compare` read.
    pub metrics: BTreeMap<String, f64>,
    /// Lines for people: counts, drops by reason, what to do next.
    pub notes: Vec<String>,
    /// What the outside source resolved to; the lock file keeps it.
    pub pin: Option<String>,
}

impl Outcome {
    /// As records keep it: an empty object where nothing was found out, for every run reads one a stage.
    pub fn kept(&self) -> Value {
        if *self == Self::default() {
            return Value::Object(serde_json::Map::new());
        }
        serde_json::to_value(self).expect("an outcome is plain data")
    }

    /// Reads [`Outcome::kept`]; what is no outcome says nothing.
    pub fn of(kept: &Value) -> Self {
        if kept.as_object().is_some_and(serde_json::Map::is_empty) {
            return Self::default();
        }
        Self::deserialize(kept).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_comes_back_as_it_was_kept_whole_or_empty() {
        let metrics = BTreeMap::from([("loss".to_owned(), 0.5)]);
        let some = Outcome {
            metrics,
            ..Outcome::default()
        };
        for outcome in [some, Outcome::default()] {
            assert_eq!(Outcome::of(&outcome.kept()), outcome);
        }
        assert_eq!(Outcome::default().kept(), serde_json::json!({}));
        // As older builds kept it.
        let whole = serde_json::json!({"metrics": {}, "notes": [], "pin": null});
        assert_eq!(Outcome::of(&whole), Outcome::default());
    }
}

/// What a check before the run can see.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// Inputs that are local files or folders, by port name. Inputs made by other stages
    /// are present with an empty list.
    pub inputs: BTreeMap<String, Vec<PathBuf>>,
    /// Parameters of the stages above that made an input, by port name: kind and
    /// canonical parameters, nearest first. Lets `export` see the rank of `train`.
    pub upstream: BTreeMap<String, Vec<(String, super::Params)>>,
    /// Whether it was named, to act outside: what only that needs must be written by now.
    pub acts: bool,
}
