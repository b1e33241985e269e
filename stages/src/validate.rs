//! Stage `validate`: nothing unparsed reaches training.
//!
//! Promises: every rendered assistant turn parses back to itself, every call fits its
//! tool's schema, every id that is used was seen before, no eval prompt is among the rows;
//! all faults of all files are reported together, with file, line and id. Exact and
//! cross-source duplicates are dropped and counted. Must not know: models, templates.

mod composition;
mod length;
mod people;
mod row;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use crate::contract::{
    Context, Fault, Field, FieldType, Outcome, Params, Port, Product, Site, Stage, StageError,
    Undecided,
};
use crate::conversation::{self, CONVERSATION_VERSION, Conversation, Placed};
use crate::eval_prompts;
use crate::format::FORMAT_VERSION;
use crate::prompt::PROMPT_VERSION;
use crate::review::Counts;
use crate::similarity::{Guarded, SIMILARITY_VERSION, normal};
use crate::tools::ToolSet;

pub use length::{CountTokens, Estimate};
pub(crate) use row::Checker;

/// The stage.
pub struct Validate;

const FIELDS: &[Field] = &[
    Field {
        name: "min_examples",
        kind: FieldType::Int(1, 10_000_000),
        default: Some("300"),
        about: "fewest rows that may go on; below 300 nothing but overfitting is learnt",
    },
    Field {
        name: "negatives_min",
        kind: FieldType::Float(0.0, 1.0),
        default: Some("0.10"),
        about: "share of negatives below which it warns",
    },
    Field {
        name: "negatives_max",
        kind: FieldType::Float(0.0, 1.0),
        default: Some("0.15"),
        about: "share of negatives above which it warns",
    },
    Field {
        name: "context",
        kind: FieldType::Int(256, 10_000_000),
        default: Some("15000"),
        about: "tokens of the deployment's context window; no row may be longer",
    },
    Field {
        name: "on_fault",
        kind: FieldType::Choice(&["fail", "drop"]),
        default: Some("\"fail\""),
        about: "what a broken row does: fail the stage, or be dropped and counted",
    },
    Field {
        name: "review",
        kind: FieldType::Float(0.0, 1.0),
        default: Some("0.0"),
        about: "share of the rows of `review_of` that people decide on first (`tunesmith review`)",
    },
    Field {
        name: "review_of",
        kind: FieldType::TextList,
        default: Some("[\"model\"]"),
        about: "sources whose rows are reviewed: `model` (written by a language model), `grammar`, `glaive`, ...",
    },
];

const INPUTS: &[Port] = &[
    Port {
        name: "rows",
        required: true,
        many: true,
        about: "canonical rows; earlier inputs win over later ones in duplicates",
    },
    Port {
        name: "tools",
        required: true,
        many: false,
        about: "the tool list, `data/tools.yaml`",
    },
    Port {
        name: "eval",
        required: false,
        many: false,
        about: "eval prompts that no row may repeat",
    },
    Port {
        name: "base",
        required: false,
        many: false,
        about: "the base model, for its tokenizer; lengths are estimated without it",
    },
    Port {
        name: DECISIONS,
        required: false,
        many: false,
        about: "what people decided about rows, a committed file; it need not exist yet",
    },
];

/// The input with people's decisions.
const DECISIONS: &str = "decisions";

const PRODUCTS: &[Product] = &[
    Product {
        name: "rows",
        path: "rows.jsonl",
        about: "all rows, checked, without duplicates",
    },
    Product {
        name: "report",
        path: "report.json",
        about: "composition against the plan, faults, drops, lengths",
    },
];

impl Stage for Validate {
    fn kind(&self) -> &'static str {
        "validate"
    }

    fn about(&self) -> &'static str {
        "parses every answer, checks every call, compares the composition with the plan"
    }

    fn version(&self) -> u32 {
        1
    }

    fn shared(&self) -> &'static [(&'static str, u32)] {
        &[
            ("conversation", CONVERSATION_VERSION),
            ("format", FORMAT_VERSION),
            ("prompt", PROMPT_VERSION),
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

    fn decisions(&self) -> Option<&'static str> {
        Some(DECISIONS)
    }

    fn check(&self, params: &Params, site: &Site) -> Vec<Fault> {
        people::check(params, site)
    }

    fn undecided(&self, params: &Params, ctx: &Context<'_>) -> Result<Vec<Undecided>, StageError> {
        people::undecided(params, ctx)
    }

    fn edited(
        &self,
        params: &Params,
        ctx: &Context<'_>,
        row: &str,
        text: &str,
    ) -> Result<serde_json::Value, StageError> {
        people::edited(params, ctx, row, text)
    }

    fn run(&self, params: &Params, ctx: &Context<'_>) -> Result<Outcome, StageError> {
        let desk = Desk::open(params, ctx)?;
        let reviewed = people::review(params, ctx)?.apply(read_all(ctx.all("rows"))?)?;
        let sorted = sort(reviewed.rows, &desk.checker(), ctx)?;
        if !drops(params) && !sorted.findings.is_empty() {
            return Err(refuse(&sorted.findings));
        }
        people::wait(&reviewed.open.undecided(&sorted.good))?;
        finish(params, ctx, &desk.tools, sorted, &reviewed.counts)
    }
}

