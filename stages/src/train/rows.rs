//! Rows -> training examples, with every check that needs token ids.
//!
//! Promises: no row is cut or left out unless that was asked for, and then it is said; a row with nothing to
//! learn, or longer than the context, is named; all faults at once.

use std::collections::BTreeMap;
use std::path::Path;

use qlora::train::Example;

use crate::base::{Base, Encoded};
use crate::contract::{Context, Params, StageError};
use crate::conversation::{Conversation, read_lines};

/// Rows named in a warning; the rest is counted.
const NAMED: usize = 5;

/// What becomes of a row that is longer than the context.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TooLong {
    Refuse,
    Drop,
    Truncate,
}

/// What rows become, as the parameters ask.
pub(super) struct Rules {
    pub(super) context: usize,
    pub(super) too_long: TooLong,
    /// Only the last of the assistant's turns is learned.
    pub(super) last_turn: bool,
    /// By type of row.
    pub(super) weights: BTreeMap<String, f64>,
    /// Whether the rows' own weights count.
    pub(super) row_weights: bool,
}

impl Rules {
    pub(super) fn of(params: &Params) -> Self {
        let weights = params.map("weights").into_iter();
        Self {
            context: params.int("context").unwrap_or(2048) as usize,
            too_long: match params.text("too_long").as_deref() {
                Some("drop") => TooLong::Drop,
                Some("truncate") => TooLong::Truncate,
                _ => TooLong::Refuse,
            },
            last_turn: params.text("labels").as_deref() == Some("last"),
            weights: weights
                .filter_map(|(kind, weight)| Some((kind, weight.as_f64()?)))
                .collect(),
            row_weights: params.flag("row_weights"),
        }
    }
}

/// Examples, and what was done to get them.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) examples: Vec<Example>,
    /// Left out for their length.
    pub(super) dropped: usize,
    /// Cut, and still with something to learn.
    pub(super) truncated: usize,
}

/// Rows that something was found about, in their order.
#[derive(Default)]
struct Found {
    long: Vec<String>,
    dropped: Vec<String>,
    truncated: Vec<String>,
    empty: Vec<String>,
    weighted: Vec<String>,
}

/// Reads and encodes one file of rows. `port` is the input that it came by.
pub(super) fn examples(
    base: &Base,
    path: &Path,
    port: &str,
    rules: &Rules,
    ctx: &Context<'_>,
) -> Result<Rows, StageError> {
    let mut examples = Vec::new();
    let mut found = Found::default();
    for (row, place) in read_lines::<Conversation>(path).map_err(StageError::from)? {
        let encoded = base.encode_row(&row)?;
        let place = format!("{place} `{}`", row.id);
        if row.weight.is_some() && !rules.row_weights {
            found.weighted.push(place.clone());
        }
        if let Some(encoded) = rules.apply(encoded, place, &mut found) {
            examples.push(Example {
                ids: encoded.ids,
                labels: encoded.labels,
                weight: rules.weight(&row),
                id: row.id,
            });
        }
    }
    found.refuse(port, rules)?;
    found.tell(port, rules, ctx);
    if examples.is_empty() && !found.dropped.is_empty() {
        return Err(StageError::new(
            "train::row-too-long",
            format!("every row is longer than `context: {}`", rules.context),
            "raise `context`",
        )
        .at("with.context"));
    }
    Ok(Rows {
        examples,
        dropped: found.dropped.len(),
        truncated: found.truncated.len(),
    })
}

impl Rules {
    fn apply(&self, mut encoded: Encoded, place: String, found: &mut Found) -> Option<Encoded> {
        if self.last_turn {
            last_answer(&mut encoded.labels);
        }
        if !encoded.labels.contains(&true) {
            found.empty.push(place);
            return None;
        }
        let tokens = encoded.ids.len();
        if tokens <= self.context {
            return Some(encoded);
        }
        let told = format!("{place}: {tokens} tokens");
        match self.too_long {
            TooLong::Refuse => found.long.push(told),
            TooLong::Drop => found.dropped.push(told),
            TooLong::Truncate => {
                encoded.ids.truncate(self.context);
                encoded.labels.truncate(self.context);
                if encoded.labels.contains(&true) {
                    found.truncated.push(told);
                    return Some(encoded);
                }
                found
                    .dropped
                    .push(format!("{told}, no answer within the context"));
            }
        }
        None
    }

    fn weight(&self, row: &Conversation) -> f64 {
        let own = row.weight.filter(|_| self.row_weights).unwrap_or(1.0);
        own * self.weights.get(row.kind.name()).copied().unwrap_or(1.0)
    }
}

/// Leaves only the last run of labels: between two answers there is always a token of the template.
fn last_answer(labels: &mut [bool]) {
    let end = labels.iter().rposition(|label| *label).unwrap_or(0);
    let start = labels[..end].iter().rposition(|label| !label);
    if let Some(before) = start {
        labels[..=before].fill(false);
    }
}

impl Found {
    fn refuse(&self, port: &str, rules: &Rules) -> Result<(), StageError> {
        let at = format!("inputs.{port}");
        if !self.empty.is_empty() {
            let rows = self.empty.join("\n");
            return Err(StageError::new(
                "train::empty-labels",
                format!("rows without any assistant token to learn:\n{rows}"),
                "give these rows an assistant turn, or leave them out",
            )
            .at(&at));
        }
        if !self.weighted.is_empty() {
            let rows = self.weighted.join("\n");
            return Err(StageError::new(
                "train::row-weights",
                format!("rows carry a `weight` that would not count:\n{rows}"),
                "write `row_weights: true` to let it count, or take it out of the rows",
            )
            .at(&at));
        }
        if !self.long.is_empty() {
            let (rows, context) = (self.long.join("\n"), rules.context);
            return Err(StageError::new(
                "train::row-too-long",
                format!("rows longer than `context: {context}` tokens would be cut:\n{rows}"),
                "raise `context`, say `too_long: drop` or `too_long: truncate`, or let `validate` drop such rows (its own `context` with `on_fault: drop`)",
            )
            .at("with.context"));
        }
        Ok(())
    }

    fn tell(&self, port: &str, rules: &Rules, ctx: &Context<'_>) {
        for (code, rows, what) in [
            ("train::rows-dropped", &self.dropped, "left out"),
            ("train::rows-truncated", &self.truncated, "cut"),
        ] {
            if rows.is_empty() {
                continue;
            }
            let mut named = rows[..rows.len().min(NAMED)].join("; ");
            if rows.len() > NAMED {
                named.push_str(&format!("; and {} more", rows.len() - NAMED));
            }
            let (count, context) = (rows.len(), rules.context);
            ctx.warn(
                code,
                format!("{count} rows of `{port}` are longer than `context: {context}` tokens and are {what}: {named}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_alone_stays() {
        for (before, after) in [
            ("..##..###.", "......###."),
            ("..##..#", "......#"),
            ("..##..", "..##.."),
            ("###", "###"),
            ("...", "..."),
        ] {
            let mut labels: Vec<bool> = before.chars().map(|c| c == '#').collect();
            last_answer(&mut labels);
            let left: String = labels.iter().map(|l| if *l { '#' } else { '.' }).collect();
            assert_eq!(left, after, "{before}");
        }
    }
}
