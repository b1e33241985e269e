//! Which profile, and what every parameter is worth under it.
//!
//! A parameter's value is the `--set` one, else the profile's, else the one under
//! `params`. A parameter without a default must be set by every profile, so that a slip
//! in a profile is found.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Span;
use super::expression::is_name;
use super::fault::Fault;
use super::node::{Entry, Node};
use super::{parse, section, suggest};

/// What the command line says about parameters.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--profile`.
    pub profile: Option<String>,
    /// `--set`, each `param=value` or `stage.field=value`, the value as YAML.
    pub sets: Vec<String>,
}

/// The parameters of one profile.
pub(crate) struct Chosen {
    /// Its name, `default` where the file declares none.
    pub(crate) profile: String,
    /// Every declared profile in file order.
    pub(crate) profiles: Vec<String>,
    /// Parameters.
    pub(crate) params: BTreeMap<String, Value>,
    /// Parameters that only other profiles set, with one such profile.
    pub(crate) elsewhere: BTreeMap<String, String>,
    /// Parameters that `--set` gives.
    pub(crate) fixed: BTreeMap<String, Value>,
}

/// Reads `params`, `profiles`, `default_profile` and the overrides.
pub(crate) fn choose(root: &[Entry], overrides: &Overrides, faults: &mut Vec<Fault>) -> Chosen {
    let mut params = BTreeMap::new();
    if let Some(entry) = section::get(root, "params") {
        for (name, _, value) in declared(&entry.value, "params", faults) {
            params.insert(name.to_owned(), value);
        }
    }
    let profiles = profiles(root, faults);
    check_profiles(&profiles, &params, faults);
    let chosen = chosen_profile(root, &profiles, overrides, faults);
    let mut elsewhere = BTreeMap::new();
    for profile in &profiles {
        for (name, _, value) in &profile.values {
            if Some(profile.name) == chosen {
                params.insert((*name).to_owned(), value.clone());
            } else {
                elsewhere.insert((*name).to_owned(), profile.name.to_owned());
            }
        }
    }
    elsewhere.retain(|name, _| !params.contains_key(name));
    let fixed = set(&mut params, &overrides.sets, faults);
    Chosen {
        fixed,
        profile: chosen.unwrap_or("default").to_owned(),
        profiles: profiles
            .iter()
            .map(|profile| profile.name.to_owned())
            .collect(),
        params,
        elsewhere,
    }
}

type Declared<'a> = Vec<(&'a str, &'a Span, Value)>;

struct Profile<'a> {
    name: &'a str,
    values: Declared<'a>,
}

/// `name: value` lines whose names may stand in `${..}` and whose values are plain.
fn declared<'a>(node: &'a Node, what: &str, faults: &mut Vec<Fault>) -> Declared<'a> {
    let mut found = Vec::new();
    for entry in section::map(node, what, faults) {
        if !is_name(&entry.key) {
            let message = format!("`{}` is no parameter name", entry.key);
            let fault = Fault::at(&entry.key_span, "config::bad-name", message);
            faults.push(fault.mend("use letters, digits and `_`, a letter first"));
        }
        entry.value.each_text(&mut |span, text| {
            if text.contains("${") {
                let message = format!("parameter `{}` holds an expression", entry.key);
                let fault = Fault::at(span, "config::expression", message);
                faults.push(
                    fault.mend("parameters are plain values: write `${..}` where it is used"),
                );
            }
        });
        found.push((entry.key.as_str(), &entry.key_span, entry.value.value()));
    }
    found
}

fn profiles<'a>(root: &'a [Entry], faults: &mut Vec<Fault>) -> Vec<Profile<'a>> {
    let Some(entry) = section::get(root, "profiles") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for profile in section::map(&entry.value, "profiles", faults) {
        if !is_stage_name(&profile.key) {
            let message = format!("`{}` is no profile name", profile.key);
            let fault = Fault::at(&profile.key_span, "config::bad-name", message);
            faults.push(fault.mend("use letters, digits, `-`, `_` and `.`: it names a folder"));
        }
        found.push(Profile {
            name: &profile.key,
            values: declared(&profile.value, &profile.key, faults),
        });
    }
    found
}

