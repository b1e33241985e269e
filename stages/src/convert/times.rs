//! Dates and times in common spellings, brought to ISO 8601.
//!
//! Promises: only what means one thing is read: no `03/04/2023`, no year that was not
//! said, no `next week`. An invented date is worse than one row less. Must not know: rows.

use jiff::civil::{Date, DateTime, Time};

/// A date and a time from one text, or from two; a date alone is 09:00.
pub(super) fn moment(text: &str) -> Option<DateTime> {
    let text = text.trim();
    if let Some(date) = date(text) {
        return Some(date.at(9, 0, 0, 0));
    }
    let zoneless = text.trim_end_matches('Z');
    for shape in [
        "%Y-%m-%dT%H:%M:%S%.f",
        "%Y-%m-%dT%H:%M:%S",
        "%Y-%m-%dT%H:%M",
    ] {
        if let Ok(found) = DateTime::strptime(shape, zoneless) {
            return Some(found);
        }
    }
    for mark in [" at ", ", ", " ", "T"] {
        for (at, _) in text.match_indices(mark) {
            let (day, hour) = (&text[..at], &text[at + mark.len()..]);
            if let (Some(day), Some(hour)) = (date(day), time(hour)) {
                return Some(day.to_datetime(hour));
            }
        }
    }
    None
}

/// A date with its year.
pub(super) fn date(text: &str) -> Option<Date> {
    let plain = without_ordinals(text.trim());
    let shapes = [
        "%Y-%m-%d",
        "%Y/%m/%d",
        "%B %d, %Y",
        "%B %d %Y",
        "%d %B %Y",
        "%d %B, %Y",
        "%b %d, %Y",
        "%b %d %Y",
        "%d %b %Y",
        "%A, %B %d, %Y",
        "%A %d %B %Y",
    ];
    shapes
        .iter()
        .find_map(|shape| Date::strptime(shape, &plain).ok())
}

/// `1st`, `22nd` -> `1`, `22`; `of` goes too.
fn without_ordinals(text: &str) -> String {
    text.split(' ')
        .filter(|word| *word != "of")
        .map(|word| {
            let (word, comma) = match word.strip_suffix(',') {
                Some(word) => (word, ","),
                None => (word, ""),
            };
            let number = ["st", "nd", "rd", "th"]
                .iter()
                .find_map(|end| word.strip_suffix(end))
                .filter(|number| number.chars().all(|c| c.is_ascii_digit()) && !number.is_empty());
            format!("{}{comma}", number.unwrap_or(word))
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// A time of day.
pub(super) fn time(text: &str) -> Option<Time> {
    let plain = text
        .trim()
        .to_uppercase()
        .replace("A.M.", "AM")
        .replace("P.M.", "PM");
    let shapes = [
        "%H:%M:%S",
        "%H:%M",
        "%I:%M %p",
        "%I:%M%p",
        "%I %p",
        "%I%p",
        "%I:%M:%S %p",
    ];
    shapes
        .iter()
        .find_map(|shape| Time::strptime(shape, &plain).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_spellings() {
        let same = [
            "2023-06-15T14:30:00Z",
            "2023-06-15 14:30",
            "2023-06-15T14:30",
            "June 15, 2023 2:30 PM",
            "15th June 2023 at 2:30pm",
            "June 15th, 2023 at 14:30",
            "15 Jun 2023 14:30",
        ];
        for text in same {
            let found = moment(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(found.to_string(), "2023-06-15T14:30:00", "{text}");
        }
        assert_eq!(
            moment("2023-06-15").unwrap().to_string(),
            "2023-06-15T09:00:00"
        );
        assert_eq!(time("10 AM").unwrap().hour(), 10);
    }

    #[test]
    fn what_means_two_things_or_nothing_is_not_read() {
        for text in [
            "03/04/2023",
            "tomorrow",
            "June 15",
            "14:30",
            "next week",
            "2023-13-01",
            "",
        ] {
            assert_eq!(moment(text), None, "{text}");
        }
    }
}
