//! The plan's metrics over all verdicts, with 95 % intervals.
//!
//! Intervals are Wilson score intervals (Wilson 1927): right near 0 and 1 and for few prompts.

use std::collections::BTreeMap;

use serde::Serialize;

use super::prompts::EvalPrompt;
use super::score::Verdict;

/// A share with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Share {
    /// Hits.
    pub(crate) hits: usize,
    /// Out of how many.
    pub(crate) of: usize,
    /// Hits over all, 0 to 1.
    pub(crate) value: f64,
    /// Lower end of the 95 % interval.
    pub(crate) low: f64,
    /// Upper end of the 95 % interval.
    pub(crate) high: f64,
}

impl Share {
    /// The share of `true`; `None` for no prompts at all.
    pub(crate) fn of(hits: impl IntoIterator<Item = bool>) -> Option<Self> {
        let (mut yes, mut all) = (0_usize, 0_usize);
        for hit in hits {
            yes += usize::from(hit);
            all += 1;
        }
        (all > 0).then(|| Self::wilson(yes, all))
    }

    fn wilson(hits: usize, of: usize) -> Self {
        const Z: f64 = 1.959_963_984_540_054;
        let n = of as f64;
        let p = hits as f64 / n;
        let denominator = 1.0 + Z * Z / n;
        let centre = (p + Z * Z / (2.0 * n)) / denominator;
        let half = Z / denominator * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let low = if hits == 0 {
            0.0
        } else {
            (centre - half).max(0.0)
        };
        let high = if hits == of {
            1.0
        } else {
            (centre + half).min(1.0)
        };
        Self {
            hits,
            of,
            value: p,
            low,
            high,
        }
    }
}

/// The plan's metrics by name, in the order shown.
pub(crate) fn overall(
    judged: &[(EvalPrompt, Verdict)],
    stopped: &[bool],
) -> Vec<(&'static str, Share)> {
    let positive = || {
        judged
            .iter()
            .filter(|(prompt, _)| !prompt.expect.is_empty())
    };
    let negative = || judged.iter().filter(|(prompt, _)| prompt.expect.is_empty());
    let pairs = || {
        judged
            .iter()
            .filter(|(prompt, _)| prompt.category == "disambiguation")
    };
    let shares = [
        (
            "tool_selection",
            Share::of(positive().map(|(_, verdict)| verdict.right_tools)),
        ),
        (
            "valid_json",
            Share::of(positive().map(|(_, verdict)| verdict.valid_json)),
        ),
        (
            "disambiguation",
            Share::of(pairs().map(|(_, verdict)| verdict.right_tools)),
        ),
        (
            "no_tool",
            Share::of(negative().map(|(_, verdict)| verdict.right_tools)),
        ),
        (
            "valid_params",
            Share::of(positive().map(|(_, verdict)| verdict.valid_params)),
        ),
        (
            "params_match",
            Share::of(positive().map(|(_, verdict)| verdict.right_params)),
        ),
        ("stopped", Share::of(stopped.iter().copied())),
    ];
    shares
        .into_iter()
        .filter_map(|(name, share)| Some((name, share?)))
        .collect()
}

/// Right tools by category.
pub(crate) fn by_category(judged: &[(EvalPrompt, Verdict)]) -> BTreeMap<String, Share> {
    let mut hits: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for (prompt, verdict) in judged {
        hits.entry(prompt.category.clone())
            .or_default()
            .push(verdict.right_tools);
    }
    hits.into_iter()
        .filter_map(|(name, hits)| Some((name, Share::of(hits)?)))
        .collect()
}

/// Expected tools -> called tools -> how often; `none` and `invalid` are columns too.
pub(crate) fn confusion(
    judged: &[(EvalPrompt, Verdict)],
) -> BTreeMap<String, BTreeMap<String, usize>> {
    let mut table: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for (_, verdict) in judged {
        let expected = name(&verdict.expected, false);
        let called = name(&verdict.called, verdict.attempted && !verdict.valid_json);
        *table
            .entry(expected)
            .or_default()
            .entry(called)
            .or_default() += 1;
    }
    table
}

fn name(tools: &[String], invalid: bool) -> String {
    match tools {
        [] if invalid => "invalid".to_owned(),
        [] => "none".to_owned(),
        tools => tools.join(" + "),
    }
}

#[cfg(test)]
mod tests {
    use super::Share;

    /// Reference values of R's `prop.test(correct = FALSE)` intervals.
    #[test]
    fn wilson_interval_matches_known_values() {
        let share = Share::of((0..10).map(|i| i < 8)).expect("ten prompts");
        assert!((share.low - 0.490_162_5).abs() < 1e-6, "{share:?}");
        assert!((share.high - 0.943_317_8).abs() < 1e-6, "{share:?}");
        let all = Share::of([true; 20]).expect("twenty prompts");
        assert!(
            (all.low - 0.838_875_2).abs() < 1e-6 && all.high == 1.0,
            "{all:?}"
        );
        assert_eq!(Share::of([]), None);
    }
}
