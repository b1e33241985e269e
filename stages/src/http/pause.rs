//! How long to wait before asking again.
//!
//! Doubling with up to a quarter of jitter taken off, as the official clients of the
//! services do; `Retry-After` (seconds or an HTTP date) wins over it. A server that asks
//! for more than [`Patience::longest`] is not waited for.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::contract::Context;

use super::{HttpError, Reply};

/// The rules of waiting.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// How often a question is asked in all.
    pub(crate) attempts: u32,
    /// The first wait.
    pub(crate) first: Duration,
    /// The longest wait of our own choosing.
    pub(crate) most: Duration,
    /// The longest `Retry-After` that is obeyed; a longer one ends the attempt.
    pub(crate) longest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 5,
            first: Duration::from_millis(500),
            most: Duration::from_secs(30),
            longest: Duration::from_mins(10),
        }
    }
}

impl Patience {
    /// The wait after attempt number `attempt` (from 1).
    pub(crate) fn step(&self, attempt: u32) -> Duration {
        let doubled = self
            .first
            .saturating_mul(1 << attempt.saturating_sub(1).min(16));
        let full = doubled.min(self.most);
        // Many stages that fail together should not come back together.
        let mut hasher = DefaultHasher::new();
        (attempt, std::process::id(), std::thread::current().id()).hash(&mut hasher);
        full.mul_f64(1.0 - (hasher.finish() % 256) as f64 / 1024.0)
    }

    /// The wait after a busy answer; `None` when the server asks for too long a one.
    pub(super) fn after(&self, reply: &Reply, attempt: u32) -> Option<Duration> {
        match retry_after(reply.header("retry-after")) {
            Some(asked) if asked > self.longest => None,
            Some(asked) => Some(asked),
            None => Some(self.step(attempt)),
        }
    }

    /// Waits, unless the run is cancelled.
    pub(crate) fn wait(&self, ctx: &Context<'_>, wait: Duration) -> Result<(), HttpError> {
        const SLICE: Duration = Duration::from_millis(50);
        let mut left = wait;
        while !left.is_zero() {
            self.go_on(ctx)?;
            let now = left.min(SLICE);
            std::thread::sleep(now);
            left -= now;
        }
        self.go_on(ctx)
    }

    #[expect(
        clippy::unused_self,
        reason = "reads as a question to the one who waits"
    )]
    pub(super) fn go_on(&self, ctx: &Context<'_>) -> Result<(), HttpError> {
        ctx.go_on().map_err(|_| HttpError::Cancelled)
    }
}

/// Seconds, or an HTTP date (RFC 9110, 10.2.3).
fn retry_after(value: Option<&str>) -> Option<Duration> {
    let value = value?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    let seconds = at.as_second() - jiff::Timestamp::now().as_second();
    Some(Duration::from_secs(seconds.max(0) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most() {
        let patience = Patience::default();
        for (attempt, full) in [(1, 0.5), (2, 1.0), (3, 2.0), (7, 30.0), (40, 30.0)] {
            let wait = patience.step(attempt).as_secs_f64();
            assert!(wait <= full && wait >= full * 0.75, "{attempt}: {wait}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after(Some("7")), Some(Duration::from_secs(7)));
        let past = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(retry_after(Some(past)), Some(Duration::ZERO));
        let future = "Sat, 06 Nov 2094 08:49:37 GMT";
        assert!(retry_after(Some(future)).expect("a date") > Duration::from_hours(24));
        assert_eq!(retry_after(Some("soon")), None);
        assert_eq!(retry_after(None), None);
    }
}
