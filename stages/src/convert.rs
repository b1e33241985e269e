//! Stage `convert`: foreign datasets into canonical rows.
//!
//! Promises: every row is taken or dropped by a named reason with samples; what was mended
//! is counted; the foreign system prompt never survives; the yield is told against
//! `take`. Must not know: other stages' rows, models.

mod adopt;
mod alpaca;
mod apigen;
mod foreign;
mod glaive;
mod hermes;
mod lenient;
mod map;
mod sharegpt;
mod source;
mod times;
mod xlam;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::contract::{
    Context, Fault, Field, FieldType, Outcome, Params, Port, Product, Site, Stage, StageError,
};
use crate::conversation::{self, CONVERSATION_VERSION, Conversation};
use crate::format::FORMAT_VERSION;
use crate::similarity::{Grams, SIMILARITY_VERSION, normal};
use crate::tools::ToolSet;
use crate::validate::{Checker, Estimate};

use adopt::Adoption;
use foreign::Dropped;
use map::{Otherwise, ToolMap};

/// The stage.
pub struct Convert;

const FORMATS: &[&str] = &[
    "own",
    "glaive",
    "sharegpt",
    "hermes",
    "xlam",
    "apigen-mt",
    "alpaca",
];

const FIELDS: &[Field] = &[
    Field {
        name: "format",
        kind: FieldType::Choice(FORMATS),
        default: None,
        about: "how the rows are written: own (canonical JSON lines), or as a public set is",
    },
    Field {
        name: "take",
        kind: FieldType::Int(1, 10_000_000),
        default: Some("null"),
        about: "rows wanted; the rest of the file is not read",
    },
    Field {
        name: "keep_tools",
        kind: FieldType::Bool,
        default: Some("false"),
        about: "keep rows that call foreign functions, with their own tool list, whatever the map says",
    },
    Field {
        name: "source",
        kind: FieldType::Text,
        default: Some("null"),
        about: "the name in the rows' `source`; the format's name without it",
    },
    Field {
        name: "longest",
        kind: FieldType::Int(100, 1_000_000),
        default: Some("6000"),
        about: "letters of the longest row taken, as JSON",
    },
    Field {
        name: "near",
        kind: FieldType::Float(0.5, 1.0),
        default: Some("0.8"),
        about: "similarity of first user turns from which a row is a near-duplicate (Jaccard of 4-grams)",
    },
];

const INPUTS: &[Port] = &[
    Port {
        name: "rows",
        required: true,
        many: true,
        about: "files or folders of rows",
    },
    Port {
        name: "map",
        required: false,
        many: false,
        about: "tool map: foreign functions that mean one of ours, `data/maps/public.yaml`",
    },
    Port {
        name: "tools",
        required: false,
        many: false,
        about: "the tool list, `data/tools.yaml`; foreign formats need it",
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
        about: "taken, dropped by reason with samples, mended by kind",
    },
];

