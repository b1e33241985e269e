//! What `inputs:` names: stages' products and local files. Edges are written nowhere else.
//!
//! A value with a `/`, or one that begins with `.`, is a path; `stage:product` is one
//! product; a bare word is a stage's first product.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use stages::{Port, Stage};

use super::action;
use super::fault::Fault;
use super::node::{Entry, Kind, Node};
use super::pipeline::{InputSpec, Reference, Span};
use super::resources::Pools;
use super::template::Scope;
use super::{section, suggest};

/// What a reference may name.
pub(crate) struct Surroundings<'a> {
    /// Folder of the pipeline file.
    pub(crate) root: &'a Path,
    /// Stages by name.
    pub(crate) known: BTreeMap<&'a str, Known<'a>>,
    /// The chosen profile.
    pub(crate) profile: &'a str,
    /// Pools that the file declares.
    pub(crate) pools: &'a Pools,
    /// Paths that were seen to exist: many stages name the same ones.
    pub(crate) present: RefCell<BTreeSet<PathBuf>>,
}

/// A stage as others see it.
pub(crate) struct Known<'a> {
    /// Where its name stands.
    pub(crate) span: &'a Span,
    /// Its products, the default first; `None` while a fault hides them.
    pub(crate) products: Option<Vec<&'a str>>,
    /// Whether it is part of the chosen profile.
    pub(crate) here: bool,
}

/// Reads `inputs:`; `stage` is the built-in one whose ports it must fit, `block` where a
/// missing input is reported (`None` where the block itself is misspelt).
pub(crate) fn inputs(
    entry: Option<&Entry>,
    stage: Option<&'static dyn Stage>,
    block: Option<&Span>,
    around: &Surroundings<'_>,
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) -> Vec<InputSpec> {
    let entries = entry.map_or(&[][..], |entry| {
        section::map(&entry.value, "inputs", faults)
    });
    let mut found = Vec::new();
    for entry in entries {
        let port = stage.map(|stage| port(entry, stage, faults));
        if stage.is_none() {
            action::port_name(entry, faults);
        }
        let many = port.is_none_or(|port| port.is_none_or(|port| port.many));
        let people = stage.is_some_and(|stage| stage.decisions() == Some(&*entry.key));
        let absent = if people { Absent::Fine } else { Absent::Fault };
        if let Some(input) = input(entry, many, absent, around, scope, faults) {
            found.push(input);
        }
    }
    if let (Some(stage), Some(block)) = (stage, block) {
        missing_ports(stage, entries, block, faults);
    }
    found
}

/// Required inputs that are not given, nor misspelt.
fn missing_ports(
    stage: &'static dyn Stage,
    entries: &[Entry],
    block: &Span,
    faults: &mut Vec<Fault>,
) {
    let names: Vec<&str> = stage.inputs().iter().map(|port| port.name).collect();
    for port in stage.inputs().iter().filter(|port| port.required) {
        let given = section::get(entries, port.name).is_some_and(|entry| !entry.value.is_null());
        if !given && !section::misspelt(entries, &names, port.name) {
            let message = format!("input `{}` is missing", port.name);
            let mend = format!("add `{}:` under `inputs`: {}", port.name, port.about);
            faults.push(Fault::at(block, "config::missing-port", message).mend(mend));
        }
    }
}

fn port(
    entry: &Entry,
    stage: &'static dyn Stage,
    faults: &mut Vec<Fault>,
) -> Option<&'static Port> {
    let ports = stage.inputs();
    let found = ports.iter().find(|port| port.name == entry.key);
    if found.is_none() {
        let known = ports.iter().map(|port| port.name);
        let message = format!("`{}` has no input `{}`", stage.kind(), entry.key);
        faults.push(
            Fault::at(&entry.key_span, "config::unknown-port", message)
                .label("unknown")
                .mend(suggest::mend(&entry.key, known, "inputs")),
        );
    }
    found
}

/// One input; nothing at all (`null`, perhaps by a parameter) is an input left out.
fn input(
    entry: &Entry,
    many: bool,
    absent: Absent,
    around: &Surroundings<'_>,
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) -> Option<InputSpec> {
    let node = &entry.value;
    let written: Vec<(Value, &Span)> = match &node.kind {
        Kind::List(items) => items
            .iter()
            .filter_map(|item| scope.value(item, faults).map(|value| (value, &item.span)))
            .flat_map(|(value, span)| flattened(value).into_iter().map(move |v| (v, span)))
            .collect(),
        _ => flattened(scope.value(node, faults)?)
            .into_iter()
            .map(|value| (value, &node.span))
            .collect(),
    };
    if node.is_null() {
        return None;
    }
    let listed = matches!(node.kind, Kind::List(_)) || written.len() != 1;
    if listed && !many && !written.is_empty() {
        let message = format!("input `{}` takes one thing, not a list", entry.key);
        let fault = Fault::at(&node.span, "config::wrong-type", message);
        faults.push(fault.label("a list").mend("name one stage or path"));
    }
    let mut references = Vec::new();
    for (value, span) in written {
        match value {
            Value::String(text) => {
                references.extend(reference(&text, span, absent, around, faults));
            }
            Value::Null => {}
            other => faults.push(not_a_reference(entry, node, span, &other)),
        }
    }
    Some(InputSpec {
        name: entry.key.clone(),
        span: node.span.clone(),
        references,
    })
}

/// Whether an input's text is a path, and not a stage.
fn is_path(text: &str) -> bool {
    text.contains('/') || text.starts_with('.')
}