/// What rows are held against.
struct Desk {
    tools: ToolSet,
    eval: Option<Guarded>,
    counter: Box<dyn CountTokens>,
    limit: usize,
}

impl Desk {
    fn open(params: &Params, ctx: &Context<'_>) -> Result<Self, StageError> {
        Ok(Self {
            tools: ToolSet::read(ctx.input("tools")?)?,
            eval: ctx.optional("eval").map(eval_prompts::guard).transpose()?,
            counter: length::counter(ctx.optional("base"))?,
            limit: params.int("context").unwrap_or(i64::MAX) as usize,
        })
    }

    fn checker(&self) -> Checker<'_> {
        Checker::new(
            &self.tools,
            self.eval.as_ref(),
            self.counter.as_ref(),
            self.limit,
        )
    }
}

/// Whether broken rows are dropped, rather than failing the stage.
fn drops(params: &Params) -> bool {
    params.text("on_fault").as_deref() == Some("drop")
}

/// Reads every input; a place names the input when there are several.
fn read_all(inputs: &[PathBuf]) -> Result<Vec<Placed>, StageError> {
    let mut rows = Vec::new();
    for (at, path) in inputs.iter().enumerate() {
        let mut part = conversation::read(path).map_err(|error| {
            let error = StageError::from(error);
            error.at("inputs.rows")
        })?;
        if inputs.len() > 1 {
            for placed in &mut part {
                placed.place.file = format!("rows[{at}] {}", placed.place.file);
            }
        }
        rows.append(&mut part);
    }
    Ok(rows)
}

/// A row that may not go on.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    code: String,
    place: String,
    id: String,
    cause: String,
}

/// The rows, told apart.
#[derive(Default)]
struct Sorted {
    good: Vec<Conversation>,
    tokens: Vec<usize>,
    findings: Vec<Finding>,
    duplicates: Vec<Finding>,
    past: usize,
}

fn sort(
    rows: Vec<Placed>,
    checker: &row::Checker<'_>,
    ctx: &Context<'_>,
) -> Result<Sorted, StageError> {
    let mut sorted = Sorted::default();
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    let mut texts: BTreeMap<String, (String, String)> = BTreeMap::new();
    let total = rows.len() as u64;
    for (done, Placed { row, place }) in rows.into_iter().enumerate() {
        if done % 64 == 0 {
            ctx.go_on()?;
            ctx.progress("checking", done as u64, Some(total), "rows");
        }
        let place = place.to_string();
        let find = |code: &str, cause: String| Finding {
            code: code.to_owned(),
            place: place.clone(),
            id: row.id.clone(),
            cause,
        };
        let mut findings: Vec<Finding> = checker
            .faults(&row)
            .into_iter()
            .map(|(code, cause)| find(code, cause))
            .collect();
        let tokens = checker.tokens(&row);
        if let Some(over) = checker.too_long(tokens) {
            findings.push(find("validate::too-long", over));
        }
        let text = normal(&row.user_text());
        if let Some((id, first)) = texts.get(&text) {
            let cause = format!("the same user text as `{id}` ({first})");
            sorted
                .duplicates
                .push(find("validate::duplicate-text", cause));
            continue;
        }
        if let Some(first) = ids.get(&row.id) {
            findings.push(find(
                "validate::duplicate-id",
                format!("its id is taken by {first}"),
            ));
        }
        ids.entry(row.id.clone()).or_insert_with(|| place.clone());
        if findings.is_empty() {
            texts.insert(text, (row.id.clone(), place));
            sorted.past += usize::from(row::acts_in_the_past(&row));
            sorted.tokens.push(tokens);
            sorted.good.push(row);
        } else {
            sorted.findings.append(&mut findings);
        }
    }
    ctx.progress("checking", total, Some(total), "rows");
    Ok(sorted)
}

