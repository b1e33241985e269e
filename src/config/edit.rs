//! `tunesmith set train.lr 1e-4`: one value of the file is replaced, and not a byte beside it.
//!
//! Promises: the edited text, read again, differs from the old one in the one value that was
//! meant and has no fault, or nothing is edited; comments, order, quoting and layout stay.

use std::path::Path;

use serde_json::{Map, Value};
use stages::Stage;

use super::expression::is_name;
use super::fault::{Fault, Faults};
use super::load::load_text;
use super::node::{Entry, Kind, Node};
use super::{Overrides, Span, overlay, parse, section, suggest};

/// What was edited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The new text of the file.
    pub text: String,
    /// Where the value stands, a byte of the old text.
    pub at: usize,
    /// The path of what was set, `params.lr`.
    pub path: String,
    /// The old value as it was written, if there was one.
    pub old: Option<String>,
    /// The expression that led to a parameter, `${lr}`.
    pub followed: Option<String>,
}

/// Sets `name` (`lr`, or `train.lr`) to `value`, written as YAML. A parameter is set where the
/// chosen profile has it from.
pub fn edit(
    file: &Path,
    text: &str,
    (name, value): (&str, &str),
    overrides: &Overrides,
    registry: &[&'static dyn Stage],
) -> Result<Edited, Faults> {
    let env = |name: &str| std::env::var(name).ok();
    let loaded = load_text(file, text.to_owned(), overrides, registry, &env)?.finish(Vec::new())?;
    let (tree, _) = parse::parse(text);
    let mut tree = tree.expect("it was just read");
    let refuse = |fault: Fault| Faults::new(file, text, vec![fault]);
    let unknown = |fault: Box<Fault>| refuse(*fault);
    let mut followed = None;
    let mut steps = if name.contains('.') {
        stage_steps(&mut tree, name).map_err(unknown)?
    } else {
        param_steps(&tree, name, &loaded.profile, overrides).map_err(unknown)?
    };
    if let Some(node) = find(&tree, &steps)
        && let Some(inside) = node.text().filter(|text| text.contains("${"))
    {
        let param = alone(inside).ok_or_else(|| refuse(computed(node, name, inside)))?;
        if let Some(axis) = swept(&tree, &steps, param) {
            return Err(refuse(axis));
        }
        followed = Some(inside.to_owned());
        steps = param_steps(&tree, param, &loaded.profile, overrides).map_err(unknown)?;
    }
    let written = find(&tree, &steps).map(|node| node.span.clone());
    let old = written
        .clone()
        .and_then(|span| text.get(span))
        .map(str::to_owned);
    let quoted = Value::from(value).to_string();
    for spelling in [value, &quoted] {
        let (Some(parsed), true) = (single(spelling), !spelling.contains('\n')) else {
            continue;
        };
        let (at, edited) = match &written {
            Some(span) => (span.start, replaced(text, span, spelling)),
            None => match inserted(text, &tree, &steps, spelling) {
                Some(done) => done,
                None => continue,
            },
        };
        let mut wanted = tree.value();
        put(&mut wanted, &steps, parsed);
        let (again, faults) = parse::parse(&edited);
        if !faults.is_empty() || again.map(|tree| tree.value()) != Some(wanted) {
            continue;
        }
        load_text(file, edited.clone(), overrides, registry, &env)?.finish(Vec::new())?;
        return Ok(Edited {
            text: edited,
            at,
            path: steps.join("."),
            old,
            followed,
        });
    }
    let message = format!(
        "`{}` cannot be set to `{value}` without touching more",
        steps.join(".")
    );
    let fault = match &written {
        Some(span) => Fault::at(span, "set::not-alone", message),
        None => Fault::nowhere("set::not-alone", message),
    };
    Err(refuse(fault.mend(
        "edit the file by hand: an anchor, or a value of several lines, is in the way",
    )))
}

/// A spelling as one value.
fn single(text: &str) -> Option<Value> {
    match parse::parse(text) {
        (Some(node), faults) if faults.is_empty() && !matches!(node.kind, Kind::Map(_)) => {
            Some(node.value())
        }
        _ => None,
    }
}

fn stage_steps(tree: &mut Node, name: &str) -> Result<Vec<String>, Box<Fault>> {
    let found = overlay::field(tree, name).map(|(stage, _, steps)| (stage, steps));
    let (stage, steps) = found.map_err(|known| {
        let stage = name.split('.').next().unwrap_or_default();
        let message = format!("`{name}` names no field of a stage");
        let mend = suggest::mend(stage, known.iter().map(String::as_str), "stages");
        Box::new(Fault::nowhere("set::unknown", message).mend(mend))
    })?;
    let head = ["stages".to_owned(), stage];
    Ok(head.into_iter().chain(steps).collect())
}

/// Where a parameter is set: in the profile if that sets it (or was asked for), else under
/// `params`.
fn param_steps(
    tree: &Node,
    name: &str,
    profile: &str,
    overrides: &Overrides,
) -> Result<Vec<String>, Box<Fault>> {
    let own = ["params", name].map(str::to_owned).to_vec();
    let of_profile = ["profiles", profile, name].map(str::to_owned).to_vec();
    if find(tree, &of_profile).is_some() {
        return Ok(of_profile);
    }
    if find(tree, &own).is_none() {
        let params = find(tree, &["params".to_owned()]);
        let known = params.and_then(Node::entries).unwrap_or_default();
        let known = known.iter().map(|entry| entry.key.as_str());
        let message = format!("there is no parameter `{name}`");
        let fault = Fault::nowhere("set::unknown", message);
        return Err(Box::new(fault.mend(suggest::mend(
            name,
            known,
            "parameters",
        ))));
    }
    Ok(if overrides.profile.is_some() && profile != "default" {
        of_profile
    } else {
        own
    })
}

fn find<'a>(tree: &'a Node, steps: &[String]) -> Option<&'a Node> {
    steps.iter().try_fold(tree, |node, step| {
        section::get(node.entries()?, step).map(|entry| &entry.value)
    })
}

