//! `pipeline.lock`: what the last run resolved, one field a line, sorted, committed to git.
//!
//! ```text
//! accepted.laptop.train = "41d0…"
//! result.laptop.train.adapter = "9f2c…"
//! source."hub:glaiveai/glaive-function-calling-v2@main" = "e7f4b645…"
//! ```
//!
//! Promises: a `source` pin is shared by all profiles, a `result` belongs to one; reading gives
//! every fault with its line; writing changes only the entries that a run settled, in one step,
//! even with two runs at once. The lines are TOML, for tools that like it.

mod file;
mod line;
mod per_stage;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;

use cache::Digest;

use per_stage::PerStage;

pub use file::LockError;

/// The name of the file, beside `pipeline.yaml`.
pub const FILE_NAME: &str = "pipeline.lock";

/// The entries of a lock file, or of a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    sources: BTreeMap<String, String>,
    /// Output name -> tree digest.
    results: PerStage<BTreeMap<String, Digest>>,
    /// The key whose result a person vouches for.
    accepted: PerStage<Digest>,
}

impl Lock {
    /// What an outside source resolved to.
    pub fn source(&self, id: &str) -> Option<&str> {
        self.sources.get(id).map(String::as_str)
    }

    /// The digests of a stage's outputs under a profile.
    pub fn results(&self, profile: &str, stage: &str) -> Option<&BTreeMap<String, Digest>> {
        self.results.get(profile, stage)
    }

    /// Stages with their outputs under a profile.
    pub fn stages(&self, profile: &str) -> impl Iterator<Item = (&str, &BTreeMap<String, Digest>)> {
        self.results.of(profile)
    }

    /// Forgets what a source resolved to; whether it was there.
    pub fn forget_source(&mut self, id: &str) -> bool {
        self.sources.remove(id).is_some()
    }

    /// Forgets the results of stages that `known` does not name under a profile; which.
    pub fn keep_stages(&mut self, profile: &str, known: impl Fn(&str) -> bool) -> Vec<String> {
        self.accepted.retain(profile, &known);
        self.results.retain(profile, known)
    }

    /// The outputs of every stage under any profile.
    pub fn all_results(&self) -> impl Iterator<Item = &BTreeMap<String, Digest>> {
        self.results.iter().map(|(_, _, outputs)| outputs)
    }

    /// The key whose result somebody accepted by hand, if the stage's result is such a one.
    pub fn accepted(&self, profile: &str, stage: &str) -> Option<Digest> {
        self.accepted.get(profile, stage).copied()
    }

    /// Says that the stage's result was accepted by hand for this key, or that it was not.
    pub fn set_accepted(&mut self, profile: &str, stage: &str, key: Option<Digest>) {
        match key {
            Some(key) => drop(self.accepted.insert(profile, stage, key)),
            None => self.accepted.remove(profile, stage),
        }
    }

    /// Pins a source.
    pub fn set_source(&mut self, id: &str, pin: &str) {
        self.sources.insert(id.to_owned(), pin.to_owned());
    }

    /// Sets the outputs of a stage; outputs that it no longer has are dropped.
    pub fn set_results(&mut self, profile: &str, stage: &str, outputs: BTreeMap<String, Digest>) {
        self.results.insert(profile, stage, outputs);
    }

    /// Forgets the outputs of a stage.
    pub fn forget_results(&mut self, profile: &str, stage: &str) {
        self.results.remove(profile, stage);
        self.accepted.remove(profile, stage);
    }

    /// Takes over every entry of `newer`.
    pub fn merge(&mut self, newer: &Self) {
        self.sources.extend(newer.sources.clone());
        for (profile, stage, outputs) in newer.results.iter() {
            self.set_results(profile, stage, outputs.clone());
            self.accepted.remove(profile, stage);
        }
        for (profile, stage, key) in newer.accepted.iter() {
            self.accepted.insert(profile, stage, *key);
        }
    }

    /// The sources alone.
    pub fn pins(&self) -> Self {
        Self {
            sources: self.sources.clone(),
            ..Self::default()
        }
    }

    /// Whether every entry of `part` stands here with the same value: then there is nothing to
    /// write.
    pub fn contains(&self, part: &Self) -> bool {
        let sources = part
            .sources
            .iter()
            .all(|(id, pin)| self.sources.get(id) == Some(pin));
        let same = |(profile, stage, outputs)| {
            self.results.get(profile, stage) == Some(outputs)
                && self.accepted.get(profile, stage) == part.accepted.get(profile, stage)
        };
        sources && part.results.iter().all(same)
    }
}
