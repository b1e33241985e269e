//! One entry under `stages:`. First every stage's outside is read (name, kind, products,
//! profiles), then every stage of the profile in full, so that order does not matter.

use std::collections::BTreeMap;

use serde_json::Value;
use stages::{Effect, Pool, Stage};

use super::cell::Cell;
use super::fault::Fault;
use super::input::{self, Known, Surroundings};
use super::node::{Entry, Kind, Node};
use super::params::is_stage_name;
use super::pick::Measured;
use super::pipeline::{Action, Span, StageSpec};
use super::resources::{Resources, resources};
use super::template::{Scope, written};
use super::{action, limits, section, suggest, with};

/// Keys of every stage.
pub(crate) const COMMON: [&str; 13] = [
    "about",
    "inputs",
    "env",
    "secrets",
    "resources",
    "retries",
    "timeout",
    "gates",
    "seed",
    "profiles",
    "effect",
    "matrix",
    "pick",
];
/// Keys of a `uses` stage beside the common ones.
pub(crate) const BUILTIN: [&str; 2] = ["uses", "with"];
/// Keys of a `run` stage beside the common ones.
pub(crate) const SHELL: [&str; 3] = ["run", "outputs", "fingerprint"];

/// The outside of a stage.
pub(crate) struct Draft<'a> {
    pub(crate) id: &'a str,
    pub(crate) span: &'a Span,
    entries: &'a [Entry],
    doing: Doing<'a>,
    /// Whether a key of it was at fault.
    strange: bool,
    /// Whether it is part of the profile.
    pub(crate) here: bool,
}

enum Doing<'a> {
    Builtin(&'static dyn Stage),
    Shell {
        run: &'a Node,
        outputs: Vec<(String, String)>,
    },
    /// Hidden by a fault.
    Unknown,
}

/// Reads the outside of one stage.
pub(crate) fn draft<'a>(
    entry: &'a Entry,
    registry: &[&'static dyn Stage],
    profile: (&str, &[String]),
    faults: &mut Vec<Fault>,
) -> Draft<'a> {
    if !is_stage_name(&entry.key) {
        let message = format!("`{}` is no stage name", entry.key);
        let fault = Fault::at(&entry.key_span, "config::bad-name", message);
        faults.push(fault.mend("use letters, digits, `-`, `_` and `.`: it names a folder"));
    }
    let entries = section::map(&entry.value, &entry.key, faults);
    let before = faults.len();
    keys(entries, faults);
    let strange = faults.len() > before;
    Draft {
        id: &entry.key,
        span: &entry.key_span,
        entries,
        strange,
        doing: doing(entry, entries, registry, faults),
        here: section::get(entries, "profiles")
            .is_none_or(|entry| member(&entry.value, profile, faults)),
    }
}

fn member(node: &Node, (chosen, all): (&str, &[String]), faults: &mut Vec<Fault>) -> bool {
    let mut here = false;
    for (name, span) in section::texts(node, "profiles", faults) {
        let known = all.iter().any(|profile| profile == name);
        here |= name == chosen || !known;
        if !known {
            let message = format!("there is no profile `{name}`");
            let mend = suggest::mend(name, all.iter().map(String::as_str), "profiles");
            faults.push(Fault::at(span, "config::unknown-profile", message).mend(mend));
        }
    }
    here
}

