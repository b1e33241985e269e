//! How long rows are, in tokens.
//!
//! Promises: exact for a base whose tokenizer is at hand; without one, an estimate that is
//! never too low on English text. Must not know: which stage asks.

use std::path::Path;

use qlora::Tokenizer;
use serde::Serialize;

use crate::base;
use crate::contract::StageError;

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

/// The base's own tokenizer.
struct Exact(Tokenizer);

impl CountTokens for Exact {
    fn count(&self, text: &str) -> usize {
        self.0
            .encode(text)
            .map_or_else(|_| Estimate.count(text), |ids| ids.len())
    }
}

/// The counter for a base; the estimate when there is none.
pub(super) fn counter(base: Option<&Path>) -> Result<Box<dyn CountTokens>, StageError> {
    match base {
        Some(path) => Ok(Box::new(Exact(base::tokenizer(path)?))),
        None => Ok(Box::new(Estimate)),
    }
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
