//! Stage `synthesize`: rows that nobody had to write by hand.
//!
//! Promises: the grammar provider is a pure function of its inputs and the seed; a paid
//! provider never spends without a budget, keeps every answer by its request, and drops
//! what does not fit with counts; eval prompts are kept out. Must not know: which rows
//! exist elsewhere (`validate` drops doubles).

mod grammar;
mod model;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::contract::{
    Context, Fault, Field, FieldType, Outcome, Params, Pool, Port, Product, Site, Stage, StageError,
};
use crate::conversation::{self, CONVERSATION_VERSION, Conversation, Kind};
use crate::eval_prompts;
use crate::http::{Environment, Patience};
use crate::similarity::SIMILARITY_VERSION;
use crate::tools::ToolSet;

use model::Desk;

/// The stage.
pub struct Synthesize;

const FIELDS: &[Field] = &[
    Field {
        name: "provider",
        kind: FieldType::Choice(&["grammar", "anthropic", "openai-compatible"]),
        default: Some("\"grammar\""),
        about: "who writes: the offline phrase book, the Anthropic API, or a server of your own",
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
        about: "shares by type, such as {single: 0.5, negative: 0.12}; empty: the book's own, or the plan's",
    },
    Field {
        name: "model",
        kind: FieldType::Text,
        default: Some("null"),
        about: "the model asked (anthropic: claude-sonnet-4-6 when not given)",
    },
    Field {
        name: "base_url",
        kind: FieldType::Text,
        default: Some("null"),
        about: "the server, without /v1 (anthropic: ANTHROPIC_BASE_URL, else the public one)",
    },
    Field {
        name: "budget_usd",
        kind: FieldType::Float(0.0, 1e6),
        default: Some("null"),
        about: "US dollars a run may spend; a paid model is not asked without it",
    },
    Field {
        name: "price_in",
        kind: FieldType::Float(0.0, 1e4),
        default: Some("null"),
        about: "US dollars for a million tokens asked, from the service's price page",
    },
    Field {
        name: "price_out",
        kind: FieldType::Float(0.0, 1e4),
        default: Some("null"),
        about: "US dollars for a million tokens answered",
    },
    Field {
        name: "per_request",
        kind: FieldType::Int(2, 50),
        default: Some("10"),
        about: "examples asked for in one request",
    },
    Field {
        name: "max_tokens",
        kind: FieldType::Int(256, 64_000),
        default: Some("8192"),
        about: "tokens of the longest answer",
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

    fn passes_env(&self) -> &'static [&'static str] {
        &[
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_BASE_URL",
            "SYNTHESIZE_API_KEY",
            "HTTPS_PROXY",
            "https_proxy",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "NO_PROXY",
            "no_proxy",
            "SSL_CERT_FILE",
        ]
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
        let provider = params.text("provider").unwrap_or_default();
        if provider == "grammar" && !site.inputs.contains_key("grammar") {
            faults.push(Fault::new(
                "synthesize::no-grammar",
                "inputs",
                "the provider `grammar` needs a phrase book",
                "add `grammar: data/grammar.yaml` under `inputs`",
            ));
        }
        if provider != "grammar"
            && let Err(error) = model::check(params)
        {
            let StageError {
                code,
                field,
                message,
                mend,
                ..
            } = error;
            faults.push(Fault::new(&code, &field, message, mend));
        }
        faults
    }

    fn run(&self, params: &Params, ctx: &Context<'_>) -> Result<Outcome, StageError> {
        let tools = ToolSet::read(ctx.input("tools")?)?;
        let eval = ctx.optional("eval").map(eval_prompts::guard).transpose()?;
        let count = params.int("count").unwrap_or(0) as usize;
        let mix = mix(params)?;
        if params.text("provider").as_deref() == Some("grammar") {
            let path = ctx.input("grammar")?;
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| StageError::io(path, &error))?;
            let drawn = grammar::write(&text, &tools, count, &mix, eval.as_ref(), ctx)?;
            let dropped = [("same-text", drawn.alike), ("eval-leak", drawn.leaks)];
            return finish(ctx, &drawn.rows, dropped.into(), &drawn.short);
        }
        let desk = Desk {
            tools: &tools,
            eval: eval.as_ref(),
            mix: if mix.is_empty() {
                model::plan_mix()
            } else {
                mix
            },
            count,
            environment: Environment::process(),
            patience: Patience::default(),
        };
        by_model(params, &desk, ctx)
    }
}

/// Rows of a model; what was asked and spent goes to the notes, not into the files.
fn by_model(params: &Params, desk: &Desk<'_>, ctx: &Context<'_>) -> Result<Outcome, StageError> {
    let written = model::write(params, desk, ctx)?;
    let mut outcome = finish(ctx, &written.rows, written.dropped, &written.short)?;
    outcome.notes.push(format!(
        "{} answers asked, {} kept ones used, {:.2} USD spent",
        written.asked, written.kept, written.spent_usd
    ));
    outcome
        .metrics
        .insert("spent_usd".to_owned(), written.spent_usd);
    Ok(outcome)
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

fn finish(
    ctx: &Context<'_>,
    rows: &[Conversation],
    dropped: BTreeMap<&'static str, usize>,
    short: &[(String, usize, usize)],
) -> Result<Outcome, StageError> {
    for (name, want, given) in short {
        ctx.warn(
            "synthesize::exhausted",
            format!("`{name}` gives only {given} of {want} rows"),
        );
    }
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
        dropped,
        exhausted: short.iter().map(|(name, ..)| name.clone()).collect(),
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
    for (reason, count) in report.dropped.iter().filter(|(_, count)| **count > 0) {
        outcome.notes.push(format!("dropped {count} x {reason}"));
    }
    Ok(outcome)
}
