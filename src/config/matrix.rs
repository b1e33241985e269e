//! `matrix:` of a stage: the cells of its sweep.
//!
//! As GitHub Actions has it: every combination of the axes, less what `exclude` matches, and
//! what `include` adds. An axis is a list or a range, and binds a declared parameter.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::cell::Cell;
use super::expression::is_name;
use super::fault::Fault;
use super::node::{Entry, Kind, Node};
use super::template::Scope;
use super::{range, section, suggest};

/// A stage has at most so many cells.
pub(crate) const MOST_CELLS: usize = 1000;

/// The longest name of a cell: it names a folder and a log.
const LONGEST_NAME: usize = 200;

/// The cells of a stage; one that binds nothing where it is in no sweep of its own. `fixed` are
/// the parameters that `--set` gives: an axis of that name has this value alone.
pub(crate) fn cells(
    stage: &str,
    entry: Option<&Entry>,
    fixed: &BTreeMap<String, Value>,
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) -> Vec<Cell> {
    let none = vec![Cell::default()];
    let Some(entry) = entry else { return none };
    let before = faults.len();
    let mut axes: Vec<(&Entry, Vec<Value>)> = Vec::new();
    let entries = section::map(&entry.value, "matrix", faults);
    for axis in entries.iter().filter(|entry| !is_list(&entry.key)) {
        let known = scope.params.keys().map(String::as_str);
        if !is_name(&axis.key) || !scope.params.contains_key(&axis.key) {
            let message = format!("`matrix` binds `{}`, which is no parameter", axis.key);
            let mend = match suggest::nearest(&axis.key, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    "declare it under `params`: stages outside the sweep need its value".to_owned()
                }
            };
            faults.push(Fault::at(&axis.key_span, "config::undefined-param", message).mend(mend));
        }
        if let Some(values) = values(axis, scope, faults) {
            let values = match fixed.get(&axis.key) {
                Some(value) => vec![value.clone()],
                None => values,
            };
            axes.push((axis, values));
        }
    }
    let count = axes.iter().fold(1_usize, |count, (_, values)| {
        count.saturating_mul(values.len())
    });
    if count > MOST_CELLS {
        faults.push(too_many(stage, &entry.key_span));
    }
    if faults.len() > before {
        return none;
    }
    let mut cells = product(&axes);
    exclude(entries, &axes, fixed, &mut cells, scope, faults);
    include(entries, &axes, fixed, &mut cells, scope, faults);
    names_differ(stage, entry, &cells, faults);
    if cells.is_empty() {
        let fault = Fault::at(
            &entry.key_span,
            "config::no-cells",
            "the matrix has no cell",
        );
        faults.push(fault.mend("give an axis a value, or take `matrix` out"));
    }
    if faults.len() > before { none } else { cells }
}

/// More cells than anybody means.
pub(crate) fn too_many(stage: &str, at: &super::Span) -> Fault {
    let message = format!("`{stage}` has more than {MOST_CELLS} cells");
    Fault::at(at, "config::too-large", message).mend("take values out, or split the sweep")
}

fn is_list(key: &str) -> bool {
    matches!(key, "exclude" | "include")
}

fn values(axis: &Entry, scope: &Scope<'_>, faults: &mut Vec<Fault>) -> Option<Vec<Value>> {
    if let Kind::Map(entries) = &axis.value.kind {
        return range::values(&axis.value, entries, scope, faults);
    }
    let mend = "write `[1e-4, 2e-4]`, or `{ from: 1e-5, to: 1e-3, count: 5, scale: log }`";
    let wrong = |faults: &mut Vec<Fault>| {
        let takes = "a list of single values, or a range";
        faults.push(section::wrong(&axis.value, &axis.key, takes, mend));
    };
    match scope.value(&axis.value, faults)? {
        Value::Array(items) if !items.is_empty() && items.iter().all(is_single) => Some(items),
        _ => {
            wrong(faults);
            None
        }
    }
}

fn is_single(value: &Value) -> bool {
    !matches!(value, Value::Array(_) | Value::Object(_) | Value::Null)
}

