//! Which layers of a `config.json` have a sliding window.
//!
//! `layer_types` has the last word, as in transformers; without it each family has its own rule.

use serde_json::Value;

use super::Architecture;
use super::hf_keys::Keys;
use crate::error::{Error, Result};

/// The window of every layer.
pub(super) fn windows(
    keys: &Keys,
    architecture: Architecture,
    layers: usize,
) -> Result<Vec<Option<usize>>> {
    let window = keys.optional_size("sliding_window")?;
    let (window, local): (Option<usize>, Box<dyn Fn(usize) -> bool>) = match architecture {
        // Not a key of these: transformers would ignore it without a word.
        Architecture::Llama | Architecture::Gemma => match window {
            Some(window) => {
                return Err(Error::unsupported(
                    "sliding_window",
                    window,
                    "use a mistral model for a window",
                ));
            }
            None => (None, Box::new(|_| false)),
        },
        // An absent key means transformers' class default; a null means none.
        Architecture::Mistral if !keys.names("sliding_window") => (Some(4096), Box::new(|_| true)),
        Architecture::Mistral => (window, Box::new(move |_| window.is_some())),
        Architecture::Qwen2 | Architecture::Qwen3 => {
            if keys.flag("use_sliding_window")? == Some(true) {
                let from = keys.optional_size("max_window_layers")?.unwrap_or(28);
                let window = if keys.names("sliding_window") {
                    window
                } else {
                    Some(4096)
                };
                (
                    window,
                    Box::new(move |layer| window.is_some() && layer >= from),
                )
            } else {
                (None, Box::new(|_| false))
            }
        }
        Architecture::Gemma2 => (
            Some(window.unwrap_or(4096)),
            Box::new(|layer| layer % 2 == 0),
        ),
        Architecture::Gemma3 => {
            let pattern = keys
                .optional_size("sliding_window_pattern")?
                .or(keys.optional_size("_sliding_window_pattern")?)
                .unwrap_or(6)
                .max(1);
            (
                Some(window.unwrap_or(4096)),
                Box::new(move |layer| (layer + 1) % pattern != 0),
            )
        }
    };
    let types = keys.get("layer_types").and_then(Value::as_array);
    let Some(types) = types else {
        return Ok((0..layers)
            .map(|layer| window.filter(|_| local(layer)))
            .collect());
    };
    // These families do not read `layer_types`: it may only repeat what they do.
    let fixed = matches!(
        architecture,
        Architecture::Llama | Architecture::Mistral | Architecture::Gemma
    );
    types
        .iter()
        .enumerate()
        .map(|(layer, kind)| match (kind.as_str(), window) {
            (Some("full_attention"), _) if !(fixed && local(layer)) => Ok(None),
            (Some("sliding_attention"), Some(window)) if !fixed || local(layer) => Ok(Some(window)),
            _ => Err(Error::unsupported(
                "layer_types",
                kind,
                "use a model whose layers attend as its family's do",
            )),
        })
        .collect()
}
