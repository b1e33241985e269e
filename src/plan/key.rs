//! The parts that make up a stage's key, in their order.
//!
//! | part | value |
//! | --- | --- |
//! | `key` | version of this table |
//! | `kind` | `train`; `shell` for a command |
//! | `version` | behaviour version of the kind |
//! | `shared.NAME` | behaviour version of a shared part |
//! | `with.NAME` | canonical JSON, only where it differs from the default |
//! | `command`, `output.NAME` | of a command: its text, its output paths |
//! | `seed` | the stage's seed |
//! | `pin` | what the lock says its outside source is; empty until it is resolved |
//! | `input.PORT[.I]` | tree digest |
//! | `input.PORT[.I].name` | the name under which the stage sees it |
//! | `env.NAME` | the value |
//! | `fingerprint.COMMAND` | of a command: what this tool says it is |
//!
//! Never in a key: comments, order, quoting, defaults, resources, retries, time-outs, gates,
//! secrets, the machine.

use std::path::Path;

use cache::{KeyParts, Tree};
use stages::{Params, Stage};

use super::canonical;
use super::input::{Inputs, Item};
use crate::config::{Action, StageSpec};

/// Raised when the table above changes: every key changes with it.
const KEY_VERSION: &str = "1";
/// Raised when a `run:` command would see something else: layout, fixed environment.
const SHELL_VERSION: &str = "1";

/// The parts of a stage's key. `pin` is what the lock says about [`source`].
pub fn parts(spec: &StageSpec, inputs: &Inputs, pin: Option<&str>) -> KeyParts {
    let mut parts = KeyParts::new();
    parts.push("key", KEY_VERSION);
    match &spec.action {
        Action::Builtin { stage, params } => push_builtin(&mut parts, *stage, params),
        Action::Shell { command, outputs } => {
            parts.push("kind", "shell");
            parts.push("version", SHELL_VERSION);
            parts.push("command", command);
            let mut outputs: Vec<_> = outputs.iter().collect();
            outputs.sort_unstable();
            for (name, path) in outputs {
                parts.push(["output.", name].concat(), path);
            }
        }
    }
    parts.push("seed", spec.seed.to_string());
    if source(spec).is_some() {
        parts.push("pin", pin.unwrap_or_default());
    }
    for (port, items) in inputs {
        push_port(&mut parts, port, items, &spec.action);
    }
    for (name, value) in &spec.env {
        parts.push(["env.", name].concat(), value);
    }
    parts
}

fn push_builtin(parts: &mut KeyParts, stage: &dyn Stage, params: &Params) {
    parts.push("kind", stage.kind());
    parts.push("version", stage.version().to_string());
    let mut shared = stage.shared().to_vec();
    shared.sort_unstable();
    for (name, version) in shared {
        parts.push(format!("shared.{name}"), version.to_string());
    }
    for (name, value) in params.given() {
        parts.push(format!("with.{name}"), canonical::text(value));
    }
}

/// The parts under which something derived from an input is kept. No seed and no name of the input: all stages
/// that read equal bytes there share it.
pub fn derived(maker: &dyn Stage, params: &Params, port: &str, tree: &Tree) -> KeyParts {
    let mut parts = KeyParts::new();
    parts.push("key", KEY_VERSION);
    push_builtin(&mut parts, maker, params);
    parts.push(format!("input.{port}"), tree.digest().hex());
    parts
}

fn push_port(parts: &mut KeyParts, port: &str, items: &[Item], action: &Action) {
    for (at, item) in items.iter().enumerate() {
        let name = match items.len() {
            1 => ["input.", port].concat(),
            _ => format!("input.{port}.{at}"),
        };
        parts.push(&name, item.tree.digest().hex());
        // A built-in stage is handed paths and may look at the name; a command also knows the
        // place.
        let seen = match action {
            Action::Shell { .. } => Some(item.place.as_str()),
            Action::Builtin { .. } => Path::new(&item.place).file_name().and_then(|n| n.to_str()),
        };
        parts.push([&name, ".name"].concat(), seen.unwrap_or_default());
    }
}

/// The outside source whose identity the lock pins, if the stage has one.
pub fn source(spec: &StageSpec) -> Option<String> {
    match &spec.action {
        Action::Builtin { stage, params } => stage.source(params),
        Action::Shell { .. } => None,
    }
}

/// The parts under which the result of a run that resolved its source to `pin` is committed. The
/// next run, with the pin in the lock, asks for just these.
pub fn pinned(parts: &KeyParts, pin: &str) -> KeyParts {
    let mut parts = parts.clone();
    parts.replace("pin", pin);
    parts
}
