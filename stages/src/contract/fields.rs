//! Parameters as data: one table per stage serves the parser, the key, the help and the
//! JSON Schema.
//!
//! Promises: [`canonical`] reports every fault of a `with:` block at once, and leaves out
//! values equal to their default, so writing a default down never changes a key.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Fault;

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name under `with:`.
    pub name: &'static str,
    /// What it accepts.
    pub kind: FieldType,
    /// The default as JSON text; `None` means required, `Some("null")` optional.
    pub default: Option<&'static str>,
    /// One line for help and schema, with its unit.
    pub about: &'static str,
}

/// What a parameter accepts.
#[derive(Clone, Copy, Debug)]
pub enum FieldType {
    /// `true` or `false`.
    Bool,
    /// A whole number in a range, both ends included.
    Int(i64, i64),
    /// A number in a range, both ends included.
    Float(f64, f64),
    /// Text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of texts.
    TextList,
    /// A list of whole numbers in a range, both ends included; order and repeats do not count.
    IntList(i64, i64),
    /// A list of texts, or one word that means all of these.
    Names {
        /// The word.
        all: &'static str,
        /// What it means, in the order of the default.
        names: &'static [&'static str],
    },
    /// A map whose values the stage itself checks.
    Map,
    /// Anything the stage itself checks.
    Any,
}

/// Canonical parameters: validated, defaults left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params {
    given: BTreeMap<String, Value>,
    fields: &'static [Field],
}

impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Params {
    /// The values that differ from their default, by name: what enters the key.
    pub fn given(&self) -> &BTreeMap<String, Value> {
        &self.given
    }

    /// The value of `name`: the given one, else its default.
    ///
    /// # Panics
    /// When the stage has no such field: a bug.
    pub fn value(&self, name: &str) -> Value {
        if let Some(value) = self.given.get(name) {
            return value.clone();
        }
        let field = self
            .fields
            .iter()
            .find(|field| field.name == name)
            .unwrap_or_else(|| panic!("bug: no field `{name}`"));
        default_of(field).unwrap_or(Value::Null)
    }

    /// A text, or `None` when null.
    pub fn text(&self, name: &str) -> Option<String> {
        self.value(name).as_str().map(str::to_owned)
    }

    /// A whole number, or `None` when null.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.value(name).as_i64()
    }

    /// A number, or `None` when null.
    pub fn float(&self, name: &str) -> Option<f64> {
        self.value(name).as_f64()
    }

    /// A flag; null is `false`.
    pub fn flag(&self, name: &str) -> bool {
        self.value(name).as_bool().unwrap_or(false)
    }

    /// A list of whole numbers, or `None` when null.
    pub fn ints(&self, name: &str) -> Option<Vec<i64>> {
        let value = self.value(name);
        let items = value.as_array()?;
        Some(items.iter().filter_map(Value::as_i64).collect())
    }

    /// A map; null is empty.
    pub fn map(&self, name: &str) -> BTreeMap<String, Value> {
        let value = self.value(name);
        let entries = value.as_object().into_iter().flatten();
        entries.map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// A list of texts; null is empty.
    pub fn list(&self, name: &str) -> Vec<String> {
        let value = self.value(name);
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        items
            .iter()
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect()
    }
}

fn default_of(field: &Field) -> Option<Value> {
    let text = field.default?;
    let value = serde_json::from_str(text).expect("bug: a field's default is JSON");
    Some(widen(field, &value))
}

/// Checks `given` against `fields`. All faults at once; `field` paths are `with.NAME`.
pub fn canonical(
    fields: &'static [Field],
    given: &BTreeMap<String, Value>,
) -> Result<Params, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut kept = BTreeMap::new();
    for (name, value) in given {
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            faults.push(unknown(fields, name));
            continue;
        };
        let value = widen(field, value);
        if let Some(message) = refuse(field, &value) {
            faults.push(Fault::new(
                "config::wrong-type",
                &format!("with.{name}"),
                message,
                field.about,
            ));
        } else if default_of(field).as_ref() != Some(&value) {
            kept.insert(name.clone(), value);
        }
    }
    for field in fields {
        if field.default.is_none() && !given.contains_key(field.name) {
            faults.push(Fault::new(
                "config::missing-field",
                "with",
                format!("`{}` is required", field.name),
                format!("add `{}:` under `with`: {}", field.name, field.about),
            ));
        }
    }
    if faults.is_empty() {
        Ok(Params {
            given: kept,
            fields,
        })
    } else {
        Err(faults)
    }
}

