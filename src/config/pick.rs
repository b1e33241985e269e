//! `pick: {max: val-eval.tool_selection}`: one cell of a sweep goes on.

use stages::Stage;

use super::fault::Fault;
use super::node::Entry;
use super::pipeline::{InputSpec, Span};
use super::template::Scope;
use super::{section, suggest};

/// Which cell of the sweep above a stage reads.
#[derive(Clone, Debug)]
pub struct PickSpec {
    /// Whether the largest value wins, or the smallest.
    pub largest: bool,
    /// The stage whose cells are measured.
    pub stage: String,
    /// The metric.
    pub metric: String,
    /// Where it stands.
    pub span: Span,
    /// What can be picked, in the order of the measured cells' names; the first of equals wins.
    pub candidates: Vec<Candidate>,
}

/// One cell that can be picked.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The measured cell, `val-eval[lr=1e-4]`.
    pub measured: String,
    /// What the stage reads when this one is picked.
    pub inputs: Vec<InputSpec>,
}

/// `pick:` as it is written.
pub(crate) struct Wanted<'a> {
    pub(crate) largest: bool,
    /// Index of the measured stage.
    pub(crate) stage: usize,
    pub(crate) metric: String,
    pub(crate) entry: &'a Entry,
}

/// Reads `pick:`; `stages` are the names of all stages in file order.
pub(crate) fn wanted<'a>(
    entry: &'a Entry,
    stages: &[&str],
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) -> Option<Wanted<'a>> {
    let mend = "write `pick: { max: stage.metric }` or `pick: { min: stage.metric }`";
    let entries = section::map(&entry.value, "pick", faults);
    section::only(entries, &["max", "min"], "`pick`", faults);
    let found = match (section::get(entries, "max"), section::get(entries, "min")) {
        (Some(max), None) => max,
        (None, Some(min)) => min,
        _ => {
            let message = "`pick` says which cell wins: by `max` or by `min`";
            faults.push(Fault::at(&entry.key_span, "config::bad-pick", message).mend(mend));
            return None;
        }
    };
    let value = scope.value(&found.value, faults)?;
    let text = value.as_str().unwrap_or_default();
    // Names of stages and of metrics may hold dots: the longest name that is a stage counts.
    let splits = text.match_indices('.').map(|(at, _)| text.split_at(at));
    let splits = splits.filter(|(_, metric)| metric.len() > 1);
    let known = splits.filter_map(|(stage, metric)| {
        let at = stages.iter().position(|name| *name == stage)?;
        Some((at, metric[1..].to_owned()))
    });
    let longest = known.max_by_key(|(stage, _)| stages[*stage].len());
    let Some((stage, metric)) = longest else {
        let named = text.split('.').next().unwrap_or_default();
        let message = format!("`{text}` names no metric of a stage");
        let mend = match suggest::nearest(named, stages.iter().copied()) {
            Some(near) if near != named => format!("did you mean stage `{near}`?"),
            _ => mend.to_owned(),
        };
        faults.push(Fault::at(&found.value.span, "config::bad-pick", message).mend(mend));
        return None;
    };
    Some(Wanted {
        largest: found.key == "max",
        stage,
        metric,
        entry: found,
    })
}

/// What is known of a stage that might be measured.
pub(crate) struct Measured<'a> {
    pub(crate) id: &'a str,
    pub(crate) span: &'a Span,
    pub(crate) builtin: Option<&'static dyn Stage>,
    pub(crate) gated: bool,
    /// What its `prompts` input names.
    pub(crate) prompts: Option<String>,
}

/// Picking on what decides about the release spoils the test set: a fault.
pub(crate) fn honest(wanted: &Wanted<'_>, all: &[Measured<'_>], faults: &mut Vec<Fault>) {
    let measured = &all[wanted.stage];
    let at = &wanted.entry.value.span;
    let mend = "measure the cells on val or on a dev split, in a stage without gates";
    if measured.gated {
        let message = format!(
            "`pick` chooses by `{}`, whose gates judge the choice",
            measured.id
        );
        let fault = Fault::at(at, "config::pick-on-gate", message);
        faults.push(fault.also(measured.span, "this stage has gates").mend(mend));
        return;
    }
    let kind = |stage: &Measured<'_>| stage.builtin.map(Stage::kind);
    let same = |stage: &&Measured<'_>| {
        stage.gated
            && kind(stage).is_some()
            && kind(stage) == kind(measured)
            && stage.prompts.is_some()
            && stage.prompts == measured.prompts
    };
    if let Some(judge) = all.iter().find(same) {
        let message = format!(
            "`pick` chooses by `{}`, which reads the prompts of `{}`, whose gates judge the choice",
            measured.id, judge.id
        );
        let fault = Fault::at(at, "config::pick-on-gate", message);
        faults.push(fault.also(judge.span, "this stage has gates").mend(mend));
    }
}
