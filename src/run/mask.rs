//! Secrets never reach a log or an event.
//!
//! Promises: every value handed over is replaced wherever it stands in a line, also in its
//! JSON spelling, longest first. Values cannot straddle lines: each line of a
//! many-line secret is masked by itself.

use std::collections::BTreeSet;

use stages::{Outcome, StageError, StageEvent};

const SHOWN: &str = "***";

/// Values that must not be shown.
#[derive(Clone, Default)]
pub(crate) struct Mask {
    /// Longest first, so that a secret that begins another leaves no tail.
    values: Vec<String>,
}

impl Mask {
    /// Masks each of `values`, empty ones excepted.
    pub(crate) fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut spellings = BTreeSet::new();
        for value in values {
            for line in value.lines().map(str::trim).filter(|line| !line.is_empty()) {
                spellings.insert(line.to_owned());
                let json = serde_json::Value::from(line).to_string();
                spellings.insert(json.trim_matches('"').to_owned());
            }
        }
        let mut values: Vec<_> = spellings.into_iter().collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self { values }
    }

    /// `text` without secrets.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut shown = text.to_owned();
        for value in &self.values {
            if shown.contains(value.as_str()) {
                shown = shown.replace(value.as_str(), SHOWN);
            }
        }
        shown
    }

    /// An event without secrets.
    pub(crate) fn event(&self, event: StageEvent) -> StageEvent {
        if self.values.is_empty() {
            return event;
        }
        match event {
            StageEvent::Log { text } => StageEvent::Log {
                text: self.text(&text),
            },
            StageEvent::Warning { code, text } => StageEvent::Warning {
                code,
                text: self.text(&text),
            },
            StageEvent::Sample { prompt, answer } => StageEvent::Sample {
                prompt: self.text(&prompt),
                answer: self.text(&answer),
            },
            StageEvent::Progress {
                done,
                total,
                unit,
                what,
            } => StageEvent::Progress {
                done,
                total,
                unit,
                what: self.text(&what),
            },
            metric @ StageEvent::Metric { .. } => metric,
        }
    }

    /// An error without secrets.
    pub(crate) fn error(&self, error: StageError) -> StageError {
        StageError {
            message: self.text(&error.message),
            mend: self.text(&error.mend),
            ..error
        }
    }

    /// An outcome without secrets in its notes.
    pub(crate) fn outcome(&self, outcome: Outcome) -> Outcome {
        Outcome {
            notes: outcome.notes.iter().map(|note| self.text(note)).collect(),
            ..outcome
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Mask;

    #[test]
    fn values_and_their_json_spelling_are_masked() {
        let mask = Mask::new(["hf_abc", "two\nlines", "quo\"te", ""]);
        assert_eq!(mask.text("token hf_abc, hf_abc!"), "token ***, ***!");
        assert_eq!(mask.text("two and lines"), "*** and ***");
        assert_eq!(mask.text(r#"{"key": "quo\"te"}"#), r#"{"key": "***"}"#);
        assert_eq!(mask.text("nothing"), "nothing");
    }

    #[test]
    fn a_secret_that_begins_another_leaves_no_tail() {
        let mask = Mask::new(["abc", "abcdef"]);
        assert_eq!(mask.text("abcdef"), "***");
    }
}
