//! What eval leaves behind: `report.json` for programs and `report.md` for people.
//!
//! Promises: holds no time, host or path, so equal answers give equal bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::metrics::{self, Share};
use super::prompts::EvalPrompt;
use super::score::Verdict;

/// The report's figures.
#[derive(Serialize)]
pub(crate) struct Report {
    /// Metric name -> share.
    pub(crate) metrics: BTreeMap<String, Share>,
    /// Category -> right tools.
    pub(crate) categories: BTreeMap<String, Share>,
    /// Expected -> called -> count.
    pub(crate) confusion: BTreeMap<String, BTreeMap<String, usize>>,
    /// The plan's diagnosis, most pressing first.
    pub(crate) diagnosis: Vec<String>,
}

/// The part of another eval's report that is shown beside this one.
#[derive(Deserialize)]
pub(crate) struct Baseline {
    metrics: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Value {
    value: f64,
}

impl Report {
    /// Sums up all verdicts.
    pub(crate) fn new(judged: &[(EvalPrompt, Verdict)], stopped: &[bool]) -> Self {
        let metrics: BTreeMap<_, _> = metrics::overall(judged, stopped)
            .into_iter()
            .map(|(name, share)| (name.to_owned(), share))
            .collect();
        Self {
            diagnosis: diagnose(&metrics, judged),
            metrics,
            categories: metrics::by_category(judged),
            confusion: metrics::confusion(judged),
        }
    }

    /// The plan's metrics as lines, beside the baseline's where there is one.
    pub(crate) fn table(&self, baseline: Option<&Baseline>) -> Vec<String> {
        self.metrics
            .iter()
            .map(|(name, share)| {
                let before = baseline
                    .and_then(|base| base.metrics.get(name))
                    .map_or_else(String::new, |base| {
                        format!("{:>5.1} % -> ", 100.0 * base.value)
                    });
                format!(
                    "{name:<15} {before}{:>5.1} %   ({}/{}, 95 % interval {:.0} to {:.0})",
                    100.0 * share.value,
                    share.hits,
                    share.of,
                    100.0 * share.low,
                    100.0 * share.high
                )
            })
            .collect()
    }

    /// The report as Markdown, failures with their transcripts.
    pub(crate) fn markdown(
        &self,
        baseline: Option<&Baseline>,
        judged: &[(EvalPrompt, Verdict)],
        answers: &[String],
    ) -> String {
        let mut text = String::from("# Scores\n\n```\n");
        for line in self.table(baseline) {
            let _ = writeln!(text, "{line}");
        }
        text.push_str("```\n\n## By category\n\n| category | right | of |\n|---|---:|---:|\n");
        for (name, share) in &self.categories {
            let _ = writeln!(text, "| {name} | {} | {} |", share.hits, share.of);
        }
        text.push_str(
            "\n## Expected and called\n\n| expected | called | times |\n|---|---|---:|\n",
        );
        for (expected, row) in &self.confusion {
            for (called, times) in row {
                let _ = writeln!(text, "| {expected} | {called} | {times} |");
            }
        }
        text.push_str("\n## What to do\n\n");
        for line in &self.diagnosis {
            let _ = writeln!(text, "- {line}");
        }
        text.push_str("\n## Failures\n");
        for ((prompt, verdict), answer) in judged.iter().zip(answers) {
            if verdict.right_tools {
                continue;
            }
            let asked = prompt.asked();
            let why = verdict.why.as_deref().unwrap_or("");
            let _ = write!(
                text,
                "\n### {} ({}): {why}\n\n> {}\n\n~~~\n{answer}\n~~~\n",
                prompt.id,
                prompt.category,
                asked.replace('\n', "\n> ")
            );
        }
        text
    }
}

/// The plan's diagnosis table, applied to what was seen.
fn diagnose(metrics: &BTreeMap<String, Share>, judged: &[(EvalPrompt, Verdict)]) -> Vec<String> {
    let value = |name: &str| metrics.get(name).map_or(1.0, |share| share.value);
    let mut lines = Vec::new();
    if value("stopped") < 0.98 {
        lines.push("answers run on past their end: check that the end token is trained (EOS is not PAD) and raise `max_new_tokens`".to_owned());
    }
    if value("valid_json") < 0.98 {
        lines.push(format!(
            "malformed calls: add examples of the tools concerned ({})",
            worst(judged, |v| !v.valid_json && !v.expected.is_empty())
        ));
    }
    if value("no_tool") < 0.90 {
        lines.push("calls a tool when it should not: add negative examples".to_owned());
    }
    if value("disambiguation") < 0.95 {
        lines.push(
            "createTask and createCalendarEvent are confused: add contrastive pairs".to_owned(),
        );
    }
    if value("tool_selection") < 0.90 {
        lines.push(format!(
            "wrong tool selected: add examples and contrastive pairs for {}",
            worst(judged, |v| v.valid_json && !v.right_tools)
        ));
    }
    if lines.is_empty() {
        lines.push("healthy: nothing to mend".to_owned());
    }
    lines
}

/// The expected tools that fail most often by `fails`.
fn worst(judged: &[(EvalPrompt, Verdict)], fails: impl Fn(&Verdict) -> bool) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, verdict) in judged.iter().filter(|(_, verdict)| fails(verdict)) {
        for tool in &verdict.expected {
            *counts.entry(tool).or_default() += 1;
        }
    }
    let mut names: Vec<_> = counts.into_iter().collect();
    names.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    let names: Vec<_> = names
        .into_iter()
        .take(3)
        .map(|(name, count)| format!("`{name}` {count}x"))
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
