//! `--set train.lr=1e-4`: a field of a stage for one command, without touching the file.
//!
//! The value is put into the tree before anything is judged, so it meets the same checks as one
//! that is written. Its place is one behind the end of the text; faults there are told as the
//! option's.

use super::fault::Fault;
use super::node::{Entry, Kind, Node};
use super::stage::{BUILTIN, COMMON, SHELL};
use super::{Span, parse, section, suggest};

/// Puts every `stage.field=value` among `sets` into the tree of a text of `length` bytes.
pub(crate) fn apply(tree: &mut Node, sets: &[String], length: usize, faults: &mut Vec<Fault>) {
    for (at, set) in sets.iter().enumerate() {
        let Some((name, text)) = set.split_once('=') else {
            continue;
        };
        if !name.contains('.') {
            continue;
        }
        let span = length + 1 + at..length + 1 + at;
        if let Err(fault) = put(tree, name.trim(), text, &span) {
            faults.push(*fault);
        }
    }
}

/// Faults in values of `--set` say so, and stand in no file.
pub(crate) fn tell(sets: &[String], length: usize, faults: &mut [Fault]) {
    for fault in faults {
        let Some(span) = fault.span.clone().filter(|span| span.start > length) else {
            continue;
        };
        if let Some(set) = sets.get(span.start - length - 1) {
            fault.message = format!("`--set {set}`: {}", fault.message);
        }
        fault.span = None;
        fault.label.clear();
        fault.also.retain(|(span, _)| span.end <= length);
    }
}

fn put(tree: &mut Node, name: &str, text: &str, span: &Span) -> Result<(), Box<Fault>> {
    let (_, stage, steps) = field(tree, name).map_err(|known| {
        let message = format!("`{name}` names no field of a stage");
        let known = known.iter().map(String::as_str);
        let stage = name.split('.').next().unwrap_or_default();
        Box::new(
            Fault::at(span, "config::set", message).mend(suggest::mend(stage, known, "stages")),
        )
    })?;
    let value = if steps[0] == "env" {
        // As it is written: `1e-4` is text there.
        Ok(Kind::Text(text.to_owned()))
    } else {
        read(text)
    };
    let value = value.map_err(|why| {
        let mend = "write the value as in the file, `--set train.lr=1e-4`";
        Box::new(Fault::at(span, "config::set", why).mend(mend))
    })?;
    let mut node = stage;
    for step in &steps {
        node = below(node, step, span);
    }
    node.kind = value;
    settle(node, span);
    Ok(())
}

fn read(text: &str) -> Result<Kind, String> {
    let (node, bad) = parse::parse(text);
    match (node, bad.into_iter().next()) {
        (Some(node), None) => Ok(node.kind),
        (_, bad) => Err(bad.map_or_else(|| "no value".to_owned(), |fault| fault.message)),
    }
}

/// The stage that `name` begins with, its node, and the steps to the field in it, or the names of all
/// stages. What is no field of every stage is one of its parameters: `train.lr` is
/// `train.with.lr`.
pub(crate) fn field<'a>(
    tree: &'a mut Node,
    name: &str,
) -> Result<(String, &'a mut Node, Vec<String>), Vec<String>> {
    let Kind::Map(entries) = &mut tree.kind else {
        return Err(Vec::new());
    };
    let stages = entries.iter_mut().find(|entry| entry.key == "stages");
    let Some(Kind::Map(stages)) = stages.map(|entry| &mut entry.value.kind) else {
        return Err(Vec::new());
    };
    let names = || stages.iter().map(|entry| entry.key.clone()).collect();
    let prefix = |entry: &&mut Entry| {
        let rest = name.strip_prefix(entry.key.as_str());
        rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with('.'))
    };
    let known: Vec<String> = names();
    let found = stages
        .iter_mut()
        .filter(prefix)
        .max_by_key(|entry| entry.key.len());
    let Some(entry) = found else {
        return Err(known);
    };
    let rest = &name[entry.key.len() + 1..];
    let mut steps: Vec<String> = rest.split('.').map(str::to_owned).collect();
    let own = [&COMMON[..], &BUILTIN, &SHELL];
    if !own.concat().contains(&steps[0].as_str()) {
        steps.insert(0, "with".to_owned());
    }
    Ok((entry.key.clone(), &mut entry.value, steps))
}

/// The value called `key` in a map, which is made where it is not there.
fn below<'a>(node: &'a mut Node, key: &str, span: &Span) -> &'a mut Node {
    if !matches!(node.kind, Kind::Map(_)) {
        node.kind = Kind::Map(Vec::new());
    }
    let Kind::Map(entries) = &mut node.kind else {
        unreachable!("made above")
    };
    if section::get(entries, key).is_none() {
        entries.push(Entry {
            key: key.to_owned(),
            key_span: span.clone(),
            value: Node {
                span: span.clone(),
                kind: Kind::Null,
            },
        });
    }
    let found = entries.iter_mut().find(|entry| entry.key == key);
    &mut found.expect("it was put there").value
}

/// Gives everything below a value its place.
fn settle(node: &mut Node, span: &Span) {
    node.span = span.clone();
    match &mut node.kind {
        Kind::List(items) => items.iter_mut().for_each(|item| settle(item, span)),
        Kind::Map(entries) => entries.iter_mut().for_each(|entry| {
            entry.key_span = span.clone();
            settle(&mut entry.value, span);
        }),
        _ => {}
    }
}