fn doing<'a>(
    stage: &'a Entry,
    entries: &'a [Entry],
    registry: &[&'static dyn Stage],
    faults: &mut Vec<Fault>,
) -> Doing<'a> {
    let uses = section::get(entries, "uses");
    let run = section::get(entries, "run");
    match (uses, run) {
        (Some(uses), Some(run)) => {
            let message = format!("stage `{}` has both `uses` and `run`", stage.key);
            let fault = Fault::at(&run.key_span, "config::two-actions", message);
            faults.push(
                fault
                    .also(&uses.key_span, "and here")
                    .mend("keep one of them"),
            );
            Doing::Unknown
        }
        (None, None) => {
            let message = format!("stage `{}` does nothing", stage.key);
            let fault = Fault::at(&stage.key_span, "config::no-action", message);
            faults.push(fault.mend("add `uses:` with a built-in stage, or `run:` with a command"));
            Doing::Unknown
        }
        (Some(uses), None) => {
            action::kind(&uses.value, registry, faults).map_or(Doing::Unknown, Doing::Builtin)
        }
        (None, Some(run)) => {
            let outputs = section::get(entries, "outputs");
            let external = section::get(entries, "effect").is_some();
            let known = [&COMMON[..], &SHELL].concat();
            if outputs.is_none() && !external && !section::misspelt(entries, &known, "outputs") {
                let message = format!("stage `{}` declares no outputs", stage.key);
                let fault = Fault::at(&run.key_span, "config::missing-field", message);
                faults.push(fault.mend("add `outputs: {name: path}`: what the command writes"));
            }
            Doing::Shell {
                run: &run.value,
                outputs: outputs.map_or_else(Vec::new, |entry| action::outputs(entry, faults)),
            }
        }
    }
}

fn keys(entries: &[Entry], faults: &mut Vec<Fault>) {
    let (uses, run) = (
        section::get(entries, "uses").is_some(),
        section::get(entries, "run").is_some(),
    );
    let known = |key: &str| {
        BUILTIN.contains(&key) && (uses || !run)
            || SHELL.contains(&key) && (run || !uses)
            || COMMON.contains(&key) && (key != "effect" || run || !uses)
    };
    for entry in entries {
        let key = entry.key.as_str();
        if known(key) {
            continue;
        }
        let all = BUILTIN.iter().chain(&SHELL).chain(&COMMON).copied();
        let known: Vec<&str> = all.filter(|key| known(key)).collect();
        let other = if run { "uses" } else { "run" };
        let elsewhere = BUILTIN.contains(&key) || SHELL.contains(&key) || key == "effect";
        faults.push(match key {
            "executor" => not_yet(entry, "Slurm and Ray", "leave it out: stages run here"),
            _ if elsewhere => {
                let message = format!("`{key}` belongs to a `{other}` stage");
                Fault::at(&entry.key_span, "config::unknown-key", message)
                    .mend("leave it out, or change what the stage does")
            }
            _ => section::unknown(entry, &known, "a stage"),
        });
    }
}

/// A key that a later version knows.
pub(crate) fn not_yet(entry: &Entry, with: &str, mend: &str) -> Fault {
    let message = format!("`{}` arrives with {with}", entry.key);
    Fault::at(&entry.key_span, "config::not-yet", message).mend(mend)
}

