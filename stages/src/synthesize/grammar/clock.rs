//! Times of day as people say them.
//!
//! Promises: a wording means one time: a bare hour is the waking one (8 to 12 in the
//! morning, 1 to 7 after noon). Must not know: days.

use jiff::civil::Time;
use rand::Rng;
use rand::seq::IndexedRandom;

/// A time of day to the minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hour {
    pub(super) hour: i8,
    pub(super) minute: i8,
}

/// A range, in words and with a dash.
pub(super) struct Range {
    pub(super) words: String,
    pub(super) dashed: String,
}

const WORDS: [&str; 13] = [
    "twelve", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve",
];

impl Hour {
    pub(super) fn time(self) -> Time {
        Time::constant(self.hour, self.minute, 0, 0)
    }

    fn twelve(self) -> i8 {
        match self.hour % 12 {
            0 => 12,
            hour => hour,
        }
    }

    fn half(self) -> &'static str {
        if self.hour < 12 { "am" } else { "pm" }
    }

    /// Whether people say this hour without am or pm.
    fn plain(self) -> bool {
        matches!(self.hour, 8..=18)
    }
}

/// The hours and quarters of the waking day.
pub(super) fn hours() -> impl Iterator<Item = Hour> {
    (7..=20).flat_map(|hour| [0, 15, 30, 45].map(|minute| Hour { hour, minute }))
}

/// A likely time: mostly the full hour.
pub(super) fn some_hour(rng: &mut impl Rng) -> Hour {
    let hour = rng.random_range(7..=20);
    let minute = *[0, 0, 0, 0, 0, 30, 30, 30, 15, 45]
        .choose(rng)
        .expect("the list is not empty");
    Hour { hour, minute }
}

/// A wording for a time.
pub(super) fn say(at: Hour, rng: &mut impl Rng) -> String {
    let Hour { hour, minute } = at;
    let (twelve, half) = (at.twelve(), at.half());
    if hour == 12 && minute == 0 && rng.random_bool(0.5) {
        return "noon".to_owned();
    }
    match (rng.random_range(0..10), minute) {
        (0..3, 0) => format!("{twelve}{half}"),
        (3, 0) => format!("{twelve} {half}"),
        (4, 0) => format!("{twelve} {}.m.", &half[..1]),
        (5, 0) if at.plain() => format!("{twelve}"),
        (6, 0) if at.plain() => WORDS[twelve as usize].to_owned(),
        (0..3, _) => format!("{twelve}:{minute:02}{half}"),
        (3, _) => format!("{twelve}:{minute:02} {half}"),
        (4, _) => format!("{twelve}.{minute:02} {half}"),
        (5, 30) if at.plain() => format!("half past {}", WORDS[twelve as usize]),
        (5, 15) if at.plain() => format!("quarter past {}", WORDS[twelve as usize]),
        (5, 45) if at.plain() && hour != 12 => {
            format!("quarter to {}", WORDS[(twelve as usize % 12) + 1])
        }
        (6, _) if at.plain() => format!("{twelve}:{minute:02}"),
        _ => format!("{hour:02}:{minute:02}"),
    }
}

/// A wording for a length.
pub(super) fn length(minutes: i64, rng: &mut impl Rng) -> String {
    let words: &[&str] = match minutes {
        30 => &["half an hour", "30 minutes", "30 min"],
        45 => &["45 minutes", "45 min"],
        60 => &["an hour", "one hour", "1 hour", "60 minutes"],
        90 => &["an hour and a half", "90 minutes", "1.5 hours"],
        120 => &["two hours", "2 hours", "2h"],
        _ => &["three hours", "3 hours"],
    };
    (*words.choose(rng).expect("the list is not empty")).to_owned()
}

/// A wording for a range; am or pm at the end holds for both when they agree.
pub(super) fn range(from: Hour, till: Hour, rng: &mut impl Rng) -> Range {
    let twelve = |at: Hour| match at.minute {
        0 => format!("{}", at.twelve()),
        minute => format!("{}:{minute:02}", at.twelve()),
    };
    let (a, b) = if from.half() == till.half() && rng.random_bool(0.5) {
        (twelve(from), format!("{}{}", twelve(till), till.half()))
    } else if rng.random_bool(0.4) {
        (
            format!("{}{}", twelve(from), from.half()),
            format!("{}{}", twelve(till), till.half()),
        )
    } else {
        (
            format!("{:02}:{:02}", from.hour, from.minute),
            format!("{:02}:{:02}", till.hour, till.minute),
        )
    };
    let word = ["to", "to", "until", "till"]
        .choose(rng)
        .expect("the list is not empty");
    Range {
        words: format!("{a} {word} {b}"),
        dashed: format!("{a}-{b}"),
    }
}
