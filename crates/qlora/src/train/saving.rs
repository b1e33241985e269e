//! When a run writes a checkpoint: every so many steps if somebody said so, else by the clock.
//!
//! Promises: by the clock, checkpoints take at most a twentieth of a run's time, and a run that dies loses about a
//! minute, or twenty times what a checkpoint takes if that is longer. When one is written changes no result.

use std::time::{Duration, Instant};

/// Between two checkpoints, where none takes long.
const PAUSE: Duration = Duration::from_mins(1);
/// A checkpoint is worth so many times its own time.
const WORTH: u32 = 20;

pub(super) struct Saving {
    every: Option<u64>,
    /// The end of the last one, or the start of the run.
    last: Instant,
    /// How long the last one took.
    took: Duration,
}

impl Saving {
    pub(super) fn new(every: Option<u64>) -> Self {
        Self {
            every,
            last: Instant::now(),
            took: Duration::ZERO,
        }
    }

    /// After `step`; `end`: no step comes after it.
    pub(super) fn due(&self, step: u64, end: bool) -> bool {
        self.due_after(step, end, self.last.elapsed())
    }

    fn due_after(&self, step: u64, end: bool, since: Duration) -> bool {
        match self.every {
            Some(every) => end || step.is_multiple_of(every),
            None => since >= PAUSE.max(self.took * WORTH),
        }
    }

    /// A checkpoint that was begun then is written.
    pub(super) fn saved(&mut self, begun: Instant) {
        self.took = begun.elapsed();
        self.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_if_somebody_said_so_and_else_time_is() {
        let second = Duration::from_secs(1);
        let mut saving = Saving::new(Some(10));
        assert!(saving.due(20, false) && !saving.due(21, false) && saving.due(21, true));
        saving.every = None;
        for (took, since, due) in [(0, 59, false), (0, 60, true), (4, 79, false), (4, 80, true)] {
            saving.took = took * second;
            assert_eq!(
                saving.due_after(10, true, since * second),
                due,
                "{took} {since}"
            );
        }
    }
}
