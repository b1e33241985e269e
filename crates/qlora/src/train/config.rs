//! The settings of a training run, checked before the first step.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the learning rate falls after its warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Half a cosine, down to zero.
    Cosine,
    /// A straight line down to zero.
    Linear,
    /// Not at all.
    Constant,
}

/// What the loss of a batch is the mean of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossMean {
    /// Every labelled token counts alike, so a long answer outweighs a short one.
    Token,
    /// Every row counts alike: the mean over a row's tokens, then over rows.
    Row,
}

impl LossMean {
    /// The share of each label of a row with `labels` of them, before all shares are divided by their sum.
    pub(crate) fn share(self, labels: usize) -> f64 {
        match self {
            Self::Token => 1.0,
            Self::Row => 1.0 / labels as f64,
        }
    }
}

/// Prompts that are answered at each validation, to watch the model learn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Samples {
    /// A name and the prompt's ids.
    pub prompts: Vec<(String, Vec<u32>)>,
    /// Longest answer, in ids.
    pub max_new: usize,
    /// Ids that end an answer.
    pub stop: Vec<u32>,
}

/// The settings of a training run.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainConfig {
    /// Times that each example is seen.
    pub epochs: usize,
    /// Steps after which training ends even if epochs are left. The schedule ends there too.
    pub max_steps: Option<u64>,
    /// Examples per optimizer step. An epoch's last batch may be smaller.
    pub batch: usize,
    /// Most ids of a step's examples, shared prefixes counted once a row; a longer one stands alone.
    pub batch_tokens: Option<usize>,
    /// Most examples in memory at a time; changes memory and nothing else.
    pub micro_batch: Option<usize>,
    /// Peak learning rate.
    pub lr: f64,
    /// The rate of B over that of A (LoRA+, Hayou et al. 2024).
    pub lora_plus: f64,
    pub schedule: Schedule,
    /// Share of the peak rate that is left at the end of the schedule.
    pub lr_end: f64,
    /// Share of the steps over which the rate rises from zero.
    pub warmup_ratio: f64,
    /// The same as a number of steps; it wins over the share.
    pub warmup_steps: Option<u64>,
    pub weight_decay: f64,
    /// AdamW's decay rates of the first and second moment.
    pub betas: (f64, f64),
    /// AdamW's epsilon.
    pub eps: f64,
    /// Largest norm of the whole gradient.
    pub clip: Option<f64>,
    /// What the loss is the mean of, in training and in validation.
    pub loss: LossMean,
    /// Seed of the order of examples and of dropout.
    pub seed: u64,
    /// Steps between validations; there is always one at the end.
    pub eval_every: Option<u64>,
    /// Steps between checkpoints; None: about a minute, or more where they take long.
    pub save_every: Option<u64>,
    /// Validations without a better loss after which training stops.
    pub early_stop: Option<u32>,
    /// Return the adapter of the best validation instead of the last one.
    pub keep_best: bool,
    /// Adapters of the best validations that the report holds.
    pub keep: usize,
    /// Compute what all examples of a batch start with once.
    pub shared_prefix: bool,
    /// Bytes of activations kept at a time; more are computed twice or in micro-batches.
    pub activation_bytes: u64,
    pub samples: Option<Samples>,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 1,
            max_steps: None,
            batch: 8,
            batch_tokens: None,
            micro_batch: None,
            lr: 2e-4,
            lora_plus: 1.0,
            schedule: Schedule::Cosine,
            lr_end: 0.0,
            warmup_ratio: 0.05,
            warmup_steps: None,
            weight_decay: 0.01,
            betas: (0.9, 0.999),
            eps: 1e-8,
            clip: Some(1.0),
            loss: LossMean::Token,
            seed: 42,
            eval_every: None,
            save_every: None,
            early_stop: None,
            keep_best: false,
            keep: 0,
            shared_prefix: true,
            activation_bytes: 7 << 28,
            samples: None,
        }
    }
}

