//! What a stage does: the kind that `uses` names, or `run` with its outputs.

use std::path::{Component, Path};

use stages::Stage;

use super::fault::Fault;
use super::node::{Entry, Node};
use super::pipeline::Action;
use super::template::Scope;
use super::{section, suggest};

/// The stage that `uses:` names.
pub(crate) fn kind(
    node: &Node,
    registry: &[&'static dyn Stage],
    faults: &mut Vec<Fault>,
) -> Option<&'static dyn Stage> {
    let wanted = section::text(node, "uses", faults)?;
    let found = registry
        .iter()
        .copied()
        .find(|stage| stage.kind() == wanted);
    if found.is_none() {
        let known = registry.iter().map(|stage| stage.kind());
        let message = format!("unknown stage kind `{wanted}`");
        faults.push(
            Fault::at(&node.span, "config::unknown-stage-kind", message)
                .label("no built-in stage")
                .mend(suggest::mend(wanted, known, "stage kinds")),
        );
    }
    found
}

/// A shell command with its outputs.
pub(crate) fn shell(
    run: &Node,
    outputs: Vec<(String, String)>,
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) -> Option<Action> {
    let text = section::text(run, "run", faults)?;
    if text.trim().is_empty() {
        let fault = Fault::at(&run.span, "config::wrong-type", "the command is empty");
        faults.push(fault.mend("write the command, or take the stage out"));
        return None;
    }
    let command = scope.command(run, faults)?;
    Some(Action::Shell { command, outputs })
}

/// Every `${inputs.x}` and `${outputs.x}` of a command is declared. `None` for a side
/// that a fault hides.
pub(crate) fn ports(
    run: &Node,
    inputs: Option<&[&str]>,
    outputs: Option<&[&str]>,
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) {
    let declared = |side: &str| if side == "inputs" { inputs } else { outputs };
    let known = |side: &str, name: &str| declared(side).is_none_or(|known| known.contains(&name));
    for (side, name, span) in scope.ports(run, known) {
        let known = declared(side).unwrap_or_default();
        let message = format!("the command names `${{{side}.{name}}}`, which is not declared");
        let mend = match suggest::nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add `{name}:` under `{side}`"),
        };
        let fault = Fault::at(&span, "config::unknown-port", message);
        faults.push(fault.label("not declared").mend(mend));
    }
}

/// `outputs: {adapter: adapter/}`: names and paths below the scratch folder. A closing
/// slash stays: it says that the folder is there before the command starts.
pub(crate) fn outputs(entry: &Entry, faults: &mut Vec<Fault>) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for entry in section::map(&entry.value, "outputs", faults) {
        port_name(entry, faults);
        let Some(path) = section::text(&entry.value, &entry.key, faults) else {
            continue;
        };
        let plain = path.trim_end_matches('/').trim_start_matches("./");
        if let Some(message) = bad_output(plain, &found) {
            let fault = Fault::at(&entry.value.span, "config::bad-output", message);
            faults.push(fault.mend("give each output a path of its own below the scratch folder"));
        }
        let slash = if path.ends_with('/') { "/" } else { "" };
        found.push((entry.key.clone(), format!("{plain}{slash}")));
    }
    found
}

fn bad_output(path: &str, others: &[(String, String)]) -> Option<String> {
    let path = Path::new(path);
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !plain || path.as_os_str().is_empty() {
        return Some(format!(
            "`{}` is no path below the scratch folder",
            path.display()
        ));
    }
    if path.to_string_lossy().contains("${") {
        return Some("an output path is written out, without `${..}`".to_owned());
    }
    others
        .iter()
        .find(|(_, other)| path.starts_with(other) || Path::new(other).starts_with(path))
        .map(|(name, _)| format!("`{}` lies in or over the output `{name}`", path.display()))
}

/// A name that a command can write as `${inputs.name}`.
pub(crate) fn port_name(entry: &Entry, faults: &mut Vec<Fault>) {
    let plain = entry
        .key
        .starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && entry
            .key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if !plain {
        let message = format!("`{}` is no name for an input or output", entry.key);
        let fault = Fault::at(&entry.key_span, "config::bad-name", message);
        faults.push(fault.mend("use letters, digits, `-` and `_`, a letter first"));
    }
}
