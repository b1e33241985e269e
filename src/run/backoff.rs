//! How long to wait before a stage is tried again.
//!
//! Promises: twice as long after each try, up to a minute, less up to half of it. The share
//! that is taken off follows from the key and the try alone: stages that failed together come
//! back apart, and the same run waits as long each time it is looked at.

use std::time::Duration;

use cache::Digest;

/// The longest pause before the second try.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause at all.
const LONGEST: Duration = Duration::from_mins(1);

/// The pause after the try `attempt`, counted from 1.
pub(crate) fn pause(key: &Digest, attempt: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1).min(16));
    let whole = FIRST.saturating_mul(doubled).min(LONGEST);
    let drawn = blake3::hash(format!("back-off {key} {attempt}").as_bytes());
    let share = f64::from(drawn.as_bytes()[0]) / 255.0;
    whole.mul_f64(1.0 - share / 2.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cache::Digest;

    use super::pause;

    #[test]
    fn pauses_double_up_to_a_minute_and_lie_apart() {
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        for attempt in 1..=100 {
            let whole = Duration::from_secs(1 << (attempt - 1).min(6)).min(Duration::from_mins(1));
            let drawn = pause(&one, attempt);
            assert!(drawn <= whole && drawn >= whole / 2, "{attempt}: {drawn:?}");
            assert_eq!(drawn, pause(&one, attempt));
        }
        assert_ne!(pause(&one, 1), pause(&two, 1));
        assert_ne!(pause(&one, 7), pause(&one, 8));
    }
}
