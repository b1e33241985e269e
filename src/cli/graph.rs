//! `tunesmith graph [STAGE...]`

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::config::{Action, Pipeline};
use crate::report::graph::{Drawing, draw};
use crate::report::screen;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Boxes and lines for a terminal
    Ascii,
    /// Graphviz
    Dot,
    /// Mermaid, as Markdown renders it
    Mermaid,
    /// A picture that any browser shows
    Svg,
}

#[derive(Args, Clone, Debug)]
pub(super) struct GraphArgs {
    /// Show only these stages and what they need
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// The language of the picture
    #[arg(long, value_enum, default_value = "ascii")]
    format: Format,
    /// Tell it as JSON, an object a stage
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn graph(common: &Common, args: &GraphArgs) -> Result<Exit, Trouble> {
    let (pipeline, graph) = common.pipeline()?;
    let shown = if args.stages.is_empty() {
        graph.order().to_vec()
    } else {
        graph.ancestors(&graph.named(&pipeline, &args.stages)?)
    };
    if args.json {
        screen::say(
            &shown
                .iter()
                .map(|stage| line(&pipeline, *stage))
                .collect::<String>(),
        );
        return Ok(Exit::Ok);
    }
    let drawing = match args.format {
        Format::Ascii => Drawing::Ascii,
        Format::Dot => Drawing::Dot,
        Format::Mermaid => Drawing::Mermaid,
        Format::Svg => Drawing::Svg,
    };
    screen::say(&draw(&pipeline, &graph, &shown, drawing));
    Ok(Exit::Ok)
}

/// One stage as JSON.
fn line(pipeline: &Pipeline, stage: usize) -> String {
    let spec = &pipeline.stages[stage];
    let kind = match &spec.action {
        Action::Builtin { stage, .. } => stage.kind(),
        Action::Shell { .. } => "shell",
    };
    let reads: BTreeSet<&str> = spec.reads().into_iter().map(|(name, _)| name).collect();
    let cell = spec
        .cell
        .iter()
        .map(|(name, value)| (name.to_owned(), value.clone()));
    let cell: serde_json::Map<_, _> = cell.collect();
    let told = json!({ "stage": spec.id, "kind": kind, "cell": cell, "reads": reads });
    format!("{told}\n")
}
