//! One point of a sweep: the parameters that a `matrix` binds, and the name that they give.
//!
//! Promises: equal values have one name however they are written (`1e-4` is `0.0001`); keys are
//! sorted; a name is safe as the name of a folder, and two values never share one.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

/// Above this a float's neighbours are further apart than one.
const WHOLE_BELOW: f64 = 9_007_199_254_740_992.0;

/// Parameters and their values; nothing where the stage is in no sweep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell(BTreeMap<String, Value>);

impl Cell {
    /// Whether nothing is bound.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Parameters and values, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// What `name` is worth here.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// With one more parameter. Whole floats become whole numbers, so that equal is equal.
    pub(crate) fn bind(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), normal(value));
    }

    /// Whether no parameter has two values.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        self.0
            .iter()
            .all(|(name, value)| other.0.get(name).is_none_or(|theirs| theirs == value))
    }

    /// Whether everything that `part` binds is bound here, to the same.
    pub(crate) fn holds(&self, part: &Self) -> bool {
        part.0
            .iter()
            .all(|(name, value)| self.0.get(name) == Some(value))
    }

    /// Both together.
    pub(crate) fn joined(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.0.extend(other.0.clone());
        both
    }

    /// `train[lr=1e-4,rank=8]`; the plain name where nothing is bound.
    pub fn name(&self, stage: &str) -> String {
        if self.is_empty() {
            return stage.to_owned();
        }
        let bound = self.0.iter();
        let bound: Vec<String> = bound
            .map(|(name, value)| format!("{name}={}", value_text(value)))
            .collect();
        format!("{stage}[{}]", bound.join(","))
    }
}

fn normal(value: Value) -> Value {
    match value.as_f64() {
        Some(float) if value.is_f64() && float.fract() == 0.0 && float.abs() < WHOLE_BELOW => {
            Value::from(float as i64)
        }
        _ => value,
    }
}

/// A value as it stands in a name: the shorter of `0.05` and `5e-2`, the first where they are
/// equally long; of text, what is no letter, digit, `.`, `_`, `+` or `-` as `%2F`.
pub(crate) fn value_text(value: &Value) -> String {
    match value {
        Value::Number(number) => number_text(number),
        Value::String(text) => encoded(text),
        other => other.to_string(),
    }
}

fn number_text(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => {
            let (plain, powers) = (format!("{float}"), format!("{float:e}"));
            if powers.len() < plain.len() {
                powers
            } else {
                plain
            }
        }
        _ => number.to_string(),
    }
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"._+-".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Stages as they are named on a command line: `train` is all its cells, `train[lr=1e-4]` those
/// with this value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector<'a> {
    /// The stage.
    pub stage: &'a str,
    bound: Vec<(&'a str, &'a str)>,
}

impl<'a> Selector<'a> {
    /// Reads a name; `None` where its brackets are not in order.
    pub fn read(text: &'a str) -> Option<Self> {
        let Some((stage, rest)) = text.split_once('[') else {
            let bound = Vec::new();
            return Some(Self { stage: text, bound });
        };
        let inside = rest.strip_suffix(']')?;
        let pair = |pair: &'a str| {
            let (name, value) = pair.split_once('=')?;
            Some((name.trim(), value.trim()))
        };
        let bound: Option<Vec<_>> = inside.split(',').map(pair).collect();
        Some(Self {
            stage: stage.trim(),
            bound: bound?,
        })
    }

    /// Whether a cell of the stage is meant.
    pub fn means(&self, cell: &Cell) -> bool {
        self.bound.iter().all(|(name, wanted)| {
            cell.get(name).is_some_and(|value| {
                let same_number = value.as_f64().is_some() && value.as_f64() == wanted.parse().ok();
                same_number || value_text(value) == *wanted || value.as_str() == Some(wanted)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn cell(pairs: &[(&str, Value)]) -> Cell {
        let mut cell = Cell::default();
        for (name, value) in pairs {
            cell.bind(name, value.clone());
        }
        cell
    }

    #[test]
    fn names_are_short_sorted_and_the_same_however_a_value_is_written() {
        let of = |value: Value| cell(&[("x", value)]).name("s");
        assert_eq!(of(json!(0.0001)), "s[x=1e-4]");
        assert_eq!(of(json!(0.05)), "s[x=0.05]");
        assert_eq!(of(json!(16.0)), "s[x=16]");
        assert_eq!(of(json!(16)), "s[x=16]");
        assert_eq!(of(json!(true)), "s[x=true]");
        assert_eq!(of(json!("org/model")), "s[x=org%2Fmodel]");
        let two = cell(&[("rank", json!(8)), ("lr", json!(2e-4))]);
        assert_eq!(two.name("train"), "train[lr=2e-4,rank=8]");
        assert_eq!(Cell::default().name("train"), "train");
    }

    #[test]
    fn a_selector_names_by_value() {
        let two = cell(&[("rank", json!(8)), ("lr", json!(1e-4)), ("b", json!("o/m"))]);
        for (text, wanted) in [
            ("train", true),
            ("train[lr=1e-4]", true),
            ("train[lr=0.0001, rank=8]", true),
            ("train[b=o/m]", true),
            ("train[b=o%2Fm]", true),
            ("train[lr=2e-4]", false),
            ("train[depth=1]", false),
        ] {
            let selector = Selector::read(text).unwrap();
            assert_eq!(
                (selector.stage, selector.means(&two)),
                ("train", wanted),
                "{text}"
            );
        }
        for bad in ["train[lr]", "train[lr=1", "train[]"] {
            assert_eq!(Selector::read(bad), None, "{bad}");
        }
    }

    proptest! {
        /// Every name is one folder, and a cell is found by its own name.
        #[test]
        fn any_text_gives_a_folder_name(text in ".{0,20}", number in -1e9_f64..1e9) {
            let cell = cell(&[("t", json!(text)), ("n", json!(number))]);
            let name = cell.name("s");
            prop_assert!(!name.contains(['/', '\0']), "{}", name);
            prop_assert!(Selector::read(&name).unwrap().means(&cell), "{}", name);
        }
    }
}
