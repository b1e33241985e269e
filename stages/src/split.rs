//! Stage `split`: the held-out rows, set aside before anything else is built.
//!
//! Promises: rows that belong together stay together (explicit group, same user text,
//! near-duplicates); the share is kept within each type and first tool; the hash of a
//! group's name decides, so adding rows moves at most one group a stratum across; no text
//! is on both sides. Must not know: models, tokens.

mod groups;
mod holdout;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::contract::{
    Context, Fault, Field, FieldType, Outcome, Params, Port, Product, Site, Stage, StageError,
};
use crate::conversation::{self, CONVERSATION_VERSION, Conversation};
use crate::eval_prompts;
use crate::similarity::{Grams, SIMILARITY_VERSION, near_pairs, normal};
use crate::validate::leak;

/// The stage.
pub struct Split;

const FIELDS: &[Field] = &[
    Field {
        name: "fraction",
        kind: FieldType::Float(0.01, 0.5),
        default: Some("0.15"),
        about: "share of the rows held out for validation",
    },
    Field {
        name: "near",
        kind: FieldType::Float(0.5, 1.0),
        default: Some("0.8"),
        about: "similarity of user texts (Jaccard of 4-grams) from which rows stay together",
    },
];

const INPUTS: &[Port] = &[
    Port {
        name: "rows",
        required: true,
        many: true,
        about: "canonical rows, as `validate` leaves them",
    },
    Port {
        name: "eval",
        required: false,
        many: false,
        about: "eval prompts that may be in neither half",
    },
];

const PRODUCTS: &[Product] = &[
    Product {
        name: "train",
        path: "train.jsonl",
        about: "rows to train on",
    },
    Product {
        name: "val",
        path: "val.jsonl",
        about: "rows held out",
    },
    Product {
        name: "report",
        path: "report.json",
        about: "sizes by stratum, groups, leakage checks",
    },
];

impl Stage for Split {
    fn kind(&self) -> &'static str {
        "split"
    }

    fn about(&self) -> &'static str {
        "holds out a stratified share of the rows; groups never straddle"
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

    fn check(&self, params: &Params, _site: &Site) -> Vec<Fault> {
        match params.float("fraction") {
            Some(fraction) if fraction > 0.34 => vec![Fault::new(
                "split::large-fraction",
                "with.fraction",
                format!("`fraction` {fraction} leaves too little to train on"),
                "hold out 0.10 to 0.20",
            )],
            _ => Vec::new(),
        }
    }

    fn run(&self, params: &Params, ctx: &Context<'_>) -> Result<Outcome, StageError> {
        let mut rows: Vec<Conversation> = Vec::new();
        for path in ctx.all("rows") {
            let part = conversation::read(path)?;
            rows.extend(part.into_iter().map(|placed| placed.row));
        }
        refuse_double_ids(&rows)?;
        let fraction = params.float("fraction").unwrap_or(0.15);
        let near = params.float("near").unwrap_or(0.8);
        ctx.progress("grouping", 0, Some(rows.len() as u64), "rows");
        let groups = groups::find(&rows, near);
        ctx.go_on()?;
        let held = holdout::choose(&rows, &groups, fraction, ctx.seed);
        ctx.progress(
            "grouping",
            rows.len() as u64,
            Some(rows.len() as u64),
            "rows",
        );
        let leaks = match ctx.optional("eval") {
            Some(path) => eval_leaks(&rows, path)?,
            None => Vec::new(),
        };
        let report = Report::of(&rows, &groups, &held, near);
        check(&report, &leaks)?;
        let half = |val: bool| {
            let held = &held;
            rows.iter()
                .zip(held)
                .filter(move |(_, held)| **held == val)
                .map(|(row, _)| row)
        };
        conversation::write(&ctx.output.join("train.jsonl"), half(false))?;
        conversation::write(&ctx.output.join("val.jsonl"), half(true))?;
        conversation::write_report(&ctx.output.join("report.json"), &report)?;
        Ok(report.outcome())
    }
}