impl<'a> Draft<'a> {
    /// The field called `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Entry> {
        section::get(self.entries, key)
    }

    /// Names of the stages that it reads, as far as `scope` tells.
    pub(crate) fn reads(&self, scope: &Scope<'_>) -> Vec<String> {
        let inputs = self.get("inputs").and_then(|entry| entry.value.entries());
        let mut found = Vec::new();
        for entry in inputs.unwrap_or_default() {
            // Faults are told when the stage is built.
            let value = scope.value(&entry.value, &mut Vec::new());
            input::named_stages(value.as_ref(), &mut found);
        }
        found
    }

    /// What matters of it when it is measured.
    pub(crate) fn measured(&self, scope: &Scope<'_>) -> Measured<'a> {
        let inputs = self.get("inputs").and_then(|entry| entry.value.entries());
        let prompts = section::get(inputs.unwrap_or_default(), "prompts");
        let prompts = prompts.and_then(|entry| scope.value(&entry.value, &mut Vec::new()));
        let gates = self.get("gates").and_then(|entry| entry.value.entries());
        Measured {
            id: self.id,
            span: self.span,
            builtin: match self.doing {
                Doing::Builtin(stage) => Some(stage),
                _ => None,
            },
            gated: self.here && gates.is_some_and(|gates| !gates.is_empty()),
            prompts: prompts.map(|value| value.to_string()),
        }
    }

    /// The stage as others see it.
    pub(crate) fn known(&'a self) -> Known<'a> {
        let products = match &self.doing {
            Doing::Builtin(stage) => Some(stage.products().iter().map(|p| p.name).collect()),
            Doing::Shell { outputs, .. } => {
                Some(outputs.iter().map(|(name, _)| name.as_str()).collect())
            }
            Doing::Unknown => None,
        };
        Known {
            span: self.span,
            products,
            here: self.here,
        }
    }

    /// The whole stage; `None` where it is not part of the profile, or after a fault.
    pub(crate) fn build(
        &self,
        seed: u64,
        around: &Surroundings<'_>,
        scope: &Scope<'_>,
        faults: &mut Vec<Fault>,
    ) -> Option<StageSpec> {
        if !self.here {
            return None;
        }
        let get = |key| section::get(self.entries, key);
        let stage = match self.doing {
            Doing::Builtin(stage) => Some(stage),
            _ => None,
        };
        let inputs = if let Doing::Unknown = self.doing {
            Vec::new()
        } else {
            let block = get("inputs").map_or(self.span, |entry| &entry.key_span);
            let block = (!self.misspelt("inputs")).then_some(block);
            input::inputs(get("inputs"), stage, block, around, scope, faults)
        };
        let action = self.action(scope, faults);
        let env = env(get("env"), scope, faults);
        let own = Resources::own(
            stage.map_or(Pool::Cpu, Stage::pool),
            stage.is_some_and(Stage::whole_pool),
        );
        let seed = match get("seed") {
            Some(entry) => limits::whole(&entry.value, "seed", (0, u64::MAX), scope, faults),
            None => Some(seed),
        };
        let about = get("about").and_then(|entry| section::text(&entry.value, "about", faults));
        let spec = StageSpec {
            id: self.id.to_owned(),
            name: self.id.to_owned(),
            cell: Cell::default(),
            pick: None,
            fingerprint: self.fingerprint(scope, faults),
            span: self.span.clone(),
            about: about.map(str::to_owned),
            inputs,
            secrets: secrets(get("secrets"), &env, faults),
            env,
            resources: resources(get("resources"), own, around.pools, scope, faults),
            limits: limits::limits(self.entries, scope, faults),
            gates: limits::gates(get("gates"), scope, faults),
            effect: self.effect(faults),
            seed: seed?,
            spans: spans(self.entries, scope.source),
            action: action?,
        };
        Some(spec)
    }

    fn action(&self, scope: &Scope<'_>, faults: &mut Vec<Fault>) -> Option<Action> {
        let get = |key| section::get(self.entries, key);
        match &self.doing {
            Doing::Builtin(stage) => {
                let block = get("with").map_or(self.span, |entry| &entry.key_span);
                let block = (!self.misspelt("with")).then_some(block);
                with::builtin(*stage, get("with"), block, scope, faults)
            }
            Doing::Shell { run, outputs } => {
                let inputs = get("inputs").and_then(|entry| entry.value.entries());
                let inputs = inputs.unwrap_or_default().iter();
                let inputs: Vec<_> = inputs.map(|entry| entry.key.as_str()).collect();
                let names: Vec<_> = outputs.iter().map(|(name, _)| name.as_str()).collect();
                let inputs = (!self.misspelt("inputs")).then_some(inputs.as_slice());
                let names = (!self.misspelt("outputs")).then_some(names.as_slice());
                action::ports(run, inputs, names, scope, faults);
                action::shell(run, outputs.clone(), scope, faults)
            }
            Doing::Unknown => None,
        }
    }

    /// Whether an unknown key of this stage was probably meant to be `key`.
    fn misspelt(&self, key: &str) -> bool {
        if !self.strange {
            return false;
        }
        let known = [&COMMON[..], &BUILTIN, &SHELL].concat();
        section::misspelt(self.entries, &known, key)
    }

    /// Commands whose output tells which tools are used.
    fn fingerprint(&self, scope: &Scope<'_>, faults: &mut Vec<Fault>) -> Vec<String> {
        let (Some(entry), Doing::Shell { .. }) = (self.get("fingerprint"), &self.doing) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let takes = "a command, `python --version`, or a list of them";
        let items = match &entry.value.kind {
            Kind::List(items) => items.iter().collect(),
            _ => vec![&entry.value],
        };
        for item in items {
            match scope.value(item, faults) {
                Some(Value::String(text)) if !text.trim().is_empty() => found.push(text),
                Some(_) => faults.push(section::wrong(
                    item,
                    "fingerprint",
                    takes,
                    "write it as text",
                )),
                None => {}
            }
        }
        found
    }

    fn effect(&self, faults: &mut Vec<Fault>) -> Effect {
        if let Doing::Builtin(stage) = self.doing {
            return stage.effect();
        }
        let Some(entry) = section::get(self.entries, "effect") else {
            return Effect::None;
        };
        match entry.value.text() {
            Some("external") => Effect::External,
            Some("none") => Effect::None,
            _ => {
                let mend = "`external`: it runs only when named";
                faults.push(section::wrong(
                    &entry.value,
                    "effect",
                    "`external` or `none`",
                    mend,
                ));
                Effect::None
            }
        }
    }
}

/// Whether `name` may name an environment variable.
fn is_variable(name: &str) -> bool {
    super::expression::is_name(name)
}

fn bad_variable(name: &str, span: &Span) -> Fault {
    let message = format!("`{name}` is no name of an environment variable");
    Fault::at(span, "config::bad-name", message).mend("use letters, digits and `_`")
}

/// `env:`: single values, a number written as in the file.
fn env(
    entry: Option<&Entry>,
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let Some(entry) = entry else { return found };
    for entry in section::map(&entry.value, "env", faults) {
        if !is_variable(&entry.key) {
            faults.push(bad_variable(&entry.key, &entry.key_span));
        }
        let verbatim = match entry.value.kind {
            Kind::Number(_) | Kind::Bool(_) => scope.source.get(entry.value.span.clone()),
            _ => None,
        };
        let value = match verbatim {
            Some(text) => Some(text.to_owned()),
            None => match scope.value(&entry.value, faults) {
                Some(value) if !value.is_null() && written(&value).is_some() => written(&value),
                Some(_) => {
                    let mend = "write one value; `\"\"` for an empty one";
                    faults.push(section::wrong(&entry.value, &entry.key, "one value", mend));
                    None
                }
                None => None,
            },
        };
        if let Some(value) = value {
            found.insert(entry.key.clone(), value);
        }
    }
    found
}

fn secrets(
    entry: Option<&Entry>,
    env: &BTreeMap<String, String>,
    faults: &mut Vec<Fault>,
) -> Vec<String> {
    let Some(entry) = entry else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (name, span) in section::texts(&entry.value, "secrets", faults) {
        if !is_variable(name) {
            faults.push(bad_variable(name, span));
        } else if env.contains_key(name) {
            let message = format!("`{name}` stands under `env` and under `secrets`");
            let fault = Fault::at(span, "config::duplicate-key", message);
            faults
                .push(fault.mend("keep it under `secrets` if its value must stay out of the file"));
        }
        found.push(name.to_owned());
    }
    found
}

/// Places by field path, `with.lr`: for faults that are found later.
fn spans(entries: &[Entry], source: &str) -> BTreeMap<String, Span> {
    let mut found = BTreeMap::new();
    for entry in entries {
        found.insert(entry.key.clone(), entry.key_span.clone());
        nested(&entry.key, &entry.value, &mut found);
    }
    // What `--set` gives stands nowhere.
    found.retain(|_, span| span.end <= source.len());
    found
}

fn nested(path: &str, node: &Node, found: &mut BTreeMap<String, Span>) {
    for entry in node.entries().unwrap_or_default() {
        let path = [path, ".", &entry.key].concat();
        nested(&path, &entry.value, found);
        found.insert(path, entry.value.span.clone());
    }
}