/// The parameter of a text that is one `${name}` alone.
fn alone(text: &str) -> Option<&str> {
    let name = text.trim().strip_prefix("${")?.strip_suffix('}')?.trim();
    is_name(name).then_some(name)
}

fn computed(node: &Node, name: &str, inside: &str) -> Fault {
    let message = format!("`{name}` is computed, `{inside}`: it has no value of its own to set");
    let fault = Fault::at(&node.span, "set::computed", message);
    fault.mend("set the parameters in it, or write a value here by hand")
}

/// The fault of following a parameter that the stage's own matrix binds.
fn swept(tree: &Node, steps: &[String], param: &str) -> Option<Fault> {
    let path = [
        &steps[..2.min(steps.len())],
        &["matrix".to_owned(), param.to_owned()],
    ]
    .concat();
    let axis = find(tree, &path)?;
    let message = format!("`{param}` is swept by the matrix of `{}`", steps[1]);
    let fault = Fault::at(&axis.span, "set::swept", message).label("its values");
    Some(fault.mend("edit the axis, or set one cell for a run: `--set`"))
}

fn replaced(text: &str, span: &Span, spelling: &str) -> String {
    let before = &text[..span.start];
    // `lr:` with nothing behind it.
    let space = if span.is_empty() && before.ends_with(':') {
        " "
    } else {
        ""
    };
    format!("{before}{space}{spelling}{}", &text[span.end..])
}

/// The text with a line more, in the deepest map of the path that is there.
fn inserted(text: &str, tree: &Node, steps: &[String], spelling: &str) -> Option<(usize, String)> {
    let depth = (0..steps.len())
        .rev()
        .find(|depth| find(tree, &steps[..*depth]).is_some())?;
    let map = find(tree, &steps[..depth])?;
    let entries = map.entries()?;
    let missing = &steps[depth..];
    let inner = missing[1..]
        .iter()
        .rev()
        .fold(spelling.to_owned(), |value, step| {
            format!("{{ {step}: {value} }}")
        });
    let line = format!("{}: {inner}", missing[0]);
    let flow = text[map.span.clone()].starts_with('{');
    let (at, piece) = match entries.last() {
        Some(last) if flow => (
            last.value.span.end.max(last.key_span.end),
            format!(", {line}"),
        ),
        None if flow => (map.span.start + 1, format!(" {line} ")),
        Some(last) => after(text, &entries[0], last, &line),
        None => return None,
    };
    Some((at, format!("{}{piece}{}", &text[..at], &text[at..])))
}

/// The place behind the last entry of a block map, and the line to put there.
fn after(text: &str, first: &Entry, last: &Entry, line: &str) -> (usize, String) {
    let start = first.key_span.start;
    let column = start - text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let indent = " ".repeat(column);
    let end = last.value.span.end.max(last.key_span.end);
    if text[..end].ends_with('\n') {
        return (end, format!("{indent}{line}\n"));
    }
    let end = text[end..]
        .find('\n')
        .map_or(text.len(), |newline| end + newline);
    (end, format!("\n{indent}{line}"))
}

fn put(value: &mut Value, steps: &[String], new: Value) {
    let mut at = value;
    for step in steps {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let map = at.as_object_mut().expect("made above");
        at = map.entry(step.clone()).or_insert(Value::Null);
    }
    *at = new;
}
