//! `rank_pattern` and `alpha_pattern`: values for modules that are named by the end of their path.
//!
//! peft takes each key as a regular expression and lets the first that matches win, in an order that
//! saving sorts anew. Here a key is a plain path (`q_proj`, `layers.3.mlp.up_proj`), and two that match one
//! module are refused: what is written has one meaning, and peft reads the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};

/// The value for `module`, where a key names it.
pub(crate) fn find<T: Copy>(pattern: &BTreeMap<String, T>, module: &str) -> Option<T> {
    let mut named = pattern.iter().filter(|(key, _)| names(key, module));
    named.next().map(|(_, value)| *value)
}

/// Whether a target or a pattern's key names a module: the whole path, or its end from a dot on.
pub(crate) fn names(key: &str, module: &str) -> bool {
    module
        .strip_suffix(key)
        .is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Every key names a module, and no module has two keys. `setting` is the pattern's own name.
pub(crate) fn check<T>(
    setting: &str,
    pattern: &BTreeMap<String, T>,
    modules: &[String],
) -> Result<()> {
    let mut used = BTreeSet::new();
    for module in modules {
        let keys: Vec<&String> = pattern.keys().filter(|key| names(key, module)).collect();
        if let [first, second, ..] = keys.as_slice() {
            return Err(Error::Config {
                what: format!("`{setting}` has two keys for `{module}`: `{first}` and `{second}`"),
                mend: "let each key name layers of its own, such as `layers.0.self_attn.q_proj`"
                    .to_owned(),
            });
        }
        used.extend(keys);
    }
    match pattern.keys().find(|key| !used.contains(key)) {
        Some(key) => Err(Error::Config {
            what: format!("`{setting}` names `{key}`, and no adapted layer is called that"),
            mend: "a key is the end of a layer's path, such as `q_proj` or `layers.3.mlp.up_proj`"
                .to_owned(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(keys: &[&str]) -> BTreeMap<String, usize> {
        keys.iter()
            .zip(1..)
            .map(|(key, value)| ((*key).to_owned(), value))
            .collect()
    }

    #[test]
    fn a_key_is_the_end_of_a_path() {
        let module = "model.layers.13.self_attn.q_proj";
        for key in [
            "q_proj",
            "self_attn.q_proj",
            "layers.13.self_attn.q_proj",
            module,
        ] {
            assert_eq!(find(&pattern(&[key]), module), Some(1), "{key}");
        }
        for key in [
            "proj",
            "layers.3.self_attn.q_proj",
            "k_proj",
            "x.model.layers.13.self_attn.q_proj",
        ] {
            assert_eq!(find(&pattern(&[key]), module), None, "{key}");
        }
    }

    #[test]
    fn two_keys_for_one_module_and_a_key_for_none_are_named() {
        let modules = [
            "layers.0.mlp.up_proj".to_owned(),
            "layers.1.mlp.up_proj".to_owned(),
        ];
        let fault = |keys: &[&str]| {
            check("rank_pattern", &pattern(keys), &modules)
                .err()
                .map(|e| e.to_string())
        };
        assert_eq!(
            fault(&["layers.0.mlp.up_proj", "layers.1.mlp.up_proj"]),
            None
        );
        assert_eq!(
            fault(&["up_proj", "layers.1.mlp.up_proj"]).unwrap(),
            "`rank_pattern` has two keys for `layers.1.mlp.up_proj`: `layers.1.mlp.up_proj` and `up_proj`"
        );
        assert_eq!(
            fault(&["up_porj"]).unwrap(),
            "`rank_pattern` names `up_porj`, and no adapted layer is called that"
        );
    }
}
