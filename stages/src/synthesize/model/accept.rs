//! From a model's text to rows, or to a reason why not.
//!
//! Promises: an accepted row would pass `validate`, calls what its batch wanted, and no
//! accepted row is a near-duplicate of another. Must not know: services, money.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::DateTime;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::jobs::Batch;
use crate::conversation::{Call, Conversation, Kind, Message};
use crate::similarity::{Grams, Guarded, normal};
use crate::tools::ToolSet;
use crate::validate::{Checker, Estimate};

/// Similarity from which a user text counts as said before.
const NEAR: f64 = 0.8;

#[derive(Deserialize)]
struct Answer {
    examples: Vec<Example>,
}

#[derive(Deserialize)]
struct Example {
    now: String,
    pair: i64,
    turns: Vec<Turn>,
}

#[derive(Deserialize)]
struct Turn {
    user: String,
    prose: String,
    #[serde(default)]
    calls: Vec<Call>,
    #[serde(default)]
    results: Vec<String>,
    #[serde(default)]
    after: Option<String>,
}

/// The rows so far.
pub(super) struct Accepted<'a> {
    pub(super) rows: Vec<Conversation>,
    pub(super) dropped: BTreeMap<&'static str, usize>,
    checker: Checker<'a>,
    texts: BTreeSet<String>,
    grams: Vec<Grams>,
}

impl<'a> Accepted<'a> {
    pub(super) fn new(tools: &'a ToolSet, eval: Option<&'a Guarded>) -> Self {
        Self {
            rows: Vec::new(),
            dropped: BTreeMap::new(),
            checker: Checker::new(tools, eval, &Estimate, usize::MAX),
            texts: BTreeSet::new(),
            grams: Vec::new(),
        }
    }

    /// Counts an example or an answer that is not used.
    pub(super) fn count(&mut self, reason: &'static str) {
        *self.dropped.entry(reason).or_default() += 1;
    }

    /// Takes up to `most` rows of an answer; contrastive rows come in whole pairs.
    pub(super) fn take(&mut self, batch: &Batch<'_>, text: &str, most: usize) {
        let Ok(answer) = serde_json::from_str::<Answer>(text) else {
            return self.count("not-the-schema");
        };
        let size = if batch.stream.kind == Kind::Contrastive {
            2
        } else {
            1
        };
        let mut left = most;
        for (at, examples) in answer.examples.chunks(size).enumerate() {
            if left == 0 {
                break;
            }
            match self.rows(batch, at, examples) {
                Ok(rows) => {
                    left = left.saturating_sub(rows.len());
                    self.rows.extend(rows);
                }
                Err(reason) => self.count(reason),
            }
        }
    }

    /// One row, or the two of a pair; both or none.
    fn rows(
        &mut self,
        batch: &Batch<'_>,
        at: usize,
        examples: &[Example],
    ) -> Result<Vec<Conversation>, &'static str> {
        let pair = batch.stream.kind == Kind::Contrastive;
        let whole = !pair || (examples.len() == 2 && examples[0].pair == examples[1].pair);
        if !whole {
            return Err("broken-pair");
        }
        let id = format!(
            "model-{}-{}-{at}",
            batch.stream.name().replace('/', "-"),
            batch.number
        );
        let mut rows = Vec::new();
        for (side, example) in examples.iter().enumerate() {
            let mut row = row(example, batch.stream.kind)?;
            row.id = if pair {
                format!("{id}-{}", side + 1)
            } else {
                id.clone()
            };
            row.group = pair.then(|| id.clone());
            self.check(batch, &row, side)?;
            rows.push(row);
        }
        for row in &rows {
            let text = row.user_text();
            let grams = Grams::of(&text);
            if !self.texts.insert(normal(&text)) {
                return Err("same-text");
            }
            if self.grams.iter().any(|other| other.jaccard(&grams) >= NEAR) {
                return Err("near-duplicate");
            }
            self.grams.push(grams);
        }
        Ok(rows)
    }

    fn check(
        &self,
        batch: &Batch<'_>,
        row: &Conversation,
        side: usize,
    ) -> Result<(), &'static str> {
        let last = row.calls().last().map(|call| call.tool.as_str());
        let wanted = match batch.stream.kind {
            Kind::Contrastive => Some(["createTask", "createCalendarEvent"][side.min(1)]),
            _ => batch.stream.tool.as_deref(),
        };
        if wanted.is_some() && last != wanted {
            return Err("wrong-tool");
        }
        match self.checker.faults(row).first() {
            None => Ok(()),
            Some((code, _)) => Err(code),
        }
    }
}

fn row(example: &Example, kind: Kind) -> Result<Conversation, &'static str> {
    let now = DateTime::strptime("%Y-%m-%dT%H:%M", &example.now).map_err(|_| "broken-now")?;
    let mut messages = Vec::new();
    for turn in &example.turns {
        let calls: Vec<Call> = turn.calls.iter().map(without_nulls).collect();
        messages.push(Message::User {
            content: turn.user.trim().to_owned(),
        });
        messages.push(Message::Assistant {
            content: turn.prose.trim().to_owned(),
            calls,
        });
        for result in &turn.results {
            let content: Value = serde_json::from_str(result).map_err(|_| "broken-result")?;
            messages.push(Message::Tool { content });
        }
        if let Some(after) = &turn.after {
            if turn.results.is_empty() {
                return Err("answer-without-result");
            }
            messages.push(Message::Assistant {
                content: after.trim().to_owned(),
                calls: Vec::new(),
            });
        }
    }
    Ok(Conversation {
        id: String::new(),
        source: "model".to_owned(),
        kind,
        group: None,
        now: Some(now),
        tools: None,
        weight: None,
        messages,
    })
}

/// What was not given is null in the answer and absent in a row.
fn without_nulls(call: &Call) -> Call {
    let given = call.params.iter().filter(|(_, value)| !value.is_null());
    Call {
        tool: call.tool.clone(),
        params: given
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect::<Map<_, _>>(),
    }
}
