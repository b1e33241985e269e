//! What train leaves beside the adapter: the loss curves as data.
//!
//! Promises: no time, host or path in it.

use std::path::Path;

use serde::Serialize;
use serde_json::json;

use crate::contract::StageError;

/// The curves, filled while training goes.
#[derive(Default, Serialize)]
pub(super) struct Curves {
    /// `[step, loss]`, the mean cross-entropy over the step's labelled tokens.
    pub(super) train_loss: Vec<(u64, f64)>,
    /// `[step, loss]` on the held-out rows.
    pub(super) val_loss: Vec<(u64, f64)>,
    /// `[step, learning rate]`.
    pub(super) learning_rate: Vec<(u64, f64)>,
    /// `[step, norm]` of all adapter gradients before clipping.
    pub(super) grad_norm: Vec<(u64, f64)>,
}

impl Curves {
    /// The held-out loss where it was least.
    pub(super) fn best_val(&self) -> Option<(u64, f64)> {
        self.val_loss.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Whether the held-out loss has left the training loss behind: the plan's sign of
    /// overfitting (0.1 against 0.8).
    pub(super) fn overfit(&self) -> Option<(f64, f64)> {
        let last = self.val_loss.last()?.1;
        let recent: Vec<f64> = self.train_loss.iter().rev().take(10).map(|point| point.1).collect();
        let train = recent.iter().sum::<f64>() / recent.len().max(1) as f64;
        let best = self.best_val()?.1;
        (last > 2.5 * train && last > 1.1 * best).then_some((train, last))
    }

    /// Writes `report.json`.
    pub(super) fn write(&self, path: &Path, rows: (usize, usize), tokens: &serde_json::Value) -> Result<(), StageError> {
        let report = json!({
            "rows": { "train": rows.0, "val": rows.1 },
            "tokens": tokens,
            "curves": self,
        });
        let mut text = serde_json::to_string_pretty(&report).expect("curves serialise");
        text.push('\n');
        std::fs::write(path, text).map_err(|error| StageError::io(path, &error))
    }
}