impl Stage for Convert {
    fn kind(&self) -> &'static str {
        "convert"
    }

    fn about(&self) -> &'static str {
        "brings a dataset to canonical rows; every dropped row has a reason"
    }

    fn version(&self) -> u32 {
        2
    }

    fn shared(&self) -> &'static [(&'static str, u32)] {
        &[
            ("conversation", CONVERSATION_VERSION),
            ("format", FORMAT_VERSION),
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

    fn check(&self, params: &Params, site: &Site) -> Vec<Fault> {
        let own = params.text("format").as_deref() == Some("own");
        if own || site.inputs.contains_key("tools") {
            return Vec::new();
        }
        vec![Fault::new(
            "convert::no-tools",
            "inputs",
            "a foreign format needs the tool list: its system prompts are replaced",
            "add `tools: data/tools.yaml` under `inputs`",
        )]
    }

    fn run(&self, params: &Params, ctx: &Context<'_>) -> Result<Outcome, StageError> {
        let format = params.text("format").unwrap_or_default();
        let source = params.text("source").unwrap_or_else(|| format.clone());
        let mut taken = Taken::new(params);
        if format == "own" {
            read_own(ctx, &mut taken)?;
        } else {
            let tools = ToolSet::read(ctx.input("tools")?)?;
            let map = match ctx.optional("map") {
                Some(path) => {
                    let text = std::fs::read_to_string(path);
                    let text = text.map_err(|error| StageError::io(path, &error))?;
                    ToolMap::read(&text, &tools)?
                }
                None => ToolMap::default(),
            };
            let keep = params.flag("keep_tools");
            let adoption = Adoption {
                map: &map,
                tools: &tools,
                checker: Checker::new(&tools, None, &Estimate, usize::MAX),
                otherwise: if keep {
                    Otherwise::KeepOwnTools
                } else {
                    map.otherwise()
                },
                longest: params.int("longest").unwrap_or(i64::MAX) as usize,
                source: &source,
            };
            let reader = reader(&format);
            for path in ctx.all("rows") {
                read_foreign(path, reader, &adoption, ctx, &mut taken)?;
            }
            taken.unused = map.unused();
        }
        taken.finish(ctx)
    }
}

/// Rows of ours are taken as they are: a broken one is a fault, not a drop.
fn read_own(ctx: &Context<'_>, taken: &mut Taken) -> Result<(), StageError> {
    for path in ctx.all("rows") {
        let rows =
            conversation::read(path).map_err(|error| StageError::from(error).at("inputs.rows"))?;
        let faults: Vec<String> = rows
            .iter()
            .flat_map(|placed| {
                let faults = placed.row.shape_faults().into_iter();
                faults.map(|cause| format!("{} `{}`: {cause}", placed.place, placed.row.id))
            })
            .collect();
        if !faults.is_empty() {
            return Err(StageError::new(
                "convert::shape",
                faults.join("\n"),
                "mend these rows: user first, then in turn, the assistant last",
            )
            .at("inputs.rows"));
        }
        for placed in rows {
            if taken.is_full() {
                break;
            }
            taken.looked += 1;
            taken.rows.push(placed.row);
        }
    }
    Ok(())
}

type Reader = fn(&Value) -> Result<foreign::Foreign, Dropped>;

/// The reader of a format that is not ours.
fn reader(format: &str) -> Reader {
    match format {
        "glaive" => glaive::read,
        "hermes" => hermes::read,
        "xlam" => xlam::read,
        "apigen-mt" => apigen::read,
        "alpaca" => alpaca::read,
        _ => sharegpt::read,
    }
}

fn read_foreign(
    path: &Path,
    reader: Reader,
    adoption: &Adoption<'_>,
    ctx: &Context<'_>,
    taken: &mut Taken,
) -> Result<(), StageError> {
    let mut stop = Ok(());
    source::rows(path, &mut |number, row| {
        if taken.is_full() {
            return ControlFlow::Break(());
        }
        if number % 1000 == 1 {
            ctx.progress("converting", taken.looked as u64, None, "rows");
            stop = ctx.go_on();
            if stop.is_err() {
                return ControlFlow::Break(());
            }
        }
        taken.looked += 1;
        let id = format!("{}-{number}", adoption.source);
        let adopted = row
            .or_else(|error| foreign::drop_for("broken-json", error))
            .and_then(|row| reader(&row))
            .and_then(|foreign| adoption.row(id, foreign))
            .and_then(|(row, mended)| {
                taken.look_for_twins(&row)?;
                Ok((row, mended))
            });
        match adopted {
            Ok((row, mended)) => taken.take(row, &mended),
            Err(dropped) => taken.drop(number, dropped),
        }
        ControlFlow::Continue(())
    })?;
    stop
}

/// Rows near-duplicates are looked for among: beyond, only equal texts are found.
const COMPARED: usize = 5_000;

/// What was taken so far, and why the rest was not.
struct Taken {
    rows: Vec<Conversation>,
    looked: usize,
    want: Option<usize>,
    near: f64,
    openings: BTreeSet<String>,
    grams: Vec<Grams>,
    mended: BTreeMap<&'static str, usize>,
    dropped: BTreeMap<&'static str, Drops>,
    unused: Vec<String>,
}

#[derive(Default, Serialize)]
struct Drops {
    rows: usize,
    /// Row number and what was met, for the first few.
    samples: Vec<String>,
}

impl Taken {
    fn new(params: &Params) -> Self {
        Self {
            rows: Vec::new(),
            looked: 0,
            want: params.int("take").map(|take| take as usize),
            near: params.float("near").unwrap_or(1.0),
            openings: BTreeSet::new(),
            grams: Vec::new(),
            mended: BTreeMap::new(),
            dropped: BTreeMap::new(),
            unused: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.want.is_some_and(|want| self.rows.len() >= want)
    }

    /// Remembers the opening of a row, or says that it was there before.
    fn look_for_twins(&mut self, row: &Conversation) -> Result<(), Dropped> {
        let opening = adopt::opening(row);
        if !self.openings.insert(normal(opening)) {
            return foreign::drop_for("duplicate", opening);
        }
        let grams = Grams::of(opening);
        if self
            .grams
            .iter()
            .any(|other| other.jaccard(&grams) >= self.near)
        {
            return foreign::drop_for("near-duplicate", opening);
        }
        if self.grams.len() < COMPARED {
            self.grams.push(grams);
        }
        Ok(())
    }

    fn take(&mut self, row: Conversation, mended: &[&'static str]) {
        for kind in mended {
            *self.mended.entry(kind).or_default() += 1;
        }
        self.rows.push(row);
    }

    fn drop(&mut self, number: usize, dropped: Dropped) {
        let drops = self.dropped.entry(dropped.reason).or_default();
        drops.rows += 1;
        if drops.samples.len() < 5 {
            drops
                .samples
                .push(format!("row {number}: {}", dropped.detail));
        }
    }

    fn finish(self, ctx: &Context<'_>) -> Result<Outcome, StageError> {
        if self.rows.is_empty() {
            let reasons: Vec<String> = self
                .dropped
                .iter()
                .map(|(reason, drops)| format!("{} x {reason}", drops.rows))
                .collect();
            return Err(StageError::new(
                "convert::no-rows",
                format!(
                    "none of {} rows can be taken: {}",
                    self.looked,
                    reasons.join(", ")
                ),
                "check `format`, and give a `map` that names the dataset's functions",
            )
            .at("inputs.rows"));
        }
        let count = self.rows.len();
        if let Some(want) = self.want.filter(|want| count < *want) {
            ctx.warn(
                "convert::yield",
                format!(
                    "{count} of {want} rows wanted; {} were looked at",
                    self.looked
                ),
            );
        }
        conversation::write(&ctx.output.join("rows.jsonl"), &self.rows)?;
        let report = serde_json::json!({
            "taken": count,
            "wanted": self.want,
            "looked_at": self.looked,
            "dropped": self.dropped,
            "mended": self.mended,
            "map_names_unused": self.unused,
        });
        conversation::write_report(&ctx.output.join("report.json"), &report)?;
        ctx.progress(
            "converting",
            self.looked as u64,
            Some(self.looked as u64),
            "rows",
        );
        let mut outcome = Outcome::default();
        outcome.metrics.insert("rows".to_owned(), count as f64);
        outcome
            .metrics
            .insert("looked_at".to_owned(), self.looked as f64);
        outcome
            .notes
            .push(format!("{count} of {} rows taken", self.looked));
        for (reason, drops) in &self.dropped {
            outcome
                .notes
                .push(format!("dropped {} x {reason}", drops.rows));
        }
        for (kind, times) in &self.mended {
            outcome.notes.push(format!("mended {times} x {kind}"));
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests;
