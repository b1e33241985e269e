//! The learning rate of each step: a straight warm-up, then the chosen fall.
//!
//! Step `s` counts from zero. The warm-up takes `ceil(ratio * total)` steps and gives step `s` the share
//! `(s + 1) / warmup`, so the first step already learns (transformers gives it rate zero).

use super::config::{Schedule, TrainConfig};

/// The rate of step `step` of `total`.
pub(super) fn rate(config: &TrainConfig, step: u64, total: u64) -> f64 {
    let warmup = (config.warmup_ratio * total as f64).ceil() as u64;
    if step < warmup {
        return config.lr * (step + 1) as f64 / warmup as f64;
    }
    let done = (step - warmup) as f64 / (total - warmup).max(1) as f64;
    config.lr
        * match config.schedule {
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            Schedule::Linear => 1.0 - done,
            Schedule::Constant => 1.0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_then_fall() {
        let config = |schedule| TrainConfig {
            lr: 2.0,
            warmup_ratio: 0.2,
            schedule,
            ..TrainConfig::default()
        };
        let rates = |schedule| {
            (0..10)
                .map(|s| rate(&config(schedule), s, 10))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            rates(Schedule::Linear),
            [1.0, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25]
        );
        let cosine = rates(Schedule::Cosine);
        assert_eq!(cosine[..3], [1.0, 2.0, 2.0]);
        assert!((cosine[6] - 1.0).abs() < 1e-12 && cosine[9] > 0.0 && cosine[9] < 0.08);
        assert_eq!(rates(Schedule::Constant)[9], 2.0);
    }
}