/// The stages among what an input names.
pub(crate) fn named_stages(value: Option<&Value>, found: &mut Vec<String>) {
    match value {
        Some(Value::String(text)) if !is_path(text) => {
            found.push(text.split(':').next().unwrap_or_default().to_owned());
        }
        Some(Value::Array(items)) => {
            for item in items {
                named_stages(Some(item), found);
            }
        }
        _ => {}
    }
}

/// A list parameter inside a list stands for its items.
fn flattened(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        other => vec![other],
    }
}

fn not_a_reference(entry: &Entry, node: &Node, span: &Span, value: &Value) -> Fault {
    let takes = "a stage, `stage:product` or a path";
    let mend = match node.kind {
        Kind::Map(_) => "write one line, `name: stage`",
        _ => "put it in quotes if it is a name",
    };
    section::wrong_value(span, &entry.key, takes, value).mend(mend)
}

/// What a local file that is not there means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    Fault,
    /// People have not written it yet.
    Fine,
}

fn reference(
    text: &str,
    span: &Span,
    absent: Absent,
    around: &Surroundings<'_>,
    faults: &mut Vec<Fault>,
) -> Option<Reference> {
    let result = if is_path(text) {
        path(text, span, absent, around)
    } else {
        product(text, span, around)
    };
    result.map_err(|fault| faults.push(*fault)).ok()
}

fn path(
    text: &str,
    span: &Span,
    absent: Absent,
    around: &Surroundings<'_>,
) -> Result<Reference, Box<Fault>> {
    let trimmed = text.trim_start_matches("./");
    let path = PathBuf::from(if trimmed.is_empty() { "." } else { trimmed });
    let first = path
        .components()
        .next()
        .map(|part| part.as_os_str().to_owned());
    if first.is_some_and(|first| first == "out" || first == ".tunesmith") {
        let message = format!("`{text}` is what a run leaves behind, not a source");
        let fault = Fault::at(span, "config::reads-output", message);
        return Err(Box::new(
            fault.mend("name the stage that makes it, `stage:product`"),
        ));
    }
    if absent == Absent::Fine {
        return Ok(Reference::Path(path));
    }
    if !around.present.borrow().contains(&path) && !around.root.join(&path).exists() {
        let message = format!("there is no file or folder `{text}`");
        let fault = Fault::at(span, "config::missing-input", message).label("not found");
        return Err(Box::new(fault.mend(neighbour(text, around))));
    }
    if !around.present.borrow().contains(&path) {
        around.present.borrow_mut().insert(path.clone());
    }
    Ok(Reference::Path(path))
}

/// Where the missing path was looked for, or its nearest neighbour in the same folder.
fn neighbour(text: &str, around: &Surroundings<'_>) -> String {
    if text.starts_with('~') {
        return "`~` is not expanded: write the whole path".to_owned();
    }
    let full = around.root.join(text);
    let name = full
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let folder = full.parent().map(std::fs::read_dir);
    let (Some(name), Some(Ok(entries))) = (name, folder) else {
        return "paths start at the folder of the pipeline file".to_owned();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    match suggest::nearest(&name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`, in the same folder?"),
        None => "paths start at the folder of the pipeline file".to_owned(),
    }
}

fn product(text: &str, span: &Span, around: &Surroundings<'_>) -> Result<Reference, Box<Fault>> {
    let (stage, wanted) = match text.split_once(':') {
        Some((stage, product)) => (stage, Some(product)),
        None => (text, None),
    };
    let Some(known) = around.known.get(stage) else {
        return Err(unknown_stage(text, stage, span, around));
    };
    if !known.here {
        let message = format!("stage `{stage}` is no part of profile `{}`", around.profile);
        let fault = Fault::at(span, "config::unknown-stage", message);
        let fault = fault.also(known.span, "its `profiles` leave it out");
        return Err(Box::new(
            fault.mend("choose the input by a parameter of the profile"),
        ));
    }
    let Some(products) = &known.products else {
        // Its own fault is reported; this one names no product, so it says nothing more.
        return Ok(Reference::Product {
            stage: stage.to_owned(),
            product: wanted.unwrap_or_default().to_owned(),
        });
    };
    let chosen = match wanted {
        None => products.first(),
        Some(wanted) => products.iter().find(|product| **product == wanted),
    };
    let Some(product) = chosen else {
        let message = match wanted {
            Some(wanted) => format!("stage `{stage}` has no output `{wanted}`"),
            None => format!("stage `{stage}` has no outputs"),
        };
        let mend = suggest::mend(
            wanted.unwrap_or_default(),
            products.iter().copied(),
            "outputs",
        );
        let fault = Fault::at(span, "config::unknown-product", message);
        return Err(Box::new(fault.also(known.span, "this stage").mend(mend)));
    };
    Ok(Reference::Product {
        stage: stage.to_owned(),
        product: (*product).to_owned(),
    })
}

fn unknown_stage(text: &str, stage: &str, span: &Span, around: &Surroundings<'_>) -> Box<Fault> {
    let known = around.known.keys().copied();
    let mend = if around.root.join(text).exists() {
        format!("a path contains a `/`: write `./{text}` for the file")
    } else {
        suggest::mend(stage, known, "stages")
    };
    let fault = Fault::at(
        span,
        "config::unknown-stage",
        format!("there is no stage `{stage}`"),
    );
    Box::new(fault.label("no such stage").mend(mend))
}
