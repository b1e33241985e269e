//! The graph as a picture: text for the terminal, DOT, Mermaid, SVG.
//!
//! Promises: the same pipeline gives the same bytes; names are escaped for each language.

mod svg;

use std::collections::BTreeSet;

use ascii_dag::RenderOptions;
use stages::Effect;

use crate::config::{Pipeline, Reference};
use crate::graph::Graph;

/// A language to draw in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawing {
    /// Boxes and lines for a terminal.
    Ascii,
    /// Graphviz.
    Dot,
    /// Mermaid, as Markdown renders it.
    Mermaid,
    /// A self-contained SVG.
    Svg,
}

/// The picture of the stages in `shown` (indices into the pipeline).
pub fn draw(pipeline: &Pipeline, graph: &Graph, shown: &[usize], drawing: Drawing) -> String {
    let mut shown = shown.to_vec();
    shown.sort_by_key(|stage| graph.order().iter().position(|at| at == stage));
    let picture = Picture::new(pipeline, &shown);
    match drawing {
        Drawing::Ascii => ascii(&picture),
        Drawing::Dot => dot(&picture),
        Drawing::Mermaid => mermaid(&picture),
        Drawing::Svg => svg::draw(&picture),
    }
}

/// Boxes and arrows; boxes in an order in which every arrow goes forward.
struct Picture<'a> {
    boxes: Vec<Shown<'a>>,
    arrows: BTreeSet<Arrow<'a>>,
}

struct Shown<'a> {
    id: &'a str,
    about: &'a str,
    external: bool,
}

/// From a box to a box, both by index, and what is handed over where it is not the
/// first product.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Arrow<'a> {
    from: usize,
    to: usize,
    product: Option<&'a str>,
}

impl<'a> Picture<'a> {
    fn new(pipeline: &'a Pipeline, shown: &[usize]) -> Self {
        let ids: std::collections::BTreeMap<&str, usize> = shown
            .iter()
            .enumerate()
            .map(|(at, stage)| (pipeline.stages[*stage].id.as_str(), at))
            .collect();
        let mut arrows = BTreeSet::new();
        for (to, stage) in shown.iter().enumerate() {
            let spec = &pipeline.stages[*stage];
            let candidates = spec.pick.iter().flat_map(|pick| &pick.candidates);
            let reads =
                std::iter::once(&spec.inputs).chain(candidates.clone().map(|one| &one.inputs));
            for candidate in candidates {
                if let Some(from) = ids.get(candidate.measured.as_str()).copied() {
                    let product = None;
                    arrows.insert(Arrow { from, to, product });
                }
            }
            for reference in reads.flatten().flat_map(|i| &i.references) {
                let Reference::Product { stage, product } = reference else {
                    continue;
                };
                let Some(from) = ids.get(stage.as_str()).copied() else {
                    continue;
                };
                let first = pipeline.stages[shown[from]]
                    .products()
                    .first()
                    .map(|(name, _)| *name);
                let product = (first != Some(product.as_str())).then_some(product.as_str());
                arrows.insert(Arrow { from, to, product });
            }
        }
        let boxes = shown.iter().map(|stage| {
            let stage = &pipeline.stages[*stage];
            Shown {
                id: &stage.id,
                about: stage.about.as_deref().unwrap_or_default(),
                external: stage.effect == Effect::External,
            }
        });
        Self {
            boxes: boxes.collect(),
            arrows,
        }
    }

    /// Arrows without their labels, each once.
    fn edges(&self) -> BTreeSet<(usize, usize)> {
        self.arrows
            .iter()
            .map(|arrow| (arrow.from, arrow.to))
            .collect()
    }
}

fn ascii(picture: &Picture<'_>) -> String {
    let mut drawing = ascii_dag::Graph::new();
    for (at, shown) in picture.boxes.iter().enumerate() {
        drawing.add_node(at + 1, shown.id);
    }
    for (from, to) in picture.edges() {
        drawing.add_edge(from + 1, to + 1, None);
    }
    let text = drawing
        .compute_layout()
        .render_string(&RenderOptions::plain());
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim_end().to_owned() + "\n"
}

fn dot(picture: &Picture<'_>) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut out = "digraph pipeline {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    for shown in &picture.boxes {
        let style = if shown.external {
            " [style=dashed]"
        } else {
            ""
        };
        out.push_str(&format!("  {}{style};\n", quoted(shown.id)));
    }
    for arrow in &picture.arrows {
        let (from, to) = (picture.boxes[arrow.from].id, picture.boxes[arrow.to].id);
        let label = arrow
            .product
            .map(|product| format!(" [label={}]", quoted(product)));
        let label = label.unwrap_or_default();
        out.push_str(&format!("  {} -> {}{label};\n", quoted(from), quoted(to)));
    }
    out + "}\n"
}

