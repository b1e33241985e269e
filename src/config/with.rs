//! `with:`: the parameters of a built-in stage, checked against its table, every fault
//! at its line.

use std::collections::BTreeMap;

use serde_json::Value;
use stages::contract::{canonical, refusals};
use stages::{Field, FieldType, Stage};

use super::fault::Fault;
use super::node::{Entry, Kind, Node};
use super::pipeline::{Action, Span};
use super::section;
use super::template::Scope;

/// A built-in stage with checked parameters. `block` is where a missing parameter is
/// reported; `None` where the block itself is misspelt and nothing is missing.
pub(crate) fn builtin(
    stage: &'static dyn Stage,
    with: Option<&Entry>,
    block: Option<&Span>,
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) -> Option<Action> {
    let entries = with.map_or(&[][..], |entry| section::map(&entry.value, "with", faults));
    let mut given: BTreeMap<String, Value> = BTreeMap::new();
    let mut whole = true;
    for entry in entries {
        match scope.value(&entry.value, faults) {
            Some(value) => drop(given.insert(entry.key.clone(), value)),
            None => whole = false,
        }
    }
    let (refused, given) = refusals(stage.refused(), &given);
    let whole = whole && refused.is_empty();
    let placed = refused.iter().filter_map(|fault| {
        let span = &written(fault, entries)?.key_span;
        let fault = Fault::at(span, &fault.code, &fault.message).mend(&fault.mend);
        Some(fault.label("not here"))
    });
    faults.extend(placed);
    match canonical(stage.fields(), &given) {
        Ok(params) if whole => Some(Action::Builtin { stage, params }),
        Ok(_) => None,
        Err(found) => {
            let placed = found
                .iter()
                .filter_map(|fault| match written(fault, entries) {
                    Some(entry) => Some(misfit(fault, stage, entry)),
                    None => missing(fault, stage, entries, block?),
                });
            faults.extend(placed);
            None
        }
    }
}

/// The entry that a fault of the parameter table is about.
fn written<'a>(fault: &stages::Fault, entries: &'a [Entry]) -> Option<&'a Entry> {
    section::get(entries, fault.field.strip_prefix("with.")?)
}

/// An unknown name or a value that does not fit.
fn misfit(fault: &stages::Fault, stage: &'static dyn Stage, entry: &Entry) -> Fault {
    if fault.code == "config::unknown-key" {
        return Fault::at(&entry.key_span, &fault.code, &fault.message)
            .label("unknown")
            .mend(&fault.mend);
    }
    let field = stage.fields().iter().find(|field| field.name == entry.key);
    let mend = field.and_then(|field| usual_slip(field, &entry.value));
    Fault::at(&entry.value.span, &fault.code, &fault.message)
        .label("does not fit")
        .mend(mend.unwrap_or_else(|| fault.mend.clone()))
}

/// Slips that YAML makes easy.
fn usual_slip(field: &Field, node: &Node) -> Option<String> {
    match (field.kind, &node.kind) {
        (FieldType::Text | FieldType::Choice(_), Kind::Number(_) | Kind::Bool(_)) => {
            Some("put it in quotes: unquoted it is no text".to_owned())
        }
        (FieldType::Bool, Kind::Text(_)) => Some("write `true` or `false`, unquoted".to_owned()),
        (FieldType::Int(..) | FieldType::Float(..), Kind::Text(text))
            if text.trim().parse::<f64>().is_ok() =>
        {
            Some("write it without quotes".to_owned())
        }
        (FieldType::TextList | FieldType::Names { .. }, Kind::Text(text)) => {
            Some(format!("write `[{text}]`"))
        }
        _ => None,
    }
}

/// A parameter that is not given. Nothing where it is given and only its value is at
/// fault, or where a misspelt name was meant to be it: both are reported already.
fn missing(
    fault: &stages::Fault,
    stage: &'static dyn Stage,
    entries: &[Entry],
    block: &Span,
) -> Option<Fault> {
    let names: Vec<&str> = stage.fields().iter().map(|field| field.name).collect();
    let required = names
        .iter()
        .find(|name| fault.message == format!("`{name}` is required"));
    let told = required.is_some_and(|name| {
        section::get(entries, name).is_some() || section::misspelt(entries, &names, name)
    });
    let message = format!("`{}`: {}", stage.kind(), fault.message);
    (!told).then(|| Fault::at(block, &fault.code, message).mend(&fault.mend))
}
