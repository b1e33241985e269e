//! Review: people look at a share of the rows before any is trained on.
//!
//! Promises: which rows are looked at follows from their content and the seed alone, so more rows
//! ask for more decisions and undo none; a decision counts for the row whose content it was made
//! about, wherever the row comes from next time. Must not know: which stage reviews, the terminal.

mod decisions;
mod sample;
mod show;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::Serialize;

use crate::contract::{StageError, Undecided};
use crate::conversation::{Conversation, Placed};

pub use decisions::{Choice, Decision, Decisions};
pub(crate) use sample::row_id;

/// What is to be looked at.
#[derive(Clone, Debug)]
pub(crate) struct Review {
    /// The share of the rows, 0 to 1.
    pub(crate) share: f64,
    /// Whose rows: their `source`.
    pub(crate) sources: Vec<String>,
    /// Chooses which.
    pub(crate) seed: u64,
    /// What was decided.
    pub(crate) decisions: Decisions,
}

/// What was decided about the rows at hand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    pub(crate) accepted: usize,
    pub(crate) edited: usize,
    pub(crate) rejected: usize,
    /// Decisions about rows that are no more.
    pub(crate) of_no_row: usize,
}

impl Counts {
    /// Whether nobody decided anything.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// A line for people, where there is something to say.
    pub(crate) fn line(&self) -> Option<String> {
        let Self {
            accepted,
            edited,
            rejected,
            of_no_row,
        } = self;
        let rest = match of_no_row {
            0 => String::new(),
            _ => format!("; {of_no_row} decisions are about rows that are no more"),
        };
        (!self.is_none()).then(|| {
            format!("reviewed: {accepted} accepted, {edited} edited, {rejected} rejected{rest}")
        })
    }
}

/// The rows after the decisions.
pub(crate) struct Reviewed {
    pub(crate) rows: Vec<Placed>,
    pub(crate) counts: Counts,
    pub(crate) open: Open,
}

/// Rows, by content, that need a decision and have none.
pub(crate) struct Open(BTreeSet<String>);

impl Review {
    /// Rejected rows go, edited ones are replaced.
    pub(crate) fn apply(&self, rows: Vec<Placed>) -> Result<Reviewed, StageError> {
        let ids: Vec<String> = rows.iter().map(|placed| row_id(&placed.row)).collect();
        let asked = ids.iter().zip(&rows);
        let asked = asked.filter(|(_, placed)| self.sources.contains(&placed.row.source));
        let open = sample::wanted(asked.map(|(id, _)| id.as_str()), self.share, self.seed);
        let mut reviewed = Reviewed {
            rows: Vec::with_capacity(rows.len()),
            counts: Counts::default(),
            open: Open(open.into_iter().map(str::to_owned).collect()),
        };
        let mut met = BTreeSet::new();
        for (id, mut placed) in ids.iter().zip(rows) {
            let Some(decision) = self.decisions.get(id) else {
                reviewed.rows.push(placed);
                continue;
            };
            met.insert(id);
            reviewed.open.0.remove(id);
            match decision.choice {
                Choice::Accept => reviewed.counts.accepted += 1,
                Choice::Reject => {
                    reviewed.counts.rejected += 1;
                    continue;
                }
                Choice::Edit => {
                    reviewed.counts.edited += 1;
                    placed.row = decision.row_in_place_of(id, &placed.row)?;
                }
            }
            reviewed.rows.push(placed);
        }
        reviewed.counts.of_no_row = self.decisions.len() - met.len();
        Ok(reviewed)
    }
}

impl Open {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of the rows that may go on, those that wait for a decision.
    pub(crate) fn undecided(&self, good: &[Conversation]) -> Vec<Undecided> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let rows = good.iter().map(|row| (row_id(row), row));
        let rows = rows.filter(|(id, _)| self.0.contains(id));
        rows.map(|(id, row)| show::undecided(id, row)).collect()
    }
}