/// Letters, digits, `-`, `_` and `.`, none of the last two first: safe as a folder name.
pub(crate) fn is_stage_name(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// A parameter without a default stands in every profile.
fn check_profiles(
    profiles: &[Profile<'_>],
    params: &BTreeMap<String, Value>,
    faults: &mut Vec<Fault>,
) {
    for profile in profiles {
        for (name, span, _) in &profile.values {
            let lacks = |other: &&Profile<'_>| !other.values.iter().any(|(n, ..)| n == name);
            if params.contains_key(*name) {
                continue;
            }
            if let Some(other) = profiles.iter().find(lacks) {
                let near = suggest::nearest(name, params.keys().map(String::as_str));
                let mend = near.map_or_else(
                    || {
                        format!(
                            "give `{name}` a default under `params`, or set it in every profile"
                        )
                    },
                    |near| format!("did you mean `{near}`?"),
                );
                let message = format!(
                    "`{name}` has no default, and profile `{}` does not set it",
                    other.name
                );
                faults.push(Fault::at(span, "config::undefined-param", message).mend(mend));
            }
        }
    }
}

fn chosen_profile<'a>(
    root: &'a [Entry],
    profiles: &[Profile<'a>],
    overrides: &Overrides,
    faults: &mut Vec<Fault>,
) -> Option<&'a str> {
    let find = |wanted: &str| profiles.iter().map(|p| p.name).find(|name| *name == wanted);
    let known = || profiles.iter().map(|profile| profile.name);
    let first = profiles.first().map(|profile| profile.name);
    let mut default = first;
    if let Some(entry) = section::get(root, "default_profile")
        && let Some(wanted) = section::text(&entry.value, "default_profile", faults)
    {
        default = find(wanted);
        if default.is_none() {
            let message = format!("there is no profile `{wanted}`");
            let fault = Fault::at(&entry.value.span, "config::unknown-profile", message);
            faults.push(fault.mend(suggest::mend(wanted, known(), "profiles")));
        }
    }
    let Some(wanted) = overrides.profile.as_deref() else {
        return default;
    };
    let found = find(wanted);
    if found.is_none() && !(profiles.is_empty() && wanted == "default") {
        let message = format!("there is no profile `{wanted}`");
        let fault = Fault::nowhere("config::unknown-profile", message);
        faults.push(fault.mend(suggest::mend(wanted, known(), "profiles")));
    }
    found.or(default)
}

/// Sets parameters; those of stages (`train.lr=1e-4`) were set in the tree already.
fn set(
    params: &mut BTreeMap<String, Value>,
    sets: &[String],
    faults: &mut Vec<Fault>,
) -> BTreeMap<String, Value> {
    let mut fixed = BTreeMap::new();
    for set in sets {
        let Some((name, text)) = set.split_once('=') else {
            let fault = Fault::nowhere("config::set", format!("`--set {set}` sets nothing"));
            faults.push(fault.mend("write `--set name=value`"));
            continue;
        };
        let name = name.trim();
        if name.contains('.') {
            continue;
        }
        if !params.contains_key(name) {
            let message = format!("`--set {set}`: there is no parameter `{name}`");
            let known = params.keys().map(String::as_str);
            let fault = Fault::nowhere("config::undefined-param", message);
            faults.push(fault.mend(suggest::mend(name, known, "parameters")));
            continue;
        }
        let (node, bad) = parse::parse(text);
        match (node, bad.first()) {
            (Some(node), None) => {
                params.insert(name.to_owned(), node.value());
                fixed.insert(name.to_owned(), node.value());
            }
            (_, bad) => {
                let why = bad.map_or("no value", |fault| fault.message.as_str());
                let fault = Fault::nowhere("config::set", format!("`--set {set}`: {why}"));
                faults.push(fault.mend("write the value as in the file, `--set lr=1e-4`"));
            }
        }
    }
    fixed
}
