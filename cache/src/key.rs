//! A key is a list of named parts before it is a hash, so that "why" is the difference of two lists.
//!
//! Promises: the digest is injective up to blake3 (every name and value is length-prefixed) and
//! depends on the order of the parts; whoever builds a list fixes that order.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Named parts in a fixed order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyParts(Vec<(String, String)>);

/// How one part differs between two lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Name of the part.
    pub part: String,
    /// Its value in the old list, if it was there.
    pub old: Option<String>,
    /// Its value in the new list, if it is there.
    pub new: Option<String>,
}

impl KeyParts {
    /// No parts.
    pub fn new() -> Self {
        // Most have about so many: growing costs more than all that is put in.
        Self(Vec::with_capacity(12))
    }

    /// Adds a part at the end.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// Replaces the value of a part where it stands; `false` when there is no such part.
    pub fn replace(&mut self, name: &str, value: impl Into<String>) -> bool {
        match self.0.iter_mut().find(|(part, _)| part == name) {
            Some((_, old)) => {
                *old = value.into();
                true
            }
            None => false,
        }
    }

    /// The value of a part.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(part, _)| part == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The parts in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The key: blake3 over every name and value, each behind its length (u64, little endian).
    pub fn digest(&self) -> Digest {
        let mut bytes = Prefixed::default();
        let length = |text: &String| text.len() + size_of::<u64>();
        let total = self.0.iter().map(|(a, b)| length(a) + length(b)).sum();
        bytes.0.reserve_exact(total);
        for (name, value) in &self.0 {
            bytes.push(name);
            bytes.push(value);
        }
        bytes.digest()
    }

    /// What changed from `old` to `self`: changed and added parts in the order of `self`, then
    /// those that are gone.
    pub fn since(&self, old: &Self) -> Vec<Difference> {
        let before: BTreeMap<_, _> = old.iter().collect();
        let now: BTreeMap<_, _> = self.iter().collect();
        let changed = self
            .iter()
            .filter(|(name, value)| before.get(name) != Some(value));
        let gone = old.iter().filter(|(name, _)| !now.contains_key(name));
        changed
            .map(|(name, value)| (name, before.get(name).copied(), Some(value)))
            .chain(gone.map(|(name, value)| (name, Some(value), None)))
            .map(|(part, old, new)| Difference {
                part: part.to_owned(),
                old: old.map(str::to_owned),
                new: new.map(str::to_owned),
            })
            .collect()
    }
}

/// What is hashed: names and values, each behind its length, in one piece.
#[derive(Default)]
pub(crate) struct Prefixed(Vec<u8>);

impl Prefixed {
    pub(crate) fn push(&mut self, text: &str) {
        self.0.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn digest(&self) -> Digest {
        // The context is hashed once a process: a plan of 10,000 stages makes 20,000 digests of a
        // few hundred bytes.
        static CONTEXT: LazyLock<blake3::Hasher> =
            LazyLock::new(|| blake3::Hasher::new_derive_key("tunesmith 2026 key parts"));
        let mut hasher = CONTEXT.clone();
        hasher.update(&self.0);
        Digest::from_hasher(&hasher)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(pairs: &[(String, String)]) -> KeyParts {
        let mut parts = KeyParts::new();
        for (name, value) in pairs {
            parts.push(name, value);
        }
        parts
    }

    #[test]
    fn the_digest_of_a_list_is_pinned() {
        let list = parts(&[
            ("kind".into(), "train".into()),
            ("with.lr".into(), "0.0002".into()),
        ]);
        assert_eq!(list.digest().short(), "c0f5b7bc7f23");
    }

    #[test]
    fn a_difference_names_what_changed_came_and_went() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let old = parts(&[
            pair("kind", "train"),
            pair("with.lr", "0.1"),
            pair("pin", "a"),
        ]);
        let new = parts(&[
            pair("kind", "train"),
            pair("with.lr", "0.2"),
            pair("env.X", "1"),
        ]);
        let told: Vec<_> = new
            .since(&old)
            .into_iter()
            .map(|d| format!("{}: {:?} -> {:?}", d.part, d.old, d.new))
            .collect();
        assert_eq!(
            told,
            [
                r#"with.lr: Some("0.1") -> Some("0.2")"#,
                r#"env.X: None -> Some("1")"#,
                r#"pin: Some("a") -> None"#,
            ]
        );
        assert_eq!(new.since(&new), []);
    }

    proptest! {
        /// Two different lists never share a digest: moving a byte over any border shows.
        #[test]
        fn digests_tell_lists_apart(
            a in prop::collection::vec(("[ab]{0,2}", "[ab]{0,2}"), 0..4),
            b in prop::collection::vec(("[ab]{0,2}", "[ab]{0,2}"), 0..4),
        ) {
            prop_assert_eq!(parts(&a) == parts(&b), parts(&a).digest() == parts(&b).digest());
        }

        #[test]
        fn a_list_survives_json(pairs in prop::collection::vec((".*", ".*"), 0..6)) {
            let list = parts(&pairs);
            let text = serde_json::to_string(&list).unwrap();
            let back: KeyParts = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back.digest(), list.digest());
            prop_assert_eq!(back, list);
        }
    }
}
