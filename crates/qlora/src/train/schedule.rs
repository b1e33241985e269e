//! The learning rate of each step: a straight warm-up, then the chosen fall.
//!
//! Step `s` counts from zero. The warm-up takes `ceil(ratio * total)` steps, or as many as are asked for, and
//! gives step `s` the share `(s + 1) / warmup`, so the first step already learns (transformers gives it rate
//! zero). What falls, falls to `lr_end` of the peak.

use super::config::{Schedule, TrainConfig};

/// The rate of step `step` of `total`.
pub(super) fn rate(config: &TrainConfig, step: u64, total: u64) -> f64 {
    let share = (config.warmup_ratio * total as f64).ceil() as u64;
    let warmup = config.warmup_steps.unwrap_or(share);
    if step < warmup {
        return config.lr * (step + 1) as f64 / warmup as f64;
    }
    let done = (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
    let left = match config.schedule {
        Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        Schedule::Linear => 1.0 - done,
        Schedule::Constant => 1.0,
    };
    config.lr * (config.lr_end + (1.0 - config.lr_end) * left)
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

    #[test]
    fn a_warm_up_in_steps_wins_and_the_fall_stops_where_it_is_told() {
        let config = |schedule| TrainConfig {
            lr: 2.0,
            warmup_ratio: 0.9,
            warmup_steps: Some(1),
            lr_end: 0.25,
            schedule,
            ..TrainConfig::default()
        };
        let linear = config(Schedule::Linear);
        let rates: Vec<f64> = (0..5).map(|s| rate(&linear, s, 5)).collect();
        assert_eq!(rates, [2.0, 2.0, 1.625, 1.25, 0.875]);
        let cosine = config(Schedule::Cosine);
        // Halfway between the peak and a quarter of it.
        assert!((rate(&cosine, 3, 5) - 1.25).abs() < 1e-12);
        assert_eq!(rate(&config(Schedule::Constant), 4, 5), 2.0);
        let long = TrainConfig {
            warmup_steps: Some(20),
            ..linear
        };
        assert_eq!(rate(&long, 4, 5), 0.5, "a warm-up may outlast the run");
    }
}