impl TrainConfig {
    /// Refuses settings that cannot hold.
    pub fn check(&self) -> Result<()> {
        let mut faults = self
            .optimizer_faults()
            .into_iter()
            .chain(self.loop_faults());
        match faults.find(|(fault, ..)| *fault) {
            Some((_, key, mend)) => Err(Error::Config {
                what: format!("training setting `{key}` cannot hold"),
                mend: mend.to_owned(),
            }),
            None => Ok(()),
        }
    }

    fn optimizer_faults(&self) -> [Fault; 9] {
        let positive = |v: f64| v.is_finite() && v >= 0.0;
        let share = |v: f64| (0.0..=1.0).contains(&v);
        let beta = |v: f64| (0.0..1.0).contains(&v);
        let betas = "use two numbers from 0 to below 1";
        [
            (!positive(self.lr), "lr", "use a finite rate such as `2e-4`"),
            (
                !(positive(self.lora_plus) && self.lora_plus > 0.0),
                "lora_plus",
                "use a positive ratio such as `16`, or 1 for one rate",
            ),
            (!share(self.lr_end), "lr_end", "use a share from 0 to 1"),
            (
                !share(self.warmup_ratio),
                "warmup_ratio",
                "use a share from 0 to 1",
            ),
            (
                !positive(self.weight_decay),
                "weight_decay",
                "use a finite number such as `0.01`",
            ),
            (!beta(self.betas.0), "betas", betas),
            (!beta(self.betas.1), "betas", betas),
            (
                !(positive(self.eps) && self.eps > 0.0),
                "eps",
                "use a small positive number such as `1e-8`",
            ),
            (
                self.clip.is_some_and(|c| c.is_nan() || c <= 0.0),
                "clip",
                "use a positive norm such as `1.0`, or leave it out",
            ),
        ]
    }

    fn loop_faults(&self) -> [Fault; 8] {
        let step = "use at least one step, or leave it out";
        [
            (self.epochs == 0, "epochs", "train for at least one epoch"),
            (self.max_steps == Some(0), "max_steps", step),
            (
                self.batch == 0,
                "batch",
                "use at least one example per step",
            ),
            (
                self.batch_tokens == Some(0),
                "batch_tokens",
                "use at least one token, or leave it out",
            ),
            (
                self.micro_batch == Some(0),
                "micro_batch",
                "use at least one example, or leave it out",
            ),
            (self.eval_every == Some(0), "eval_every", step),
            (self.save_every == Some(0), "save_every", step),
            (
                self.early_stop == Some(0),
                "early_stop",
                "allow at least one validation, or leave it out",
            ),
        ]
    }
}

/// Whether a setting cannot hold, its name, and a mend.
type Fault = (bool, &'static str, &'static str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_hold_are_named() {
        assert!(TrainConfig::default().check().is_ok());
        let wrong = [
            (
                TrainConfig {
                    batch: 0,
                    ..TrainConfig::default()
                },
                "batch",
            ),
            (
                TrainConfig {
                    lr: f64::NAN,
                    ..TrainConfig::default()
                },
                "lr",
            ),
            (
                TrainConfig {
                    clip: Some(0.0),
                    ..TrainConfig::default()
                },
                "clip",
            ),
            (
                TrainConfig {
                    lora_plus: 0.0,
                    ..TrainConfig::default()
                },
                "lora_plus",
            ),
            (
                TrainConfig {
                    lr_end: 1.5,
                    ..TrainConfig::default()
                },
                "lr_end",
            ),
            (
                TrainConfig {
                    batch_tokens: Some(0),
                    ..TrainConfig::default()
                },
                "batch_tokens",
            ),
            (
                TrainConfig {
                    warmup_ratio: 1.5,
                    ..TrainConfig::default()
                },
                "warmup_ratio",
            ),
        ];
        for (config, key) in wrong {
            let error = config.check().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("training setting `{key}` cannot hold")
            );
            assert!(error.mend().is_some());
        }
    }
}
