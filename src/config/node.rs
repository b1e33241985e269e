//! The raw tree of a YAML text: values that know their place, nothing judged yet.
//!
//! Promises: a key stands in a map once (a second one is a fault and is dropped), and
//! every node has the byte range that a person would point at.

use serde_json::{Map, Number, Value};

use super::Span;

/// One value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Byte range of the value; of a map or list, from its first to its last child.
    pub(crate) span: Span,
    /// The value.
    pub(crate) kind: Kind,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`, nothing else (`yes` is text).
    Bool(bool),
    /// A finite number.
    Number(Number),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map in file order.
    Map(Vec<Entry>),
}

/// One key and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) key_span: Span,
    /// The value.
    pub(crate) value: Node,
}

impl Node {
    /// The entries, if it is a map.
    pub(crate) fn entries(&self) -> Option<&[Entry]> {
        match &self.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is nothing.
    pub(crate) fn is_null(&self) -> bool {
        self.kind == Kind::Null
    }

    /// `a map`, `the number 3`: for "expected text, found ..".
    pub(crate) fn described(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Bool(flag) => format!("`{flag}`"),
            Kind::Number(number) => format!("the number `{number}`"),
            Kind::Text(text) if text.chars().count() <= 40 => format!("the text `{text}`"),
            Kind::Text(_) => "text".to_owned(),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
        }
    }

    /// The value as it stands, `${..}` untouched.
    pub(crate) fn value(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(flag) => Value::Bool(*flag),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Node::value).collect()),
            Kind::Map(entries) => {
                let pairs = entries.iter();
                let map: Map<_, _> = pairs.map(|e| (e.key.clone(), e.value.value())).collect();
                Value::Object(map)
            }
        }
    }

    /// Every text below this node, itself included.
    pub(crate) fn each_text<'a>(&'a self, visit: &mut impl FnMut(&'a Span, &'a str)) {
        match &self.kind {
            Kind::Text(text) => visit(&self.span, text),
            Kind::List(items) => items.iter().for_each(|item| item.each_text(visit)),
            Kind::Map(entries) => entries.iter().for_each(|e| e.value.each_text(visit)),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) => {}
        }
    }
}
