//! What train leaves beside the adapter: the loss curves as data, and its figures.
//!
//! Promises: no time, host or path in it.

use std::collections::BTreeMap;
use std::path::Path;

use qlora::train::TrainReport;
use serde_json::json;

use super::rows::Rows;
use crate::contract::{Context, Outcome, StageError};

/// Steps averaged for the final training loss.
const LAST_STEPS: usize = 10;

/// Where the adapter of a kept look lies, below the adapter's folder.
pub(super) fn kept_path(step: u64) -> String {
    format!("kept/step-{step}")
}

/// Writes `report.json` and sums the run up. `rows` are those to train on and those held out.
pub(super) fn write(
    output: &Path,
    done: &TrainReport,
    rows: [&Rows; 2],
    ctx: &Context<'_>,
) -> Result<Outcome, StageError> {
    let total =
        |count: fn(&qlora::train::StepRecord) -> u64| done.steps.iter().map(count).sum::<u64>();
    let (tokens, separate) = (
        total(|step| step.tokens),
        total(|step| step.separate_tokens),
    );
    let mut report = json!({
        "rows": { "train": rows[0].examples.len(), "val": rows[1].examples.len() },
        "tokens": { "computed": tokens, "without_sharing": separate, "labels": total(|step| step.labels) },
        "returned_step": done.returned_step,
        "best": done.best,
        "steps": done.steps,
        "validations": done.validations,
    });
    let lost = [
        ("dropped", rows.map(|rows| rows.dropped)),
        ("truncated", rows.map(|rows| rows.truncated)),
    ];
    for (what, [train, val]) in lost {
        if train + val > 0 {
            report["rows"][what] = json!({ "train": train, "val": val });
        }
    }
    if !done.kept.is_empty() {
        let kept = done.kept.iter().map(|kept| {
            json!({
                "step": kept.validation.step,
                "loss": kept.validation.loss,
                "adapter": kept_path(kept.validation.step),
            })
        });
        report["kept"] = kept.collect();
    }
    if !done.fallbacks.is_empty() {
        report["fallbacks"] = json!(done.fallbacks);
    }
    let mut text = serde_json::to_string_pretty(&report).expect("a report serialises");
    text.push('\n');
    let path = output.join("report.json");
    std::fs::write(&path, text).map_err(|error| StageError::io(&path, &error))?;

    let mut metrics = BTreeMap::new();
    let last: Vec<f64> = done
        .steps
        .iter()
        .rev()
        .take(LAST_STEPS)
        .map(|step| step.loss)
        .collect();
    let train_loss = last.iter().sum::<f64>() / last.len().max(1) as f64;
    metrics.insert("train_loss".to_owned(), train_loss);
    metrics.insert("steps".to_owned(), done.steps.len() as f64);
    if let Some(val) = done.validations.last() {
        metrics.insert("val_loss".to_owned(), val.loss);
        warn_overfit(train_loss, val.loss, done, ctx);
    }
    let mut notes = vec![format!(
        "{} steps, {tokens} tokens computed ({separate} without the shared prefix)",
        done.steps.len()
    )];
    for fallback in &done.fallbacks {
        notes.push(format!(
            "the card was full at step {}: {} from there on",
            fallback.step, fallback.plan
        ));
    }
    for (what, counts) in lost {
        let count: usize = counts.iter().sum();
        if count > 0 {
            notes.push(format!("{count} rows {what}: longer than the context"));
        }
    }
    Ok(Outcome {
        metrics,
        notes,
        pin: None,
    })
}

/// The plan's sign of overfitting: a held-out loss that rises while the training loss is
/// far below it.
fn warn_overfit(train: f64, val: f64, done: &TrainReport, ctx: &Context<'_>) {
    let best = done.best.as_ref().map_or(val, |best| best.loss);
    if val > 1.15 * best && val > 4.0 * train {
        ctx.warn(
            "train::overfit",
            format!("held-out loss {val:.2} has risen from {best:.2} while training loss is {train:.2}: fewer epochs, a lower rate, or more varied rows"),
        );
    }
}
