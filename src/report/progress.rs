//! How far a running stage is, from what it says: one line with place, figures, rate and
//! time left.
//!
//! Promises: the rate is that of the last [`WINDOW`], so a slow start (loading, compiling)
//! does not spoil the guess; a new kind of work starts a new count.

use std::collections::VecDeque;

use stages::StageEvent;

use super::units;

/// Milliseconds over which the rate is taken.
const WINDOW: u64 = 60_000;

/// The most points remembered within the window.
const POINTS: usize = 256;

/// Figures shown beside the place.
const FIGURES: usize = 3;

/// What a running stage has said so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    what: String,
    unit: String,
    done: u64,
    total: Option<u64>,
    points: VecDeque<(u64, u64)>,
    figures: Vec<(String, f64)>,
    kinds: usize,
    /// The last line it wrote, for a stage that tells no progress.
    wrote: String,
}

impl Progress {
    /// Hears one event; `at` in milliseconds of any steady clock. True if there is
    /// something new to show.
    pub(crate) fn hear(&mut self, at: u64, event: &StageEvent) -> bool {
        match event {
            StageEvent::Progress {
                done,
                total,
                unit,
                what,
            } => {
                if *what != self.what || *unit != self.unit || *done < self.done {
                    self.kinds += usize::from(*what != self.what);
                    self.points.clear();
                    what.clone_into(&mut self.what);
                    unit.clone_into(&mut self.unit);
                }
                self.done = *done;
                self.total = *total;
                self.remember(at);
                true
            }
            StageEvent::Metric {
                name,
                step: Some(_),
                value,
            } => {
                let name = name
                    .strip_prefix("train.")
                    .unwrap_or(name)
                    .replace('.', " ");
                match self.figures.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, figure)) => *figure = *value,
                    None => self.figures.push((name, *value)),
                }
                true
            }
            StageEvent::Log { text } => {
                text.trim().clone_into(&mut self.wrote);
                true
            }
            _ => false,
        }
    }

    /// The last line it wrote.
    pub(crate) fn wrote(&self) -> &str {
        &self.wrote
    }

    fn remember(&mut self, at: u64) {
        self.points.push_back((at, self.done));
        while self.points.len() > POINTS
            || (self.points.len() > 2
                && self
                    .points
                    .front()
                    .is_some_and(|(then, _)| at - then > WINDOW))
        {
            self.points.pop_front();
        }
    }

    /// Units a second, once there is enough to tell.
    fn rate(&self) -> Option<f64> {
        let (&(from, first), &(to, last)) = (self.points.front()?, self.points.back()?);
        let seconds = to.saturating_sub(from) as f64 / 1000.0;
        (last > first && seconds >= 0.5).then(|| (last - first) as f64 / seconds)
    }

    /// The share done, for a bar.
    pub(crate) fn share(&self) -> Option<f64> {
        let total = self.total.filter(|total| *total > 0)?;
        Some((self.done as f64 / total as f64).min(1.0))
    }

    /// `step 120/400  loss 0.84  3.1 s/step  about 14m left`; empty when nothing was said.
    pub(crate) fn line(&self) -> String {
        let mut parts = Vec::new();
        if !self.unit.is_empty() {
            if self.kinds > 1 && !self.what.is_empty() {
                parts.push(self.what.clone());
            }
            parts.push(self.place());
        }
        for (name, value) in self.figures.iter().take(FIGURES) {
            parts.push(format!("{name} {}", units::figure(*value)));
        }
        if let Some(rate) = self.rate() {
            parts.push(self.pace(rate));
            if let Some(total) = self.total.filter(|total| *total > self.done) {
                parts.push(units::left((total - self.done) as f64 / rate));
            }
        }
        parts.join("  ")
    }

    fn one(&self) -> &str {
        self.unit.strip_suffix('s').unwrap_or(&self.unit)
    }

    fn place(&self) -> String {
        match (self.unit.as_str(), self.total) {
            ("bytes", Some(total)) => {
                format!("{} of {}", units::bytes(self.done), units::bytes(total))
            }
            ("bytes", None) => units::bytes(self.done),
            (_, Some(total)) => format!("{} {}/{total}", self.one(), self.done),
            (_, None) => format!("{} {}", self.one(), self.done),
        }
    }

    fn pace(&self, rate: f64) -> String {
        if self.unit == "bytes" {
            format!("{}/s", units::bytes(rate as u64))
        } else if rate >= 1.0 {
            format!("{} {}/s", units::figure(rate), self.unit)
        } else {
            format!("{:.1} s/{}", 1.0 / rate, self.one())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Progress;
    use stages::StageEvent;

    fn step(done: u64, total: u64) -> StageEvent {
        StageEvent::Progress {
            done,
            total: Some(total),
            unit: "steps".into(),
            what: "training".into(),
        }
    }

    #[test]
    fn a_training_says_place_loss_pace_and_time_left() {
        let mut progress = Progress::default();
        progress.hear(0, &step(110, 400));
        progress.hear(31_000, &step(120, 400));
        progress.hear(
            31_000,
            &StageEvent::Metric {
                name: "train.loss".into(),
                step: Some(120),
                value: 0.8400001,
            },
        );
        assert_eq!(
            progress.line(),
            "step 120/400  loss 0.84  3.1 s/step  about 15m left"
        );
        assert_eq!(progress.share(), Some(0.3));
    }

    #[test]
    fn the_rate_forgets_a_slow_start() {
        let mut progress = Progress::default();
        progress.hear(0, &step(0, 1000));
        for second in 100..=200 {
            progress.hear(second * 1000, &step((second - 99) * 5, 1000));
        }
        assert!(progress.line().contains("5 steps/s"), "{}", progress.line());
    }

    #[test]
    fn a_download_speaks_of_bytes() {
        let mut progress = Progress::default();
        for (at, done) in [(0, 0), (2000, 24_000_000)] {
            progress.hear(
                at,
                &StageEvent::Progress {
                    done,
                    total: Some(98_362_432),
                    unit: "bytes".into(),
                    what: "downloading".into(),
                },
            );
        }
        assert_eq!(
            progress.line(),
            "24.0 MB of 98.4 MB  12.0 MB/s  a few seconds left"
        );
    }
}
