//! What the stages themselves know to be wrong before anything runs.
//!
//! Promises: every stage of the profile is asked once, with the local files among its
//! inputs and the parameters above it; no network. Must not know: keys, the store.

use std::collections::{BTreeSet, VecDeque};

use stages::{Params, Site};

use crate::config::{Action, Fault, Faults, InputSpec, Pipeline, Reference};
use crate::graph::Graph;

/// So many stages above are shown to a stage's check, nearest first. Enough for any
/// pipeline of this kind, and it keeps the check of a very long chain linear.
const SEEN_ABOVE: usize = 64;

/// Asks every built-in stage among `stages` (indices into the pipeline). `acts`: those that act outside
/// were named and are to do so.
pub fn stages(
    pipeline: &Pipeline,
    graph: &Graph,
    stages: &[usize],
    acts: bool,
) -> Result<(), Faults> {
    let mut faults = Vec::new();
    for index in stages {
        let stage = &pipeline.stages[*index];
        let Action::Builtin {
            stage: room,
            params,
        } = &stage.action
        else {
            continue;
        };
        let candidates = stage.pick.iter().flat_map(|pick| &pick.candidates);
        let mut reads: Vec<&[InputSpec]> = candidates.map(|one| &*one.inputs).collect();
        if reads.is_empty() {
            reads.push(&stage.inputs);
        }
        // Whichever cell is picked, it must fit.
        for inputs in reads {
            let site = Site {
                acts,
                ..site(pipeline, graph, inputs)
            };
            for found in room.check(params, &site) {
                let span = stage.place(&found.field);
                let message = format!("stage `{}`: {}", stage.id, found.message);
                faults.push(Fault::at(&span, &found.code, message).mend(found.mend));
            }
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(Faults::new(&pipeline.file, &pipeline.text, faults))
}

fn site(pipeline: &Pipeline, graph: &Graph, inputs: &[InputSpec]) -> Site {
    let mut site = Site::default();
    // Without any reference (a parameter that is null) it is left out.
    for input in inputs.iter().filter(|input| !input.references.is_empty()) {
        let paths = input
            .references
            .iter()
            .filter_map(|reference| match reference {
                Reference::Path(path) => Some(pipeline.root.join(path)),
                Reference::Product { .. } => None,
            });
        site.inputs.insert(input.name.clone(), paths.collect());
        let above = above(pipeline, graph, input);
        if !above.is_empty() {
            site.upstream.insert(input.name.clone(), above);
        }
    }
    site
}

/// Kind and parameters of the built-in stages that made an input, nearest first.
fn above(pipeline: &Pipeline, graph: &Graph, input: &InputSpec) -> Vec<(String, Params)> {
    let mut open: VecDeque<usize> = VecDeque::new();
    for reference in &input.references {
        if let Reference::Product { stage, .. } = reference {
            open.extend(graph.find(stage));
        }
    }
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    while let Some(at) = open.pop_front() {
        if !seen.insert(at) || seen.len() > SEEN_ABOVE {
            continue;
        }
        if let Action::Builtin { stage, params } = &pipeline.stages[at].action {
            found.push((stage.kind().to_owned(), params.clone()));
        }
        open.extend(graph.parents(at));
    }
    found
}
