//! The environment a stage was given, as a value.
//!
//! Promises: an empty variable counts as absent; whatever is read as a secret is known as
//! one and can be struck from messages. Tests make their own instead of changing the
//! process's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;

/// Names whose values are secrets.
const SECRETS: [&str; 5] = [
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "CLOUDFLARE_API_TOKEN",
    "CF_API_TOKEN",
    "ANTHROPIC_API_KEY",
];

/// Environment variables by name.
#[derive(Clone, Default)]
pub(crate) struct Environment {
    values: BTreeMap<String, String>,
    found: Vec<SecretString>,
}

impl Environment {
    /// The process's own. Values that are not Unicode are left out.
    pub(crate) fn process() -> Self {
        Self::of(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }))
    }

    /// An environment of these variables.
    pub(crate) fn of(values: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            values: values
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .collect(),
            found: Vec::new(),
        }
    }

    /// A variable that is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The first of several names that is set.
    pub(crate) fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.get(name))
    }

    /// Every variable whose name starts so.
    pub(crate) fn starting_with(&self, start: &str) -> impl Iterator<Item = (&str, &str)> {
        let values = self.values.iter();
        values
            .filter(move |(name, _)| name.starts_with(start))
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A flag in the style of `HF_HUB_OFFLINE`: 1, true, yes or on.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| {
            ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())
        })
    }

    /// A path variable; a leading `~/` means the home folder.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        let value = self.get(name)?;
        match (value.strip_prefix("~/"), self.get("HOME")) {
            (Some(rest), Some(home)) => Some(PathBuf::from(home).join(rest)),
            _ => Some(PathBuf::from(value)),
        }
    }

    /// Remembers a secret that came from elsewhere (a token file).
    pub(crate) fn know(&mut self, secret: SecretString) {
        self.found.push(secret);
    }

    /// Every secret value it holds.
    pub(crate) fn secrets(&self) -> Vec<SecretString> {
        let named = SECRETS
            .iter()
            .filter_map(|name| self.get(name))
            .map(SecretString::from);
        named.chain(self.found.iter().cloned()).collect()
    }

    /// The first of several names, as a secret.
    pub(crate) fn secret(&self, names: &[&str]) -> Option<SecretString> {
        self.first(names)
            .map(|value| SecretString::from(value.trim()))
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may be secrets under names we do not know.
        f.debug_list().entries(self.values.keys()).finish()
    }
}