/// Every combination, the last axis changing fastest.
fn product(axes: &[(&Entry, Vec<Value>)]) -> Vec<Cell> {
    let mut cells = vec![Cell::default()];
    for (axis, values) in axes {
        let with = |cell: &Cell| {
            let cell = cell.clone();
            let bound = values.iter().map(move |value| {
                let mut cell = cell.clone();
                cell.bind(&axis.key, value.clone());
                cell
            });
            bound.collect::<Vec<_>>()
        };
        cells = cells.iter().flat_map(with).collect();
    }
    cells
}

/// The maps under `exclude` or `include` with their places.
fn listed<'a>(
    entries: &'a [Entry],
    key: &str,
    axes: &[(&Entry, Vec<Value>)],
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) -> Vec<(&'a Node, Cell)> {
    let Some(entry) = section::get(entries, key) else {
        return Vec::new();
    };
    let Kind::List(items) = &entry.value.kind else {
        let mend = "write `- { lr: 1e-4, rank: 8 }` lines below it";
        faults.push(section::wrong(&entry.value, key, "a list of maps", mend));
        return Vec::new();
    };
    let names: Vec<&str> = axes.iter().map(|(axis, _)| axis.key.as_str()).collect();
    let mut found = Vec::new();
    for item in items {
        let bound = section::map(item, key, faults);
        section::only(bound, &names, "the matrix", faults);
        let mut cell = Cell::default();
        for entry in bound {
            match scope.value(&entry.value, faults) {
                Some(value) if is_single(&value) => cell.bind(&entry.key, value),
                Some(_) => faults.push(section::wrong(
                    &entry.value,
                    &entry.key,
                    "one value",
                    "write one line for each combination",
                )),
                None => {}
            }
        }
        found.push((item, cell));
    }
    found
}

fn exclude(
    entries: &[Entry],
    axes: &[(&Entry, Vec<Value>)],
    fixed: &BTreeMap<String, Value>,
    cells: &mut Vec<Cell>,
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) {
    for (item, out) in listed(entries, "exclude", axes, scope, faults) {
        let before = cells.len();
        if !out.is_empty() {
            cells.retain(|cell| !cell.holds(&out));
        }
        // Under `--set` there may be nothing left to exclude.
        if cells.len() == before && !axes.iter().any(|(axis, _)| fixed.contains_key(&axis.key)) {
            let fault = Fault::at(&item.span, "config::no-cells", "this excludes no cell");
            faults.push(fault.mend("write values as they stand in the axes, or take it out"));
        }
    }
}

fn include(
    entries: &[Entry],
    axes: &[(&Entry, Vec<Value>)],
    fixed: &BTreeMap<String, Value>,
    cells: &mut Vec<Cell>,
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) {
    for (item, more) in listed(entries, "include", axes, scope, faults) {
        let lacks = |(axis, _): &&(&Entry, Vec<Value>)| more.get(&axis.key).is_none();
        if let Some((axis, _)) = axes.iter().find(lacks) {
            let message = format!("the cell to include has no `{}`", axis.key);
            let fault = Fault::at(&item.span, "config::missing-field", message);
            faults.push(fault.mend("give a value for every axis of the matrix"));
        }
        let mut only = Cell::default();
        for (name, value) in fixed.iter().filter(|(name, _)| more.get(name).is_some()) {
            only.bind(name, value.clone());
        }
        if more.holds(&only) && !cells.contains(&more) {
            cells.push(more);
        }
    }
}

/// Two values that differ in type alone (`8` and `"8"`) would share a folder.
fn names_differ(stage: &str, entry: &Entry, cells: &[Cell], faults: &mut Vec<Fault>) {
    let mut seen = BTreeSet::new();
    for cell in cells {
        let name = cell.name(stage);
        let fault = if name.len() > LONGEST_NAME {
            let message = format!("the name `{name}` is too long for a folder");
            let fault = Fault::at(&entry.key_span, "config::bad-name", message);
            fault.mend("sweep over a short parameter that stands for the long one")
        } else if !seen.insert(name.clone()) {
            let message = format!("two cells are called `{name}`");
            let fault = Fault::at(&entry.key_span, "config::duplicate-cell", message);
            fault.mend("write every value once")
        } else {
            continue;
        };
        faults.push(fault);
        return;
    }
}
