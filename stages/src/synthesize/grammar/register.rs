//! How a person writes: carefully, in lower case, in haste.
//!
//! Promises: letters change only in case, and words only by the book's list of typos, so
//! names, ids and numbers stay readable. Must not know: templates, tools.

use std::collections::BTreeMap;

use rand::Rng;
use rand::seq::IndexedRandom;

use super::draw::tidy;

/// A way of writing, kept for a whole row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    /// As the book has it.
    Plain,
    /// A capital first letter and a final mark.
    Careful,
    /// All lower case, no final mark.
    Lower,
    /// Lower case with a typo.
    Hasty,
}

const ASKS: [&str; 22] = [
    "what", "whats", "what's", "how", "how's", "who", "when", "where", "which", "why", "is", "are",
    "can", "could", "would", "will", "do", "does", "did", "should", "may", "any",
];

impl Register {
    pub(super) fn draw(rng: &mut impl Rng) -> Self {
        match rng.random_range(0..100) {
            0..38 => Self::Plain,
            38..66 => Self::Careful,
            66..88 => Self::Lower,
            _ => Self::Hasty,
        }
    }

    pub(super) fn apply(
        self,
        text: &str,
        typos: &BTreeMap<String, Vec<String>>,
        rng: &mut impl Rng,
    ) -> String {
        let text = tidy(text);
        match self {
            Self::Plain => text,
            Self::Careful => careful(&text),
            Self::Lower => lower(&text),
            Self::Hasty => hasty(&lower(&text), typos, rng),
        }
    }
}

fn careful(text: &str) -> String {
    // An id or an address keeps its letters also at the beginning.
    let first = text.split(' ').next().unwrap_or("");
    let mut out = if first.contains(['_', '@']) {
        text.to_owned()
    } else {
        super::template::Filter::Title.apply(text)
    };
    if let Some(at) = out.find(" i ") {
        out.replace_range(at..at + 3, " I ");
    }
    if !out.ends_with(['.', '?', '!', ')', '"', ':']) {
        let word = first.to_lowercase();
        out.push(if ASKS.contains(&word.as_str()) {
            '?'
        } else {
            '.'
        });
    }
    out
}

fn lower(text: &str) -> String {
    text.to_lowercase().trim_end_matches(['.', '?']).to_owned()
}

fn hasty(text: &str, typos: &BTreeMap<String, Vec<String>>, rng: &mut impl Rng) -> String {
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let known: Vec<usize> = (0..words.len())
        .filter(|at| typos.contains_key(&words[*at]))
        .collect();
    if let Some(at) = known.choose(rng)
        && let Some(typo) = typos[&words[*at]].choose(rng)
    {
        words[*at].clone_from(typo);
    }
    words.join(" ")
}
