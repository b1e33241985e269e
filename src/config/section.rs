//! Reading a map whose keys are known: unknown keys, wrong types, each with its place.

use serde_json::Value;

use super::Span;
use super::fault::Fault;
use super::node::{Entry, Kind, Node};
use super::suggest;

/// The entries of a map; nothing at all is an empty map.
pub(crate) fn map<'a>(node: &'a Node, name: &str, faults: &mut Vec<Fault>) -> &'a [Entry] {
    match &node.kind {
        Kind::Map(entries) => entries,
        Kind::Null => &[],
        _ => {
            faults.push(wrong(
                node,
                name,
                "a map",
                "write `name: value` lines below it",
            ));
            &[]
        }
    }
}

/// The entry called `key`.
pub(crate) fn get<'a>(entries: &'a [Entry], key: &str) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.key == key)
}

/// Reports every key that is not in `known`.
pub(crate) fn only(entries: &[Entry], known: &[&str], what: &str, faults: &mut Vec<Fault>) {
    for entry in entries {
        if !known.contains(&entry.key.as_str()) {
            faults.push(unknown(entry, known, what));
        }
    }
}

/// Whether an unknown key was probably meant to be `name`.
pub(crate) fn misspelt(entries: &[Entry], known: &[&str], name: &str) -> bool {
    let unknown = |entry: &&Entry| !known.contains(&entry.key.as_str());
    let near = |entry: &Entry| suggest::nearest(&entry.key, known.iter().copied());
    entries
        .iter()
        .filter(unknown)
        .any(|entry| near(entry) == Some(name))
}

/// A key that is not known here.
pub(crate) fn unknown(entry: &Entry, known: &[&str], what: &str) -> Fault {
    let message = format!("unknown key `{}` in {what}", entry.key);
    Fault::at(&entry.key_span, "config::unknown-key", message)
        .label("unknown")
        .mend(suggest::mend(&entry.key, known.iter().copied(), "keys"))
}

/// A value of the wrong type.
pub(crate) fn wrong(node: &Node, name: &str, takes: &str, mend: &str) -> Fault {
    let message = format!("`{name}` takes {takes}, not {}", node.described());
    Fault::at(&node.span, "config::wrong-type", message)
        .label(format!("expected {takes}"))
        .mend(mend)
}

/// An evaluated value of the wrong type.
pub(crate) fn wrong_value(span: &Span, name: &str, takes: &str, value: &Value) -> Fault {
    let message = format!("`{name}` takes {takes}, not `{value}`");
    Fault::at(span, "config::wrong-type", message).label(format!("expected {takes}"))
}

/// A plain text; a number or flag is not taken for one.
pub(crate) fn text<'a>(node: &'a Node, name: &str, faults: &mut Vec<Fault>) -> Option<&'a str> {
    let found = node.text();
    if found.is_none() {
        let mend = match node.kind {
            Kind::Number(_) | Kind::Bool(_) => "put it in quotes",
            _ => "write one text",
        };
        faults.push(wrong(node, name, "text", mend));
    }
    found
}

/// A list of plain texts; one text alone is a list of one.
pub(crate) fn texts<'a>(
    node: &'a Node,
    name: &str,
    faults: &mut Vec<Fault>,
) -> Vec<(&'a str, &'a Span)> {
    let nodes = match &node.kind {
        Kind::List(items) => items.as_slice(),
        Kind::Null => &[],
        _ => std::slice::from_ref(node),
    };
    nodes
        .iter()
        .filter_map(|item| text(item, name, faults).map(|found| (found, &item.span)))
        .collect()
}
