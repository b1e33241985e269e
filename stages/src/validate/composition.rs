//! What the rows are made of, beside what the plan asks for.
//!
//! Promises: every kind and every tool has a line, also with zero rows. Must not know:
//! whether a deviation stops anything (it warns).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::conversation::{Conversation, Kind};
use crate::tools::ToolSet;

/// One line of the table.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Share {
    rows: usize,
    part: f64,
    plan: &'static str,
}

/// The table.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Composition {
    rows: usize,
    kinds: BTreeMap<&'static str, Share>,
    sources: BTreeMap<String, usize>,
    /// Calls by tool, of the pipeline's tools.
    tools: BTreeMap<String, usize>,
    contrastive_pairs: usize,
    own_tools: usize,
}

/// The plan's share of the rows for each kind: least, most.
fn planned(kind: Kind) -> (f64, f64, &'static str) {
    match kind {
        Kind::Single => (0.35, 0.60, "400-500 of 800-1,000: 40-60 %"),
        Kind::Contrastive => (0.08, 0.25, "60-80 pairs: about 15 %"),
        Kind::Negative => (0.10, 0.15, "10-15 %"),
        Kind::MultiTurn => (0.04, 0.20, "100-150 of 800-1,000: about 12 %"),
        Kind::Crud => (0.05, 0.35, "50-75 for each of the four id tools"),
        Kind::Compound => (0.04, 0.10, "50-80 of 800-1,000: about 7 %"),
        Kind::General => (0.05, 0.12, "about 10 %"),
    }
}

impl Composition {
    pub(super) fn of(rows: &[Conversation], tools: &ToolSet) -> Self {
        let total = rows.len().max(1) as f64;
        let kinds = Kind::ALL
            .into_iter()
            .map(|kind| {
                let count = rows.iter().filter(|row| row.kind == kind).count();
                let share = Share {
                    rows: count,
                    part: (count as f64 / total * 1e4).round() / 1e4,
                    plan: planned(kind).2,
                };
                (kind.name(), share)
            })
            .collect();
        let mut sources: BTreeMap<String, usize> = BTreeMap::new();
        let mut called: BTreeMap<String, usize> =
            tools.names().map(|name| (name.to_owned(), 0)).collect();
        let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
        for row in rows {
            *sources.entry(row.source.clone()).or_default() += 1;
            if let (Kind::Contrastive, Some(group)) = (row.kind, &row.group) {
                *groups.entry(group).or_default() += 1;
            }
            for call in row.calls().filter(|_| row.tools.is_none()) {
                if let Some(count) = called.get_mut(&call.tool) {
                    *count += 1;
                }
            }
        }
        Self {
            rows: rows.len(),
            kinds,
            sources,
            tools: called,
            contrastive_pairs: groups.values().filter(|size| **size > 1).count(),
            own_tools: rows.iter().filter(|row| row.tools.is_some()).count(),
        }
    }

    /// The share of negatives.
    pub(super) fn negatives(&self) -> f64 {
        self.kinds["negative"].part
    }

    /// What differs from the plan enough to say so: code and sentence.
    pub(super) fn warnings(&self, negatives: (f64, f64)) -> Vec<(&'static str, String)> {
        let mut warnings = Vec::new();
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        for kind in Kind::ALL {
            let (mut least, mut most, _) = planned(kind);
            if kind == Kind::Negative {
                (least, most) = negatives;
            }
            let share = self.kinds[kind.name()].part;
            let side = if share < least {
                format!("below {}", percent(least))
            } else if share > most {
                format!("above {}", percent(most))
            } else {
                continue;
            };
            let code = if kind == Kind::Negative {
                "validate::negatives"
            } else {
                "validate::composition"
            };
            warnings.push((code, format!("{kind} rows are {}, {side}", percent(share))));
        }
        for (tool, count) in &self.tools {
            if *count < 20 && self.rows >= 300 {
                warnings.push((
                    "validate::rare-tool",
                    format!("`{tool}` is called {count} times; the plan wants 20-30 a tool"),
                ));
            }
        }
        warnings
    }

    /// The table for people.
    pub(super) fn lines(&self) -> Vec<String> {
        Kind::ALL
            .into_iter()
            .map(|kind| {
                let line = &self.kinds[kind.name()];
                format!(
                    "{:<12} {:>5} rows {:>5.1} %   plan: {}",
                    kind.name(),
                    line.rows,
                    line.part * 100.0,
                    line.plan
                )
            })
            .collect()
    }
}
