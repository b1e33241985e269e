//! Points in time as people say them, with the value that is meant.
//!
//! Promises: the arithmetic is exact (weekdays, month ends), and ambiguous wordings are
//! not made: `next monday` is said only when it can mean one day. Conventions are those
//! of `data/README.md`: a day alone is 09:00, afternoon 15:00, evening 18:00, tonight
//! 20:00, and a time of today is still to come. Must not know: templates, tools.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::{Span, ToSpan};
use rand::Rng;
use rand::seq::IndexedRandom;

use super::clock::{self, Hour};

/// A point or a span of time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Moment {
    /// As the user says it: `on friday at 3pm`.
    pub(super) text: String,
    /// The same where another preposition stands before it: `friday at 3pm`.
    pub(super) bare: String,
    /// As the assistant names the day: `Friday`.
    pub(super) day: String,
    /// The start.
    pub(super) start: DateTime,
    /// The end, when one was said.
    pub(super) end: Option<DateTime>,
    /// Whether a time of day was said.
    pub(super) timed: bool,
}

/// A day as it is said.
#[derive(Clone, Debug)]
struct Day {
    /// With what belongs before it: `on friday`, `tomorrow`.
    text: String,
    /// Without it, for headlines: `friday`.
    bare: String,
    say: String,
    date: Date,
}

/// The slot names that are moments.
pub(super) const KINDS: [&str; 8] = [
    "due", "at", "span", "date", "before", "clock", "day", "daytime",
];

/// The instant a `now` is drawn for: any minute of the waking day in the year of the data.
pub(super) fn some_now(rng: &mut impl Rng) -> DateTime {
    let first = jiff::civil::date(2026, 1, 5);
    let date = first.saturating_add(rng.random_range(0..350).days());
    date.at(rng.random_range(6..=21), rng.random_range(0..60), 0, 0)
}

/// Draws a moment of a kind; `None` when `now` leaves no room for it.
pub(super) fn draw(kind: &str, now: DateTime, rng: &mut impl Rng) -> Option<Moment> {
    match kind {
        "due" => due(now, rng),
        "at" => Some(at(now, rng)),
        "span" => Some(span(now, rng)),
        "date" => Some(date(now, rng)),
        "before" => Some(before(now, rng)),
        "clock" => today(now, rng),
        "day" => {
            let day = named_day(now, rng);
            Some(whole_day(&day, day.text.clone()))
        }
        "daytime" => Some(part_of_day(now, rng)),
        _ => None,
    }
}

impl Moment {
    /// A named view of it; `None` where it has none (`end` of a point).
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let time = |at: DateTime| at.strftime("%H:%M").to_string();
        let shifted = |by: Span| self.start.checked_add(by).ok().map(iso);
        match name {
            "text" => Some(self.text.clone()),
            "bare" => Some(self.bare.clone()),
            "iso" => Some(iso(self.start)),
            "end" => self.end.map(iso),
            "endtime" => self.end.map(time),
            "date" => Some(self.start.date().to_string()),
            "day" => Some(self.day.clone()),
            "time" => self.timed.then(|| time(self.start)),
            "say" => Some(if self.timed {
                format!("{} at {}", self.day, time(self.start))
            } else {
                self.day.clone()
            }),
            "for" => Some(for_day(&self.day)),
            "on" => Some(on_day(&self.day)),
            "plus1h" => shifted(1.hour()),
            "minus1h" => shifted(-1.hour()),
            "plus30m" => shifted(30.minutes()),
            "minus30m" => shifted(-30.minutes()),
            "plus15m" => shifted(15.minutes()),
            "plus2h" => shifted(2.hours()),
            "plus1d" => shifted(1.day()),
            "plus1w" => shifted(1.week()),
            "eve" => self
                .start
                .date()
                .yesterday()
                .ok()
                .map(|day| iso(day.at(9, 0, 0, 0))),
            "plus1h_time" => self.start.checked_add(1.hour()).ok().map(time),
            "minus1h_time" => self.start.checked_add(-1.hour()).ok().map(time),
            "plus30m_time" => self.start.checked_add(30.minutes()).ok().map(time),
            "minus30m_time" => self.start.checked_add(-30.minutes()).ok().map(time),
            "plus15m_time" => self.start.checked_add(15.minutes()).ok().map(time),
            "plus2h_time" => self.start.checked_add(2.hours()).ok().map(time),
            _ => None,
        }
    }

    /// The names `field` knows.
    pub(super) const FIELDS: [&str; 26] = [
        "text",
        "bare",
        "iso",
        "end",
        "endtime",
        "date",
        "day",
        "time",
        "say",
        "for",
        "on",
        "plus1h",
        "minus1h",
        "plus30m",
        "minus30m",
        "plus15m",
        "plus2h",
        "plus1d",
        "plus1w",
        "eve",
        "plus1h_time",
        "minus1h_time",
        "plus30m_time",
        "minus30m_time",
        "plus15m_time",
        "plus2h_time",
    ];
}

