//! Which cell of a sweep goes on: the one with the best metric.
//!
//! Promises: nothing is picked before every cell is measured; the first of equal cells, by name,
//! wins, so that a pick is the same on every machine; what is not a number wins never.

use std::collections::{BTreeMap, BTreeSet};

use cache::Record;
use stages::Outcome;

use super::error::PlanError;
use crate::config::{Candidate, PickSpec, Pipeline, StageSpec};

/// What a stage picked.
#[derive(Clone, Debug, PartialEq)]
pub struct Picked {
    /// The measured cell, `val-eval[lr=1e-4]`.
    pub cell: String,
    /// `val-eval.tool_selection`.
    pub metric: String,
    /// Whether the largest wins.
    pub largest: bool,
    /// Its value there.
    pub value: f64,
    /// How many cells there were.
    pub among: usize,
}

/// Metrics of measured stages, and what was picked by them.
#[derive(Debug, Default)]
pub(super) struct Picks {
    /// Stages that some `pick` measures.
    measured: BTreeSet<usize>,
    metrics: BTreeMap<usize, BTreeMap<String, f64>>,
    pub(super) made: BTreeMap<usize, Picked>,
}

impl Picks {
    pub(super) fn new(pipeline: &Pipeline) -> Self {
        let picks = pipeline.stages.iter().filter_map(|spec| spec.pick.as_ref());
        let names: BTreeSet<&str> = picks.map(|pick| pick.stage.as_str()).collect();
        if names.is_empty() {
            return Self::default();
        }
        let stages = pipeline.stages.iter().enumerate();
        let measured = stages.filter(|(_, spec)| names.contains(spec.name.as_str()));
        Self {
            measured: measured.map(|(at, _)| at).collect(),
            ..Self::default()
        }
    }

    /// Hears of a result.
    pub(super) fn measure(&mut self, stage: usize, record: &Record) {
        if self.measured.contains(&stage) {
            let outcome = Outcome::of(&record.outcome);
            self.metrics.insert(stage, outcome.metrics);
        }
    }

    /// The candidate to read, or the stages that are not measured yet.
    pub(super) fn choose<'p>(
        &mut self,
        stage: usize,
        spec: &StageSpec,
        pick: &'p PickSpec,
        index: &BTreeMap<&str, usize>,
    ) -> Result<Result<&'p Candidate, Vec<usize>>, PlanError> {
        let at = |candidate: &Candidate| {
            *index
                .get(candidate.measured.as_str())
                .unwrap_or_else(|| panic!("bug: `{}` passed the checks", candidate.measured))
        };
        let mut missing: Vec<usize> = pick.candidates.iter().map(at).collect();
        missing.retain(|stage| !self.metrics.contains_key(stage));
        if !missing.is_empty() {
            missing.sort_unstable();
            return Ok(Err(missing));
        }
        let mut best: Option<(&Candidate, f64)> = None;
        for candidate in &pick.candidates {
            let metrics = &self.metrics[&at(candidate)];
            let Some(value) = metrics.get(&pick.metric).copied() else {
                return Err(PlanError::NoMetric {
                    stage: spec.id.clone(),
                    cell: candidate.measured.clone(),
                    metric: pick.metric.clone(),
                    known: metrics.keys().cloned().collect(),
                });
            };
            let better = |best: f64| {
                if pick.largest {
                    value > best
                } else {
                    value < best
                }
            };
            if !value.is_nan() && best.is_none_or(|(_, best)| better(best)) {
                best = Some((candidate, value));
            }
        }
        let Some((candidate, value)) = best else {
            return Err(PlanError::NoNumber {
                stage: spec.id.clone(),
                metric: format!("{}.{}", pick.stage, pick.metric),
            });
        };
        let picked = Picked {
            cell: candidate.measured.clone(),
            metric: format!("{}.{}", pick.stage, pick.metric),
            largest: pick.largest,
            value,
            among: pick.candidates.len(),
        };
        self.made.insert(stage, picked);
        Ok(Ok(candidate))
    }
}