fn refuse_double_ids(rows: &[Conversation]) -> Result<(), StageError> {
    let mut seen = BTreeSet::new();
    match rows.iter().find(|row| !seen.insert(&row.id)) {
        None => Ok(()),
        Some(row) => Err(StageError::new(
            "split::duplicate-id",
            format!("two rows have the id `{}`", row.id),
            "put a `validate` stage before `split`: it drops duplicates",
        )
        .at("inputs.rows")),
    }
}

fn eval_leaks(rows: &[Conversation], path: &std::path::Path) -> Result<Vec<String>, StageError> {
    let guarded = eval_prompts::guard(path)?;
    let leaks = rows.iter().filter_map(|row| {
        let cause = leak(row, &guarded)?;
        Some(format!("`{}`: {cause}", row.id))
    });
    Ok(leaks.collect())
}

#[derive(Debug, Default, Serialize)]
struct Sizes {
    train: usize,
    val: usize,
}

#[derive(Debug, Serialize)]
struct Report {
    train: usize,
    val: usize,
    share: f64,
    groups: usize,
    largest_group: usize,
    strata: BTreeMap<String, Sizes>,
    /// Texts found on both sides; always empty in a report that was written.
    leaks: Vec<String>,
}

impl Report {
    fn of(rows: &[Conversation], groups: &groups::Groups, held: &[bool], near: f64) -> Self {
        let mut strata: BTreeMap<String, Sizes> = BTreeMap::new();
        for (row, held) in rows.iter().zip(held) {
            let sizes = strata.entry(holdout::stratum(row)).or_default();
            *(if *held {
                &mut sizes.val
            } else {
                &mut sizes.train
            }) += 1;
        }
        let val = held.iter().filter(|held| **held).count();
        Self {
            train: rows.len() - val,
            val,
            share: (val as f64 / rows.len().max(1) as f64 * 1e4).round() / 1e4,
            groups: groups.members.len(),
            largest_group: groups.members.values().map(Vec::len).max().unwrap_or(0),
            strata,
            leaks: straddlers(rows, held, near),
        }
    }

    fn outcome(&self) -> Outcome {
        let mut outcome = Outcome::default();
        let figures = [
            ("train", self.train),
            ("val", self.val),
            ("groups", self.groups),
        ];
        for (name, value) in figures {
            outcome.metrics.insert(name.to_owned(), value as f64);
        }
        outcome.notes.push(format!(
            "{} rows to train on, {} held out ({:.1} %), {} groups",
            self.train,
            self.val,
            self.share * 100.0,
            self.groups
        ));
        outcome
    }
}

/// Looks at the two halves afresh, without the groups: the same or nearly the same text
/// on both sides.
fn straddlers(rows: &[Conversation], held: &[bool], near: f64) -> Vec<String> {
    let texts: Vec<String> = rows.iter().map(Conversation::user_text).collect();
    let grams: Vec<Grams> = texts.iter().map(|text| Grams::of(text)).collect();
    near_pairs(&grams, near)
        .into_iter()
        .filter(|(a, b, _)| held[*a] != held[*b])
        .map(|(a, b, similarity)| {
            let same = normal(&texts[a]) == normal(&texts[b]);
            let how = if same { 1.0 } else { similarity };
            format!("`{}` and `{}` ({how:.2})", rows[a].id, rows[b].id)
        })
        .collect()
}

fn check(report: &Report, eval_leaks: &[String]) -> Result<(), StageError> {
    if report.val == 0 || report.train == 0 {
        return Err(StageError::new(
            "split::empty-half",
            format!(
                "{} rows to train on and {} to validate: all rows belong to one group",
                report.train, report.val
            ),
            "add rows that are not paraphrases of each other, or raise `near`",
        )
        .at("inputs.rows"));
    }
    let leaks = if report.leaks.is_empty() {
        eval_leaks
    } else {
        &report.leaks
    };
    if leaks.is_empty() {
        return Ok(());
    }
    let shown: Vec<&str> = leaks.iter().take(20).map(String::as_str).collect();
    Err(StageError::new(
        "split::leak",
        format!("{} leaks:\n{}", leaks.len(), shown.join("\n")),
        "remove or rewrite these rows; `validate` with `eval:` finds them with their lines",
    )
    .at("inputs.rows"))
}

#[cfg(test)]
mod tests;
