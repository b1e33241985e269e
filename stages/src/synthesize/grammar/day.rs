//! Days as people say them, with the date that is meant.
//!
//! Promises: the arithmetic is exact, and a wording means one day: `next monday` is said
//! only when both readings of it agree. Must not know: times of day, templates.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, Weekday};
use rand::Rng;
use rand::seq::IndexedRandom;

/// A day as it is said.
#[derive(Clone, Debug)]
pub(super) struct Day {
    /// With what belongs before it: `on friday`, `tomorrow`.
    pub(super) text: String,
    /// Without it, for headlines: `friday`.
    pub(super) bare: String,
    pub(super) say: String,
    pub(super) date: Date,
}

fn weekday(date: Date) -> &'static str {
    match date.weekday() {
        Weekday::Monday => "Monday",
        Weekday::Tuesday => "Tuesday",
        Weekday::Wednesday => "Wednesday",
        Weekday::Thursday => "Thursday",
        Weekday::Friday => "Friday",
        Weekday::Saturday => "Saturday",
        Weekday::Sunday => "Sunday",
    }
}

fn ordinal(day: i8) -> String {
    let end = match (day % 10, day) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{day}{end}")
}

/// `12 March`: how the assistant names a date.
fn long(date: Date) -> String {
    date.strftime("%-d %B").to_string()
}

pub(super) fn some_day(now: DateTime, rng: &mut impl Rng) -> Day {
    match rng.random_range(0..100) {
        0..32 => tomorrow(now, rng),
        32..66 => on_weekday(now, rng),
        66..76 => in_days(now, rng),
        76..86 => day_of_month(now, rng),
        _ => calendar_day(now, rng),
    }
}

/// A day with a name or a date, not `in two days`.
pub(super) fn named_day(now: DateTime, rng: &mut impl Rng) -> Day {
    loop {
        let day = some_day(now, rng);
        if !day.text.starts_with("in ") && !day.text.contains("from") {
            return day;
        }
    }
}

fn tomorrow(now: DateTime, rng: &mut impl Rng) -> Day {
    let word = pick(
        rng,
        &["tomorrow", "tomorrow", "tomorrow", "tmrw", "tomorrow"],
    );
    let after = rng.random_bool(0.12);
    let ahead = if after { 2 } else { 1 };
    let date = now.date().saturating_add(ahead.days());
    if after {
        let say = weekday(date).to_owned();
        return Day::same("the day after tomorrow", say, date);
    }
    Day::same(word, "tomorrow".to_owned(), date)
}

pub(super) fn on_weekday(now: DateTime, rng: &mut impl Rng) -> Day {
    let ahead = rng.random_range(1..=6);
    let date = now.date().saturating_add(i64::from(ahead).days());
    let name = weekday(date).to_owned();
    let short = rng.random_bool(0.12);
    let word = if short {
        name[..if name.starts_with('T') { 4 } else { 3 }].to_owned()
    } else {
        name.clone()
    };
    let week = now.date().weekday().to_monday_zero_offset() + ahead as i8;
    // In the calendar week to come `next` and `this coming` mean the same day.
    if week >= 7 && !short && rng.random_bool(0.35) {
        return Day::same(&format!("next {name}"), name, date);
    }
    if week < 7 && !short && rng.random_bool(0.15) {
        return Day::same(&format!("this {name}"), name, date);
    }
    Day {
        text: format!("on {word}"),
        bare: word,
        say: name,
        date,
    }
}

fn in_days(now: DateTime, rng: &mut impl Rng) -> Day {
    let choices = [
        ("in two days", 2),
        ("in 3 days", 3),
        ("in three days", 3),
        ("in four days", 4),
        ("in 5 days", 5),
        ("in ten days", 10),
        ("in a week", 7),
        ("a week from today", 7),
        ("in two weeks", 14),
        ("two weeks from now", 14),
    ];
    let (text, ahead) = *choices.choose(rng).expect("the list is not empty");
    let date = now.date().saturating_add(i64::from(ahead).days());
    let say = if ahead < 7 {
        weekday(date).to_owned()
    } else {
        long(date)
    };
    Day::same(text, say, date)
}

/// `on the 12th`: the next one to come.
fn day_of_month(now: DateTime, rng: &mut impl Rng) -> Day {
    let date = now.date().saturating_add(rng.random_range(2..27).days());
    let day = ordinal(date.day());
    Day {
        text: format!("on the {day}"),
        bare: format!("the {day}"),
        say: long(date),
        date,
    }
}

fn calendar_day(now: DateTime, rng: &mut impl Rng) -> Day {
    let date = now.date().saturating_add(rng.random_range(3..80).days());
    let shape = pick(
        rng,
        &[
            "%-d %B",
            "%B %-d",
            "%-d %b",
            "%b %-d",
            "%A %-d %B",
            "%A, %B %-d",
        ],
    );
    let mut bare = date.strftime(shape).to_string();
    if !shape.contains("%b") && rng.random_bool(0.3) {
        let number = date.day().to_string();
        bare = bare.replace(&number, &ordinal(date.day()));
    }
    Day {
        text: format!("on {bare}"),
        bare,
        say: long(date),
        date,
    }
}

impl Day {
    pub(super) fn same(text: &str, say: String, date: Date) -> Self {
        Self {
            text: text.to_owned(),
            bare: text.to_owned(),
            say,
            date,
        }
    }
}

fn pick<'a>(rng: &mut impl Rng, words: &[&'a str]) -> &'a str {
    words.choose(rng).expect("the list is not empty")
}
