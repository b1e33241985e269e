//! `tunesmith graph [STAGE...]`

use clap::{Args, ValueEnum};

use super::Common;
use super::exit::{Exit, Trouble};
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
}

pub(super) fn graph(common: &Common, args: &GraphArgs) -> Result<Exit, Trouble> {
    let (pipeline, graph) = common.pipeline()?;
    let shown = if args.stages.is_empty() {
        graph.order().to_vec()
    } else {
        graph.ancestors(&graph.named(&pipeline, &args.stages)?)
    };
    let drawing = match args.format {
        Format::Ascii => Drawing::Ascii,
        Format::Dot => Drawing::Dot,
        Format::Mermaid => Drawing::Mermaid,
        Format::Svg => Drawing::Svg,
    };
    screen::say(&draw(&pipeline, &graph, &shown, drawing));
    Ok(Exit::Ok)
}