#[derive(Serialize)]
struct Report<'a> {
    rows: usize,
    duplicates: usize,
    #[serde(skip_serializing_if = "Counts::is_none")]
    reviewed: &'a Counts,
    dropped_by_code: BTreeMap<&'a str, usize>,
    composition: composition::Composition,
    tokens: length::Lengths,
    past_times: usize,
    warnings: Vec<String>,
    findings: &'a [Finding],
    duplicate_rows: &'a [Finding],
}

fn finish(
    params: &Params,
    ctx: &Context<'_>,
    tools: &ToolSet,
    sorted: Sorted,
    reviewed: &Counts,
) -> Result<Outcome, StageError> {
    let rows = &sorted.good;
    let least = params.int("min_examples").unwrap_or(0) as usize;
    if rows.len() < least {
        return Err(StageError::new(
            "validate::too-few",
            format!(
                "{} rows are left, `min_examples` is {least} ({} duplicates and {} broken rows dropped)",
                rows.len(),
                sorted.duplicates.len(),
                broken(&sorted.findings),
            ),
            "add examples, or lower `min_examples` for a rehearsal",
        )
        .at("with.min_examples"));
    }
    let composition = composition::Composition::of(rows, tools);
    let bounds = (
        params.float("negatives_min").unwrap_or(0.0),
        params.float("negatives_max").unwrap_or(1.0),
    );
    let warnings = composition.warnings(bounds);
    for (code, text) in &warnings {
        ctx.warn(code, text.clone());
    }
    let mut dropped_by_code: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in sorted.findings.iter().chain(&sorted.duplicates) {
        *dropped_by_code.entry(&finding.code).or_default() += 1;
    }
    let report = Report {
        rows: rows.len(),
        duplicates: sorted.duplicates.len(),
        reviewed,
        dropped_by_code,
        tokens: length::Lengths::of(&sorted.tokens),
        past_times: sorted.past,
        warnings: warnings.iter().map(|(_, text)| text.clone()).collect(),
        findings: &sorted.findings,
        duplicate_rows: &sorted.duplicates,
        composition,
    };
    conversation::write(&ctx.output.join("rows.jsonl"), rows)?;
    conversation::write_report(&ctx.output.join("report.json"), &report)?;
    Ok(outcome(&report))
}

fn broken(findings: &[Finding]) -> usize {
    let rows: BTreeSet<&str> = findings.iter().map(|f| f.place.as_str()).collect();
    rows.len()
}

fn refuse(findings: &[Finding]) -> StageError {
    let lines: Vec<String> = findings
        .iter()
        .take(40)
        .map(|f| format!("{} `{}`: {} ({})", f.place, f.id, f.cause, f.code))
        .collect();
    let rest = findings.len() - lines.len();
    let more = if rest > 0 {
        format!("\n... and {rest} more")
    } else {
        String::new()
    };
    let mut codes: Vec<&str> = findings.iter().map(|f| f.code.as_str()).collect();
    codes.dedup();
    let code = if codes.len() == 1 {
        codes[0]
    } else {
        "validate::faults"
    };
    StageError::new(
        code,
        format!(
            "{} of the rows are broken:\n{}{more}",
            broken(findings),
            lines.join("\n")
        ),
        "mend these rows, or set `on_fault: drop` to leave them out",
    )
    .at("inputs.rows")
}

fn outcome(report: &Report<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    let metrics = &mut outcome.metrics;
    metrics.insert("rows".to_owned(), report.rows as f64);
    metrics.insert("duplicates".to_owned(), report.duplicates as f64);
    metrics.insert("negatives".to_owned(), report.composition.negatives());
    metrics.insert("tokens_max".to_owned(), report.tokens.max as f64);
    outcome.notes.push(format!(
        "{} rows, {} duplicates dropped, longest about {} tokens",
        report.rows, report.duplicates, report.tokens.max
    ));
    outcome.notes.extend(report.reviewed.line());
    outcome.notes.extend(report.composition.lines());
    for (code, count) in &report.dropped_by_code {
        outcome.notes.push(format!("dropped {count} x {code}"));
    }
    outcome
}

/// What a guarded eval set means for one row; shared with `split`.
pub(crate) fn leak(row: &Conversation, eval: &Guarded) -> Option<String> {
    row.user_texts().find_map(|text| {
        let leak = eval.leak(text, 0.8)?;
        Some(format!(
            "it gives away eval prompt `{}`: {}",
            leak.id, leak.what
        ))
    })
}

#[cfg(test)]
mod tests;