/// Whole numbers given for a float become floats, and floats that are whole become
/// integers for an integer field: `2` and `2.0` mean the same.
fn widen(field: &Field, value: &Value) -> Value {
    match field.kind {
        FieldType::Float(..) => value.as_f64().map_or_else(|| value.clone(), Value::from),
        FieldType::Int(..) => match value.as_f64() {
            Some(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
                Value::from(number as i64)
            }
            _ => value.clone(),
        },
        FieldType::IntList(..) => sorted(value),
        FieldType::Names { all, names } if *value == json!(all) || *value == json!([all]) => {
            json!(names)
        }
        _ => value.clone(),
    }
}

/// Whole numbers sorted, each once; anything else as it is.
fn sorted(value: &Value) -> Value {
    let items = value.as_array().map_or(&[][..], Vec::as_slice);
    let whole: Option<BTreeSet<i64>> = items
        .iter()
        .map(|item| {
            let number = item
                .as_f64()
                .filter(|n| n.fract() == 0.0 && n.abs() < 9e15)?;
            Some(number as i64)
        })
        .collect();
    match whole {
        Some(whole) if value.is_array() => json!(whole),
        _ => value.clone(),
    }
}

fn refuse(field: &Field, value: &Value) -> Option<String> {
    if value.is_null() && field.default == Some("null") {
        return None;
    }
    let name = field.name;
    let expected = match field.kind {
        FieldType::Bool if !value.is_boolean() => "true or false".to_owned(),
        FieldType::Int(low, high) if !value.as_i64().is_some_and(|n| (low..=high).contains(&n)) => {
            format!("a whole number from {low} to {high}")
        }
        FieldType::Float(low, high)
            if !value.as_f64().is_some_and(|n| (low..=high).contains(&n)) =>
        {
            format!("a number from {low} to {high}")
        }
        FieldType::Text if !value.is_string() => "text".to_owned(),
        FieldType::Choice(words) if !value.as_str().is_some_and(|word| words.contains(&word)) => {
            format!("one of `{}`", words.join("`, `"))
        }
        FieldType::TextList
            if !value
                .as_array()
                .is_some_and(|items| items.iter().all(Value::is_string)) =>
        {
            "a list of texts".to_owned()
        }
        FieldType::Names { all, .. }
            if !value
                .as_array()
                .is_some_and(|items| items.iter().all(Value::is_string)) =>
        {
            format!("a list of texts, or `{all}`")
        }
        FieldType::IntList(low, high)
            if !value.as_array().is_some_and(|items| {
                let inside = |n: i64| (low..=high).contains(&n);
                items.iter().all(|item| item.as_i64().is_some_and(inside))
            }) =>
        {
            format!("a list of whole numbers from {low} to {high}")
        }
        FieldType::Map if !value.is_object() => "a map".to_owned(),
        _ => return None,
    };
    Some(format!("`{name}` takes {expected}, not `{value}`"))
}

fn unknown(fields: &[Field], name: &str) -> Fault {
    let nearest = fields
        .iter()
        .map(|field| (strsim::damerau_levenshtein(field.name, name), field.name))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    let known: Vec<_> = fields.iter().map(|field| field.name).collect();
    let mend = match nearest {
        Some((_, near)) => format!("did you mean `{near}`?"),
        None => format!("it takes: {}", known.join(", ")),
    };
    Fault::new(
        "config::unknown-key",
        &format!("with.{name}"),
        format!("unknown parameter `{name}`"),
        mend,
    )
}
