//! How long rows are, in tokens.
//!
//! Promises: a length is never underestimated by the estimate on English text. Must not
//! know: which stage asks.

use std::path::Path;

use serde::Serialize;

/// Counts the tokens of a text.
pub trait CountTokens {
    /// Tokens of `text`, without any template.
    fn count(&self, text: &str) -> usize;
}

/// A bound without a tokenizer: byte-level BPEs take at least three characters a token on
/// English prose and JSON, on average.
pub struct Estimate;

impl CountTokens for Estimate {
    fn count(&self, text: &str) -> usize {
        text.chars().count().div_ceil(3)
    }
}

/// The counter for a base; the estimate when there is none.
pub(super) fn counter(_base: Option<&Path>) -> Box<dyn CountTokens> {
    Box::new(Estimate)
}

/// Lengths of all rows, in tokens.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Lengths {
    pub(super) median: usize,
    pub(super) p95: usize,
    pub(super) max: usize,
}

impl Lengths {
    pub(super) fn of(tokens: &[usize]) -> Self {
        let mut sorted = tokens.to_vec();
        sorted.sort_unstable();
        let at = |share: f64| {
            let index = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
            sorted.get(index).copied().unwrap_or(0)
        };
        Self {
            median: at(0.5),
            p95: at(0.95),
            max: at(1.0),
        }
    }
}
