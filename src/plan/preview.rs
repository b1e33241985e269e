//! The plan for show: what would happen if a run began now.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::{Decision, Planner, Settled};
use super::error::PlanError;

/// A decision for each of `stages`, which must hold everything above them and stand in
/// topological order. A stage whose inputs are not known yet is waiting on the stages that will
/// run (or are ready) above it, however far.
pub fn preview(
    planner: &mut Planner<'_>,
    stages: &[usize],
) -> Result<Vec<(usize, Decision)>, PlanError> {
    let mut settled = Settled::new();
    // Stage -> the stages that must run before anything below it is known.
    let mut behind: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let mut decisions = Vec::with_capacity(stages.len());
    for &stage in stages {
        let mut decision = planner.decide(stage, &settled)?;
        match &mut decision {
            Decision::Fresh { record, .. } => {
                settled.insert(stage, record.outputs.clone());
            }
            Decision::Run { .. } | Decision::Ready { .. } => {
                behind.insert(stage, BTreeSet::from([stage]));
            }
            Decision::Waiting { on } => {
                let own = BTreeSet::new();
                let above = on.iter().map(|above| behind.get(above).unwrap_or(&own));
                let all: BTreeSet<usize> = above.flatten().copied().collect();
                *on = all.iter().copied().collect();
                behind.insert(stage, all);
            }
        }
        decisions.push((stage, decision));
    }
    Ok(decisions)
}
