//! Stage `synthesize`: rows that nobody had to write by hand.
//!
//! Promises: the grammar provider is a pure function of its inputs and the seed; a paid
//! provider never spends without a budget, keeps every answer by its request, and drops
//! what does not fit with counts; eval prompts are kept out. Must not know: which rows
//! exist elsewhere (`validate` drops doubles).

mod grammar;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::contract::{
    Context, Fault, Field, FieldType, Outcome, Params, Pool, Port, Product, Site, Stage, StageError,
};
use crate::conversation::{self, CONVERSATION_VERSION, Conversation, Kind};
use crate::eval_prompts;
use crate::similarity::SIMILARITY_VERSION;
use crate::tools::ToolSet;

/// The stage.
pub struct Synthesize;

const FIELDS: &[Field] = &[
    Field {
        name: "provider",
        kind: FieldType::Choice(&["grammar"]),
        default: Some("\"grammar\""),
        about: "who writes: the offline phrase book",
    },
    Field {
        name: "count",
        kind: FieldType::Int(1, 100_000),
        default: Some("400"),
        about: "rows to make",
    },
    Field {
        name: "mix",
        kind: FieldType::Map,
        default: Some("{}"),
        about: "shares by type, such as {single: 0.5, negative: 0.12}; empty: the book's own",
    },
];

const INPUTS: &[Port] = &[
    Port {
        name: "tools",
        required: true,
        many: false,
        about: "the tool list, `data/tools.yaml`",
    },
    Port {
        name: "grammar",
        required: false,
        many: false,
        about: "the phrase book, `data/grammar.yaml` (provider grammar)",
    },
    Port {
        name: "eval",
        required: false,
        many: false,
        about: "eval prompts that no row may give away",
    },
];

const PRODUCTS: &[Product] = &[
    Product {
        name: "rows",
        path: "rows.jsonl",
        about: "canonical rows",
    },
    Product {
        name: "report",
        path: "report.json",
        about: "counts by type, by tool, and what was dropped",
    },
];

impl Stage for Synthesize {
    fn kind(&self) -> &'static str {
        "synthesize"
    }

    fn about(&self) -> &'static str {
        "writes rows: an offline phrase book, or a model under a budget"
    }

    fn version(&self) -> u32 {
        1
    }

    fn shared(&self) -> &'static [(&'static str, u32)] {
        &[
            ("conversation", CONVERSATION_VERSION),
            ("similarity", SIMILARITY_VERSION),
        ]
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn inputs(&self) -> &'static [Port] {
        INPUTS
    }

    fn products(&self) -> &'static [Product] {
        PRODUCTS
    }

    fn pool(&self) -> Pool {
        Pool::Cpu
    }

    fn check(&self, params: &Params, site: &Site) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Err(error) = mix(params) {
            faults.push(Fault::new(
                &error.code,
                "with.mix",
                error.message,
                error.mend,
            ));
        }
        let offline = params.text("provider").as_deref() == Some("grammar");
        if offline && !site.inputs.contains_key("grammar") {
            faults.push(Fault::new(
                "synthesize::no-grammar",
                "inputs",
                "the provider `grammar` needs a phrase book",
                "add `grammar: data/grammar.yaml` under `inputs`",
            ));
        }
        faults
    }

    fn run(&self, params: &Params, ctx: &Context<'_>) -> Result<Outcome, StageError> {
        let tools = ToolSet::read(ctx.input("tools")?)?;
        let count = params.int("count").unwrap_or(0) as usize;
        let path = ctx.input("grammar")?;
        let text = std::fs::read_to_string(path).map_err(|error| StageError::io(path, &error))?;
        let eval = ctx.optional("eval").map(eval_prompts::guard).transpose()?;
        let drawn = grammar::write(&text, &tools, count, &mix(params)?, eval.as_ref(), ctx)?;
        for (name, want, given) in &drawn.short {
            ctx.warn(
                "synthesize::exhausted",
                format!("`{name}` gives only {given} of {want} rows; add wordings or values"),
            );
        }
        finish(ctx, &drawn)
    }
}

/// The `mix` parameter: type to share.
fn mix(params: &Params) -> Result<BTreeMap<Kind, f64>, StageError> {
    serde_json::from_value(params.value("mix")).map_err(|error| {
        StageError::new(
            "synthesize::mix",
            format!("`mix` is no map from a type to a share: {error}"),
            "write it as {single: 0.5, contrastive: 0.15, negative: 0.12, crud: 0.1, multi_turn: 0.08, compound: 0.05}",
        )
        .at("with.mix")
    })
}

#[derive(Serialize)]
struct Report {
    rows: usize,
    kinds: BTreeMap<&'static str, usize>,
    tools: BTreeMap<String, usize>,
    dropped: BTreeMap<&'static str, usize>,
    exhausted: Vec<String>,
}

fn finish(ctx: &Context<'_>, drawn: &grammar::Drawn) -> Result<Outcome, StageError> {
    let rows: &[Conversation] = &drawn.rows;
    let mut kinds: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut tools: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows {
        *kinds.entry(row.kind.name()).or_default() += 1;
        for call in row.calls() {
            *tools.entry(call.tool.clone()).or_default() += 1;
        }
    }
    let report = Report {
        rows: rows.len(),
        kinds,
        tools,
        dropped: [("same-text", drawn.alike), ("eval-leak", drawn.leaks)].into(),
        exhausted: drawn.short.iter().map(|(name, ..)| name.clone()).collect(),
    };
    conversation::write(&ctx.output.join("rows.jsonl"), rows)?;
    conversation::write_report(&ctx.output.join("report.json"), &report)?;
    let mut outcome = Outcome::default();
    outcome
        .metrics
        .insert("rows".to_owned(), report.rows as f64);
    let kinds: Vec<String> = report
        .kinds
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    outcome
        .notes
        .push(format!("{} rows: {}", report.rows, kinds.join(", ")));
    Ok(outcome)
}
