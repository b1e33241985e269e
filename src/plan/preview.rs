//! The plan for show: what would happen if a run began now.

use std::collections::{BTreeMap, BTreeSet};

use cache::Record;

use super::decide::Planner;
use super::decision::{Decision, Question, Settled};
use super::error::PlanError;

/// Answers questions to a remote, in their order; `None` where it has no such result.
pub type Ask<'a> = dyn FnMut(&[Question]) -> Vec<Option<Record>> + 'a;

/// A decision for each of `stages`, which must hold everything above them and stand in
/// topological order. A stage whose inputs are not known yet is waiting on the stages that will
/// run (or are ready) above it, however far. No remote is asked.
pub fn preview(
    planner: &mut Planner<'_>,
    stages: &[usize],
) -> Result<Vec<(usize, Decision)>, PlanError> {
    preview_with(planner, stages, &mut |questions| {
        vec![None; questions.len()]
    })
}

/// [`preview`] that asks a remote for what would otherwise run: in one go for all stages that are
/// known at a time, and again where an answer makes more of them known.
pub fn preview_with(
    planner: &mut Planner<'_>,
    stages: &[usize],
    ask: &mut Ask<'_>,
) -> Result<Vec<(usize, Decision)>, PlanError> {
    let mut answers: BTreeMap<usize, Option<Record>> = BTreeMap::new();
    loop {
        let (decisions, questions) = look(planner, stages, &answers)?;
        if questions.is_empty() {
            return Ok(with_people(planner, decisions));
        }
        let found = ask(&questions);
        let mut any = false;
        for (question, record) in questions.iter().zip(found) {
            any |= record.is_some();
            answers.insert(question.stage, record);
        }
        if !any {
            return Ok(with_people(planner, decisions));
        }
    }
}

type Looked = (Vec<(usize, Decision)>, Vec<Question>);

/// Decisions by what is known, and what a remote could still be asked for.
fn look(
    planner: &mut Planner<'_>,
    stages: &[usize],
    answers: &BTreeMap<usize, Option<Record>>,
) -> Result<Looked, PlanError> {
    let mut settled = Settled::new();
    // Stage -> the stages that must run before anything below it is known.
    let mut behind: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let mut decisions = Vec::with_capacity(stages.len());
    let mut questions = Vec::new();
    for &stage in stages {
        let mut decision = planner.decide(stage, &settled)?;
        if let Decision::Run {
            key,
            parts,
            inputs,
            reasons,
        } = &mut decision
        {
            match answers.get(&stage) {
                None => questions.extend(planner.question(stage, *key, parts, reasons)),
                Some(None) => {}
                Some(Some(record)) => {
                    decision = Decision::Remote {
                        record: record.clone(),
                        known: false,
                        inputs: std::mem::take(inputs),
                    };
                }
            }
        }
        match &mut decision {
            Decision::Fresh { record, .. } | Decision::Remote { record, .. } => {
                settled.insert(stage, record.outputs.clone());
            }
            Decision::Run { .. } | Decision::People { .. } | Decision::Ready { .. } => {
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
    Ok((decisions, questions))
}

/// What would run and waits for people instead.
fn with_people(planner: &Planner<'_>, decisions: Vec<(usize, Decision)>) -> Vec<(usize, Decision)> {
    let ask = |(stage, decision)| match decision {
        Decision::Run {
            key,
            parts,
            inputs,
            reasons,
        } => match planner.people(stage, &inputs) {
            Some(people) => (
                stage,
                Decision::People {
                    key,
                    parts,
                    inputs,
                    people,
                },
            ),
            None => (
                stage,
                Decision::Run {
                    key,
                    parts,
                    inputs,
                    reasons,
                },
            ),
        },
        other => (stage, other),
    };
    decisions.into_iter().map(ask).collect()
}
