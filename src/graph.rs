//! Stages and the edges that their inputs draw, in petgraph.
//!
//! Promises: every stage stands after what it reads; every cycle is named stage by stage
//! with the lines that close it; neighbours and orders are the same on every machine.
//! Must not know: keys, the store, how a graph is drawn.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use petgraph::Direction;
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use stages::Stage;

use crate::config::{
    self, Fault, Faults, Loaded, Overrides, Pipeline, Remembered, Selector, suggest,
};

/// The graph of a pipeline. Stages are indices into [`Pipeline::stages`].
pub struct Graph {
    edges: DiGraph<(), ()>,
    order: Vec<usize>,
    index: BTreeMap<String, usize>,
}

/// Reads the pipeline and builds its graph: the faults of both rooms together.
pub fn open(
    file: &Path,
    overrides: &Overrides,
    registry: &[&'static dyn Stage],
) -> Result<(Pipeline, Graph), Faults> {
    read(file, config::read(file)?, overrides, registry)
}

/// [`open`] that spares parsing a text which was parsed before.
pub fn open_remembering(
    file: &Path,
    overrides: &Overrides,
    registry: &[&'static dyn Stage],
    remembered: &mut Remembered,
) -> Result<(Pipeline, Graph), Faults> {
    let text = config::read(file)?;
    finish(config::load_lenient(
        file,
        text,
        overrides,
        registry,
        Some(remembered),
    )?)
}

/// [`open`] on the text of `file`: any text gives a pipeline or faults, each with its place.
pub fn read(
    file: &Path,
    text: String,
    overrides: &Overrides,
    registry: &[&'static dyn Stage],
) -> Result<(Pipeline, Graph), Faults> {
    finish(config::load_lenient(file, text, overrides, registry, None)?)
}

fn finish(loaded: Loaded) -> Result<(Pipeline, Graph), Faults> {
    let (graph, cycles) = build(&loaded.pipeline);
    Ok((loaded.finish(cycles)?, graph))
}

fn build(pipeline: &Pipeline) -> (Graph, Vec<Fault>) {
    let index: BTreeMap<String, usize> = pipeline
        .stages
        .iter()
        .enumerate()
        .map(|(at, stage)| (stage.id.clone(), at))
        .collect();
    let mut graph = DiGraph::with_capacity(pipeline.stages.len(), pipeline.stages.len());
    for _ in &pipeline.stages {
        graph.add_node(());
    }
    for (below, above) in pipeline
        .stages
        .iter()
        .enumerate()
        .flat_map(|(below, stage)| {
            let mut above: Vec<usize> = stage
                .reads()
                .into_iter()
                .filter_map(|(name, _)| index.get(name).copied())
                .collect();
            above.sort_unstable();
            above.dedup();
            above.into_iter().map(move |above| (below, above))
        })
    {
        graph.add_edge(NodeIndex::new(above), NodeIndex::new(below), ());
    }
    let faults = cycles(pipeline, &graph, &index);
    let order = order(&graph);
    (
        Graph {
            edges: graph,
            order,
            index,
        },
        faults,
    )
}

impl Graph {
    /// Builds the graph, or names every cycle.
    pub fn new(pipeline: &Pipeline) -> Result<Self, Faults> {
        let (graph, faults) = build(pipeline);
        if faults.is_empty() {
            return Ok(graph);
        }
        Err(Faults::new(&pipeline.file, &pipeline.text, faults))
    }

    /// Stages, each after everything it reads, otherwise in file order.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The stage called `id`.
    pub fn find(&self, id: &str) -> Option<usize> {
        self.index.get(id).copied()
    }

    /// Stages that `stage` reads, ascending.
    pub fn parents(&self, stage: usize) -> Vec<usize> {
        self.neighbours(stage, Direction::Incoming)
    }

    /// Stages that read `stage`, ascending.
    pub fn children(&self, stage: usize) -> Vec<usize> {
        self.neighbours(stage, Direction::Outgoing)
    }

    fn neighbours(&self, stage: usize, direction: Direction) -> Vec<usize> {
        let found = self
            .edges
            .neighbors_directed(NodeIndex::new(stage), direction);
        let mut found: Vec<usize> = found.map(NodeIndex::index).collect();
        found.sort_unstable();
        found
    }

    /// `stages` and everything above them, in the order of [`Self::order`].
    pub fn ancestors(&self, stages: &[usize]) -> Vec<usize> {
        self.closure(stages, Direction::Incoming)
    }

    /// `stages` and everything below them, in the order of [`Self::order`].
    pub fn descendants(&self, stages: &[usize]) -> Vec<usize> {
        self.closure(stages, Direction::Outgoing)
    }

    fn closure(&self, stages: &[usize], direction: Direction) -> Vec<usize> {
        let mut inside = vec![false; self.order.len()];
        let mut open: Vec<usize> = stages.to_vec();
        while let Some(stage) = open.pop() {
            if !std::mem::replace(&mut inside[stage], true) {
                let next = self
                    .edges
                    .neighbors_directed(NodeIndex::new(stage), direction);
                open.extend(next.map(NodeIndex::index));
            }
        }
        let order = self.order.iter().copied();
        order.filter(|stage| inside[*stage]).collect()
    }

    /// The number of stages on the longest way down from each stage, itself included:
    /// the scheduler starts the largest first.
    pub fn heights(&self) -> Vec<usize> {
        let mut heights = vec![1; self.order.len()];
        for stage in self.order.iter().rev().copied() {
            let below = self.edges.neighbors(NodeIndex::new(stage));
            let below = below.map(|child| heights[child.index()]).max();
            heights[stage] = 1 + below.unwrap_or(0);
        }
        heights
    }

    /// What a run works on: the named stages, else `default:`, else every stage without
    /// an outside effect; with everything above, in order. A name that is no stage is a
    /// fault.
    pub fn selection(&self, pipeline: &Pipeline, names: &[String]) -> Result<Vec<usize>, Faults> {
        let targets: Vec<usize> = if names.is_empty() {
            Self::plain_targets(pipeline)
        } else {
            self.named(pipeline, names)?
        };
        Ok(self.ancestors(&targets))
    }

    fn plain_targets(pipeline: &Pipeline) -> Vec<usize> {
        match &pipeline.default {
            Some(names) => names
                .iter()
                .flat_map(|name| meant(pipeline, name))
                .collect(),
            None => (0..pipeline.stages.len())
                .filter(|stage| pipeline.stages[*stage].effect == stages::Effect::None)
                .collect(),
        }
    }

    /// The stages called `names`, in that order: `train` is all its cells, `train[lr=1e-4]`
    /// those with that value.
    pub fn named(&self, pipeline: &Pipeline, names: &[String]) -> Result<Vec<usize>, Faults> {
        let mut found = Vec::new();
        let mut faults = Vec::new();
        for name in names {
            let stages = match self.find(name) {
                Some(stage) => vec![stage],
                None => meant(pipeline, name),
            };
            if stages.is_empty() {
                faults.push(unknown(pipeline, name));
            }
            found.extend(stages);
        }
        if faults.is_empty() {
            return Ok(found);
        }
        Err(Faults::new(&pipeline.file, &pipeline.text, faults))
    }
}

/// The cells that a name means.
fn meant(pipeline: &Pipeline, name: &str) -> Vec<usize> {
    let Some(selector) = Selector::read(name) else {
        return Vec::new();
    };
    let stages = pipeline.stages.iter().enumerate();
    let meant =
        stages.filter(|(_, spec)| spec.name == selector.stage && selector.means(&spec.cell));
    meant.map(|(at, _)| at).collect()
}

fn unknown(pipeline: &Pipeline, name: &str) -> Fault {
    let stage = name.split('[').next().unwrap_or_default();
    let cells = pipeline.stages.iter().filter(|spec| spec.name == stage);
    let cells: Vec<&str> = cells.map(|spec| spec.id.as_str()).collect();
    let (what, mend) = if cells.is_empty() {
        let known: BTreeSet<&str> = pipeline.stages.iter().map(|spec| &*spec.name).collect();
        ("stage", suggest::mend(name, known, "stages"))
    } else {
        ("cell", suggest::mend(name, cells, "cells"))
    };
    let message = format!(
        "there is no {what} `{name}` in profile `{}`",
        pipeline.profile
    );
    Fault::nowhere("config::unknown-stage", message).mend(mend)
}

/// Kahn's order with file order among the ready ones, by a heap of indices.
fn order(graph: &DiGraph<(), ()>) -> Vec<usize> {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    let mut open: Vec<usize> = graph
        .node_indices()
        .map(|node| graph.neighbors_directed(node, Direction::Incoming).count())
        .collect();
    let mut ready: BinaryHeap<Reverse<usize>> = (0..open.len())
        .filter(|stage| open[*stage] == 0)
        .map(Reverse)
        .collect();
    let mut order = Vec::with_capacity(open.len());
    while let Some(Reverse(stage)) = ready.pop() {
        order.push(stage);
        for child in graph.neighbors(NodeIndex::new(stage)) {
            open[child.index()] -= 1;
            if open[child.index()] == 0 {
                ready.push(Reverse(child.index()));
            }
        }
    }
    order
}

/// One fault for every knot of stages that wait for each other: its shortest circle
/// through the knot's first stage.
fn cycles(
    pipeline: &Pipeline,
    graph: &DiGraph<(), ()>,
    index: &BTreeMap<String, usize>,
) -> Vec<Fault> {
    tarjan_scc(graph)
        .into_iter()
        .filter_map(|knot| {
            let mut knot: Vec<usize> = knot.into_iter().map(NodeIndex::index).collect();
            knot.sort_unstable();
            let first = knot[0];
            let node = NodeIndex::new(first);
            let alone = knot.len() == 1 && !graph.contains_edge(node, node);
            (!alone).then(|| cycle(pipeline, index, &circle(graph, first)))
        })
        .collect()
}

/// The shortest way from `first` back to itself along "reads", without the repetition.
fn circle(graph: &DiGraph<(), ()>, first: usize) -> Vec<usize> {
    let mut from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut wave = vec![first];
    while !from.contains_key(&first) && !wave.is_empty() {
        let mut next = Vec::new();
        for stage in wave {
            let above = graph.neighbors_directed(NodeIndex::new(stage), Direction::Incoming);
            let mut above: Vec<usize> = above.map(NodeIndex::index).collect();
            above.sort_unstable();
            for above in above {
                if let std::collections::btree_map::Entry::Vacant(slot) = from.entry(above) {
                    slot.insert(stage);
                    next.push(above);
                }
            }
        }
        wave = next;
    }
    let mut circle = vec![first];
    let mut at = from.get(&first).copied().unwrap_or(first);
    while at != first {
        circle.push(at);
        at = from[&at];
    }
    circle[1..].reverse();
    circle
}

fn cycle(pipeline: &Pipeline, index: &BTreeMap<String, usize>, circle: &[usize]) -> Fault {
    let id = |at: usize| pipeline.stages[circle[at % circle.len()]].id.as_str();
    let names: Vec<&str> = (0..=circle.len()).map(id).collect();
    let edge = |at: usize| {
        let stage = &pipeline.stages[circle[at]];
        let above = circle[(at + 1) % circle.len()];
        let mut reads = stage.reads().into_iter();
        let found = reads.find(|(name, _)| index.get(*name) == Some(&above));
        found.map_or_else(|| stage.span.clone(), |(_, span)| span.clone())
    };
    let message = if circle.len() == 1 {
        format!("stage `{}` reads its own output", id(0))
    } else {
        format!("stages wait for each other: {}", names.join(" reads "))
    };
    let mut fault = Fault::at(&edge(0), "graph::cycle", message)
        .label(format!("`{}` reads `{}`", id(0), id(1)))
        .mend("take one of these inputs out");
    for at in 1..circle.len() {
        fault = fault.also(&edge(at), format!("`{}` reads `{}`", id(at), id(at + 1)));
    }
    fault
}
