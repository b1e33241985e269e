//! Phrase templates: text with choices, phrases and slots.
//!
//! `(a|b|)` is a choice, `<name>` a phrase of the book, `{slot}`, `{slot.field}` and
//! `{slot|filter}` a value. A backslash takes the next sign as it is. Promises: a text
//! that does not parse is refused with the place. Must not know: what a slot holds.

use std::iter::Peekable;
use std::str::CharIndices;

/// A parsed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(pub(super) Vec<Part>);

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Plain text.
    Text(String),
    /// One of several.
    Choice(Vec<Template>),
    /// A phrase of the book.
    Phrase(String),
    /// A value.
    Slot(Slot),
}

/// `{name.field|filter}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) field: Option<String>,
    pub(super) filter: Option<Filter>,
}

/// What is done to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// First letter upper case: a sentence or a title.
    Title,
    /// First letter lower case.
    Lower,
}

type Signs<'a> = Peekable<CharIndices<'a>>;

impl Template {
    /// Parses a text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut signs = text.char_indices().peekable();
        let template = sequence(&mut signs, false)?;
        match signs.next() {
            None => Ok(template),
            Some((at, sign)) => Err(format!("`{sign}` at {} has no opening", at + 1)),
        }
    }

    /// The slots it names, outside and inside choices.
    pub(super) fn slots(&self) -> Vec<&Slot> {
        let mut slots = Vec::new();
        for part in &self.0 {
            match part {
                Part::Slot(slot) => slots.push(slot),
                Part::Choice(choices) => slots.extend(choices.iter().flat_map(Self::slots)),
                Part::Text(_) | Part::Phrase(_) => {}
            }
        }
        slots
    }

    /// The phrases it names.
    pub(super) fn phrases(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for part in &self.0 {
            match part {
                Part::Phrase(name) => names.push(name.as_str()),
                Part::Choice(choices) => names.extend(choices.iter().flat_map(Self::phrases)),
                Part::Text(_) | Part::Slot(_) => {}
            }
        }
        names
    }
}

fn sequence(signs: &mut Signs<'_>, inside: bool) -> Result<Template, String> {
    let mut parts = Vec::new();
    let mut text = String::new();
    while let Some(&(at, sign)) = signs.peek() {
        if matches!(sign, '|' | ')') && inside {
            break;
        }
        if sign == ')' {
            return Err(format!("`)` at {} has no opening", at + 1));
        }
        signs.next();
        let part = match sign {
            '\\' => {
                text.extend(signs.next().map(|(_, escaped)| escaped));
                continue;
            }
            '(' => choice(signs, at)?,
            '<' => Part::Phrase(until(signs, '>', at)?),
            '{' => slot(&until(signs, '}', at)?)?,
            other => {
                text.push(other);
                continue;
            }
        };
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        parts.push(part);
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(Template(parts))
}

fn choice(signs: &mut Signs<'_>, opened: usize) -> Result<Part, String> {
    let mut choices = vec![sequence(signs, true)?];
    loop {
        match signs.next() {
            Some((_, '|')) => choices.push(sequence(signs, true)?),
            Some((_, ')')) => return Ok(Part::Choice(choices)),
            _ => return Err(format!("`(` at {} is not closed", opened + 1)),
        }
    }
}

fn until(signs: &mut Signs<'_>, close: char, opened: usize) -> Result<String, String> {
    let mut text = String::new();
    for (_, sign) in signs.by_ref() {
        if sign == close {
            return Ok(text);
        }
        text.push(sign);
    }
    Err(format!("`{close}` is missing after {}", opened + 1))
}

fn slot(text: &str) -> Result<Part, String> {
    let (path, filter) = match text.split_once('|') {
        None => (text, None),
        Some((path, "title")) => (path, Some(Filter::Title)),
        Some((path, "lower")) => (path, Some(Filter::Lower)),
        Some((_, other)) => return Err(format!("unknown filter `{other}`; known: title, lower")),
    };
    let (name, field) = match path.split_once('.') {
        None => (path, None),
        Some((name, field)) => (name, Some(field.to_owned())),
    };
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return Err(format!("`{{{text}}}` is no slot"));
    }
    Ok(Part::Slot(Slot {
        name: name.to_owned(),
        field,
        filter,
    }))
}

impl Filter {
    /// Applies the filter.
    pub(super) fn apply(self, text: &str) -> String {
        if self == Self::Lower && (text.starts_with("I ") || text.starts_with("I'")) {
            return text.to_owned();
        }
        let mut letters = text.chars();
        let Some(first) = letters.next() else {
            return String::new();
        };
        let first: String = match self {
            Self::Title => first.to_uppercase().collect(),
            Self::Lower => first.to_lowercase().collect(),
        };
        first + letters.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_phrases_and_slots() {
        let template = Template::parse("(please |)<add> {todo.short|title} \\(now\\)").unwrap();
        let slots: Vec<_> = template.slots().iter().map(|s| s.name.clone()).collect();
        assert_eq!(slots, ["todo"]);
        assert_eq!(template.phrases(), ["add"]);
        assert_eq!(template.0.last(), Some(&Part::Text(" (now)".to_owned())));
    }

    #[test]
    fn what_does_not_parse_is_refused() {
        for bad in ["(a", "a)", "{x", "<x", "{x|shout}", "{}", "{a b}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