fn mermaid(picture: &Picture<'_>) -> String {
    let mut out = "flowchart LR\n".to_owned();
    for (at, shown) in picture.boxes.iter().enumerate() {
        let class = if shown.external { ":::external" } else { "" };
        out.push_str(&format!("  s{at}[\"{}\"]{class}\n", shown.id));
    }
    for arrow in &picture.arrows {
        let label = arrow
            .product
            .map(|product| format!("|{product}|"))
            .unwrap_or_default();
        out.push_str(&format!("  s{} -->{label} s{}\n", arrow.from, arrow.to));
    }
    if picture.boxes.iter().any(|shown| shown.external) {
        out.push_str("  classDef external stroke-dasharray: 5 5\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{Drawing, draw};
    use crate::config::tests::open;

    const FILE: &str = "name: a
stages:
  push: { uses: upload, inputs: { adapter: model } }
  model: { uses: train, inputs: { base: base, rows: [hand, made] } }
  base: { uses: fetch, with: { dataset: b } }
  hand: { about: 'rows & more', uses: fetch, with: { dataset: h } }
  made: { run: 'sort ${inputs.a} ${inputs.b} > ${outputs.o}', inputs: { a: hand:card, b: hand }, outputs: { o: o } }
  alone: { uses: fetch, with: { dataset: x } }
";

    fn drawn(drawing: Drawing) -> String {
        let (pipeline, graph) = open(FILE).unwrap_or_else(|faults| panic!("{faults}"));
        draw(&pipeline, &graph, graph.order(), drawing)
    }

    #[test]
    fn in_a_terminal() {
        assert_snapshot!(drawn(Drawing::Ascii), @r#"
    [base]   [hand]   [alone]
       └───┐    ├───┐
           │    ↓   │
           │ [made] │
           │    │   │
           └────┤   │
                ├───┘
                ↓
             [model]
                │
                ↓
             [push]
    "#);
    }

    #[test]
    fn as_dot() {
        assert_snapshot!(drawn(Drawing::Dot), @r#"
    digraph pipeline {
      rankdir=LR;
      node [shape=box];
      "base";
      "hand";
      "made";
      "model";
      "push" [style=dashed];
      "alone";
      "base" -> "model";
      "hand" -> "made";
      "hand" -> "made" [label="card"];
      "hand" -> "model";
      "made" -> "model";
      "model" -> "push";
    }
    "#);
    }

    #[test]
    fn as_mermaid() {
        assert_snapshot!(drawn(Drawing::Mermaid), @r#"
    flowchart LR
      s0["base"]
      s1["hand"]
      s2["made"]
      s3["model"]
      s4["push"]:::external
      s5["alone"]
      s0 --> s3
      s1 --> s2
      s1 -->|card| s2
      s1 --> s3
      s2 --> s3
      s3 --> s4
      classDef external stroke-dasharray: 5 5
    "#);
    }

    #[test]
    fn as_svg() {
        assert_snapshot!(drawn(Drawing::Svg), @r##"
    <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 416 140" width="416" height="140" font-family="monospace" font-size="13" fill="none" stroke="#57606a">
    <path d="M72 26 C100 26 100 26 128 26"/>
    <path d="M180 26 C208 26 208 70 236 70"/><path d="M236 70 l-7 -4 v8 z" fill="#57606a"/>
    <path d="M72 70 C100 70 100 70 128 70"/><path d="M128 70 l-7 -4 v8 z" fill="#57606a"/>
    <path d="M72 70 C100 70 100 114 128 114"/>
    <path d="M180 114 C208 114 208 70 236 70"/><path d="M236 70 l-7 -4 v8 z" fill="#57606a"/>
    <path d="M180 70 C208 70 208 70 236 70"/><path d="M236 70 l-7 -4 v8 z" fill="#57606a"/>
    <path d="M296 70 C324 70 324 70 352 70"/><path d="M352 70 l-7 -4 v8 z" fill="#57606a"/>
    <path d="M128 26 h52"/>
    <path d="M128 114 h52"/>
    <g><rect x="12" y="12" width="60" height="28" rx="5" fill="#f6f8fa"/><text x="42" y="30" text-anchor="middle" fill="#24292f" stroke="none">base</text></g>
    <g><title>rows &amp; more</title><rect x="12" y="56" width="60" height="28" rx="5" fill="#f6f8fa"/><text x="42" y="74" text-anchor="middle" fill="#24292f" stroke="none">hand</text></g>
    <g><rect x="128" y="56" width="52" height="28" rx="5" fill="#f6f8fa"/><text x="154" y="74" text-anchor="middle" fill="#24292f" stroke="none">made</text></g>
    <g><rect x="236" y="56" width="60" height="28" rx="5" fill="#f6f8fa"/><text x="266" y="74" text-anchor="middle" fill="#24292f" stroke="none">model</text></g>
    <g><rect x="352" y="56" width="52" height="28" rx="5" fill="#f6f8fa" stroke-dasharray="5 4"/><text x="378" y="74" text-anchor="middle" fill="#24292f" stroke="none">push</text></g>
    <g><rect x="12" y="100" width="60" height="28" rx="5" fill="#f6f8fa"/><text x="42" y="118" text-anchor="middle" fill="#24292f" stroke="none">alone</text></g>
    </svg>
    "##);
    }
}