/// `2026-03-03T09:00:00Z`: the user's wall clock with a Z.
pub(super) fn iso(at: DateTime) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn for_day(day: &str) -> String {
    format!("for {day}")
}

/// `friday at 3pm` out of `on friday at 3pm`.
fn bare(text: &str) -> String {
    let plain = ["on ", "at ", "by "]
        .iter()
        .find_map(|word| text.strip_prefix(word));
    plain.unwrap_or(text).to_owned()
}

fn on_day(day: &str) -> String {
    let plain = day.starts_with(|c: char| c.is_lowercase());
    if plain {
        day.to_owned()
    } else {
        format!("on {day}")
    }
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

fn some_day(now: DateTime, rng: &mut impl Rng) -> Day {
    match rng.random_range(0..100) {
        0..32 => tomorrow(now, rng),
        32..66 => on_weekday(now, rng),
        66..76 => in_days(now, rng),
        76..86 => day_of_month(now, rng),
        _ => calendar_day(now, rng),
    }
}

/// A day with a name or a date, not `in two days`.
fn named_day(now: DateTime, rng: &mut impl Rng) -> Day {
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

fn on_weekday(now: DateTime, rng: &mut impl Rng) -> Day {
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
    fn same(text: &str, say: String, date: Date) -> Self {
        Self {
            text: text.to_owned(),
            bare: text.to_owned(),
            say,
            date,
        }
    }
}

fn whole_day(day: &Day, text: String) -> Moment {
    Moment {
        bare: bare(&text),
        text,
        day: day.say.clone(),
        start: day.date.at(9, 0, 0, 0),
        end: None,
        timed: false,
    }
}

fn timed(day: &Day, text: String, time: Time) -> Moment {
    Moment {
        bare: bare(&text),
        text,
        day: day.say.clone(),
        start: day.date.to_datetime(time),
        end: None,
        timed: true,
    }
}

/// When something is due: mostly a day, sometimes a time, sometimes soon.
fn due(now: DateTime, rng: &mut impl Rng) -> Option<Moment> {
    match rng.random_range(0..100) {
        0..44 => {
            let day = some_day(now, rng);
            let text = match rng.random_range(0..10) {
                0..7 => day.text.clone(),
                7..9 if !day.text.starts_with("in ") && !day.text.contains("from") => {
                    format!("by {}", day.bare)
                }
                _ => day.bare.clone(),
            };
            Some(whole_day(&day, text))
        }
        44..66 => Some(part_of_day(now, rng)),
        66..82 => Some(at(now, rng)),
        82..92 => today(now, rng),
        _ => soon(now, rng),
    }
}

/// `tomorrow morning`, `friday evening`, `tonight`.
fn part_of_day(now: DateTime, rng: &mut impl Rng) -> Moment {
    let hour = now.hour();
    if rng.random_bool(0.35) {
        let here = [
            ("tonight", 20, 18),
            ("this evening", 18, 16),
            ("this afternoon", 15, 13),
        ];
        let open: Vec<_> = here.iter().filter(|(_, _, last)| hour < *last).collect();
        if let Some((text, at, _)) = open.choose(rng) {
            let day = Day::same(text, (*text).to_owned(), now.date());
            let mut moment = timed(&day, (*text).to_owned(), Time::constant(*at, 0, 0, 0));
            moment.timed = false;
            return moment;
        }
    }
    let day = if rng.random_bool(0.6) {
        let date = now.date().saturating_add(1.day());
        Day::same("tomorrow", "tomorrow".to_owned(), date)
    } else {
        on_weekday(now, rng)
    };
    let (part, at) = *[
        ("morning", 9),
        ("morning", 9),
        ("afternoon", 15),
        ("evening", 18),
        ("at noon", 12),
    ]
    .choose(rng)
    .expect("the list is not empty");
    let mut moment = timed(
        &day,
        format!("{} {part}", day.text),
        Time::constant(at, 0, 0, 0),
    );
    moment.day = format!("{} {part}", day.say);
    moment.timed = false;
    moment
}

/// A day and a time of day.
fn at(now: DateTime, rng: &mut impl Rng) -> Moment {
    let day = named_day(now, rng);
    let hour = clock::some_hour(rng);
    let time = hour.time();
    let text = join(&day, &clock::say(hour, rng), rng);
    timed(&day, text, time)
}

fn join(day: &Day, time: &str, rng: &mut impl Rng) -> String {
    let near = day.text == "tomorrow" || day.text == "tmrw";
    match rng.random_range(0..10) {
        0..5 => format!("{} at {time}", day.text),
        5..7 => format!("{} at {time}", day.bare),
        7..9 if time.contains(|c: char| c.is_ascii_alphabetic() || c == ':') => {
            format!("{} {time}", day.bare)
        }
        7..9 => format!("{} at {time}", day.bare),
        _ if near => format!("at {time} {}", day.text),
        _ => format!("at {time} {}", day.text),
    }
}

/// A time of today that is still to come.
fn today(now: DateTime, rng: &mut impl Rng) -> Option<Moment> {
    let hours: Vec<Hour> = clock::hours()
        .filter(|hour| hour.hour > now.hour() && hour.hour <= 21)
        .collect();
    let hour = *hours.choose(rng)?;
    let time = clock::say(hour, rng);
    let text = match rng.random_range(0..4) {
        0 => format!("today at {time}"),
        1 => format!("at {time} today"),
        _ => format!("at {time}"),
    };
    let day = Day::same("today", "today".to_owned(), now.date());
    Some(timed(&day, text, hour.time()))
}

/// `in an hour`, `in 20 minutes`.
fn soon(now: DateTime, rng: &mut impl Rng) -> Option<Moment> {
    let choices = [
        ("in an hour", 60),
        ("in half an hour", 30),
        ("in 30 minutes", 30),
        ("in 20 minutes", 20),
        ("in 10 min", 10),
        ("in 45 minutes", 45),
        ("in two hours", 120),
        ("in 2 hours", 120),
        ("in 3 hours", 180),
        ("in 90 minutes", 90),
    ];
    let (text, minutes) = *choices.choose(rng)?;
    let start = now.checked_add(i64::from(minutes).minutes()).ok()?;
    (start.date() == now.date()).then(|| Moment {
        bare: text.to_owned(),
        text: text.to_owned(),
        day: "today".to_owned(),
        start,
        end: None,
        timed: true,
    })
}

/// A day, a start and an end.
fn span(now: DateTime, rng: &mut impl Rng) -> Moment {
    let day = named_day(now, rng);
    let hour = clock::some_hour(rng);
    let minutes = *[30i64, 30, 45, 60, 60, 60, 90, 120, 120, 180]
        .choose(rng)
        .expect("the list is not empty");
    let start = day.date.to_datetime(hour.time());
    let end = start.saturating_add(minutes.minutes());
    let till = Hour {
        hour: end.hour(),
        minute: end.minute(),
    };
    let range = clock::range(hour, till, rng);
    let bare = format!("{} {}", day.bare, range.dashed);
    let text = if rng.random_bool(0.45) {
        let length = clock::length(minutes, rng);
        let time = clock::say(hour, rng);
        match rng.random_range(0..3) {
            0 => format!("{} at {time} for {length}", day.text),
            1 => format!("for {length} {} at {time}", day.text),
            _ => format!("{} {time} for {length}", day.bare),
        }
    } else {
        match rng.random_range(0..3) {
            0 => format!("{} from {}", day.text, range.words),
            1 => format!("from {} {}", range.words, day.text),
            _ => format!("{} {}", day.bare, range.dashed),
        }
    };
    Moment {
        text,
        bare,
        day: day.say,
        start,
        end: Some(end),
        timed: true,
    }
}

/// Another day than today, for a forecast.
fn date(now: DateTime, rng: &mut impl Rng) -> Moment {
    let day = loop {
        let day = some_day(now, rng);
        if day.date != now.date() && !day.text.contains("week") {
            break day;
        }
    };
    let text = if rng.random_bool(0.75) {
        day.text.clone()
    } else {
        day.bare.clone()
    };
    whole_day(&day, text)
}

/// A limit: the first moment that no longer counts.
fn before(now: DateTime, rng: &mut impl Rng) -> Moment {
    let today = now.date();
    let midnight = |date: Date| date.at(0, 0, 0, 0);
    let monday =
        today.saturating_add(i64::from(7 - today.weekday().to_monday_zero_offset()).days());
    let month = today
        .last_of_month()
        .tomorrow()
        .expect("the year has a next day");
    let day = on_weekday(now, rng);
    let tomorrow = today.saturating_add(1.day());
    let (text, say, limit) = match rng.random_range(0..9) {
        0 | 1 => ("due today".to_owned(), "today".to_owned(), tomorrow),
        2 => (
            "due by tomorrow".to_owned(),
            "tomorrow".to_owned(),
            today.saturating_add(2.days()),
        ),
        3 | 4 => ("due this week".to_owned(), "this week".to_owned(), monday),
        5 => ("due this month".to_owned(), "this month".to_owned(), month),
        6 => (
            format!("due by {}", day.bare),
            format!("by {}", day.say),
            day.date.saturating_add(1.day()),
        ),
        _ => (
            format!("due before {}", day.bare),
            format!("before {}", day.say),
            day.date,
        ),
    };
    Moment {
        bare: text.clone(),
        text,
        day: say,
        start: midnight(limit),
        end: None,
        timed: false,
    }
}

fn pick<'a>(rng: &mut impl Rng, words: &[&'a str]) -> &'a str {
    words.choose(rng).expect("the list is not empty")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn all(kind: &str, now: DateTime, draws: usize) -> Vec<Moment> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        (0..draws)
            .filter_map(|_| draw(kind, now, &mut rng))
            .collect()
    }

    fn meant(kind: &str, now: DateTime, text: &str) -> String {
        let moments = all(kind, now, 60_000);
        let found = moments.iter().find(|moment| moment.text == text);
        iso(found
            .unwrap_or_else(|| panic!("`{text}` is never said"))
            .start)
    }

    /// Friday 27 February 2026, 10:00; 2026 is no leap year.
    fn friday() -> DateTime {
        jiff::civil::date(2026, 2, 27).at(10, 0, 0, 0)
    }

    #[test]
    fn days_are_counted_over_the_month_end() {
        assert_eq!(meant("due", friday(), "tomorrow"), "2026-02-28T09:00:00Z");
        assert_eq!(meant("due", friday(), "on Monday"), "2026-03-02T09:00:00Z");
        assert_eq!(
            meant("due", friday(), "by Thursday"),
            "2026-03-05T09:00:00Z"
        );
        assert_eq!(
            meant("due", friday(), "next Tuesday"),
            "2026-03-03T09:00:00Z"
        );
        assert_eq!(meant("due", friday(), "on the 1st"), "2026-03-01T09:00:00Z");
        assert_eq!(meant("due", friday(), "tonight"), "2026-02-27T20:00:00Z");
        assert_eq!(
            meant("due", friday(), "in 45 minutes"),
            "2026-02-27T10:45:00Z"
        );
        assert_eq!(
            meant("date", friday(), "on 3 March"),
            "2026-03-03T09:00:00Z"
        );
    }

    #[test]
    fn limits_are_the_first_moment_that_no_longer_counts() {
        assert_eq!(
            meant("before", friday(), "due today"),
            "2026-02-28T00:00:00Z"
        );
        assert_eq!(
            meant("before", friday(), "due this week"),
            "2026-03-02T00:00:00Z"
        );
        assert_eq!(
            meant("before", friday(), "due this month"),
            "2026-03-01T00:00:00Z"
        );
        assert_eq!(
            meant("before", friday(), "due before Monday"),
            "2026-03-02T00:00:00Z"
        );
        assert_eq!(
            meant("before", friday(), "due by Monday"),
            "2026-03-03T00:00:00Z"
        );
    }

    #[test]
    fn one_wording_never_means_two_times() {
        for kind in KINDS {
            for day in 0..14 {
                let now = friday().saturating_add(i64::from(day).days());
                let mut seen = std::collections::BTreeMap::new();
                for moment in all(kind, now, 4000) {
                    let value = (moment.start, moment.end);
                    let text = moment.text.to_lowercase();
                    let before = seen.insert(text.clone(), value);
                    assert!(before.is_none_or(|b| b == value), "`{text}` at {now}");
                }
            }
        }
    }

    #[test]
    fn everything_lies_ahead() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for _ in 0..4000 {
            let now = some_now(&mut rng);
            for kind in KINDS {
                if let Some(moment) = draw(kind, now, &mut rng) {
                    assert!(moment.start > now, "{kind}: `{}` at {now}", moment.text);
                    assert!(moment.end.is_none_or(|end| end > moment.start));
                }
            }
        }
    }
}
