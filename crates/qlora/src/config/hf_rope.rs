//! The rotary settings of a `config.json`, in the spellings of transformers 4 (`rope_theta`,
//! `rope_scaling`, `rope_local_base_freq`) and 5 (`rope_parameters`, for Gemma 3 one per kind of layer).
//!
//! Kinds of scaling that are not known here, and settings that a kind does not have, are refused by name.

use serde_json::{Map, Value};

use super::Architecture;
use super::hf_keys::Keys;
use super::rope::{Rope, RopeScaling, yarn_amplitude};
use crate::error::{Error, Result};

const KINDS: &str = "use a model with plain, linear, llama3 or yarn rope scaling";

/// The rope of layers that see everything, and of layers with a window.
pub(super) struct Ropes {
    pub(super) full: Rope,
    pub(super) local: Rope,
}

pub(super) fn ropes(keys: &Keys, architecture: Architecture) -> Result<Ropes> {
    let original = keys
        .optional_size("max_position_embeddings")?
        .unwrap_or(2048) as f64;
    let two = architecture == Architecture::Gemma3;
    // 10000 is transformers' default for every family but Gemma 3's layers that see everything.
    let theta = keys
        .optional_number("rope_theta")?
        .unwrap_or(if two { 1e6 } else { 1e4 });
    let local_theta = keys
        .optional_number("rope_local_base_freq")?
        .unwrap_or(if two { 1e4 } else { theta });
    let mut full = Rope::plain(theta);
    let mut local = Rope::plain(local_theta);
    for key in ["rope_parameters", "rope_scaling"] {
        let Some(value) = keys.get(key) else { continue };
        let map = object(key, value)?;
        match (map.get("full_attention"), map.get("sliding_attention")) {
            (None, None) => {
                full = rope(key, map, theta, original)?;
                if !two {
                    local = full;
                }
            }
            (a, b) => {
                for (kind, inner, into) in [
                    ("full_attention", a, &mut full),
                    ("sliding_attention", b, &mut local),
                ] {
                    if let Some(inner) = inner.filter(|inner| !inner.is_null()) {
                        let key = format!("{key}.{kind}");
                        *into = rope(&key, object(&key, inner)?, into.theta, original)?;
                    }
                }
                if let Some(other) = map
                    .keys()
                    .find(|name| !matches!(name.as_str(), "full_attention" | "sliding_attention"))
                {
                    return Err(Error::unsupported(
                        format!("{key}.{other}"),
                        &map[other.as_str()],
                        KINDS,
                    ));
                }
            }
        }
    }
    if !two && full != local {
        return Err(Error::unsupported(
            "rope_parameters",
            "two ropes",
            "only gemma3 models have two",
        ));
    }
    check("rope_theta", full.theta)?;
    check("rope_local_base_freq", local.theta)?;
    Ok(Ropes { full, local })
}

fn check(key: &str, theta: f64) -> Result<()> {
    if theta.is_finite() && theta > 0.0 {
        return Ok(());
    }
    Err(Error::unsupported(
        key,
        theta,
        "it must be a positive number",
    ))
}

fn object<'v>(key: &str, value: &'v Value) -> Result<&'v Map<String, Value>> {
    value
        .as_object()
        .ok_or_else(|| Error::unsupported(key, value, "it must be an object"))
}

/// One map of settings; every one of them is read or refused.
struct Settings<'a> {
    key: &'a str,
    map: &'a Map<String, Value>,
}

fn rope(key: &str, map: &Map<String, Value>, theta: f64, original: f64) -> Result<Rope> {
    let settings = Settings { key, map };
    let theta = settings.number("rope_theta")?.unwrap_or(theta);
    let kind_key = if map.contains_key("rope_type") {
        "rope_type"
    } else {
        "type"
    };
    let kind = match map.get(kind_key) {
        None | Some(Value::Null) => "default",
        Some(value) => value
            .as_str()
            .ok_or_else(|| settings.refuse(kind_key, KINDS))?,
    };
    let factor = || {
        settings
            .number("factor")?
            .filter(|factor| *factor >= 1.0)
            .ok_or_else(|| settings.refuse("factor", "a scaling factor is a number from 1"))
    };
    let original = settings
        .number("original_max_position_embeddings")?
        .unwrap_or(original);
    let (scaling, read): (RopeScaling, &[&str]) = match kind {
        "default" => (RopeScaling::None, &[]),
        "linear" => (RopeScaling::Linear { factor: factor()? }, &["factor"]),
        "llama3" => (
            RopeScaling::Llama3 {
                factor: factor()?,
                low: settings.needed("low_freq_factor")?,
                high: settings.needed("high_freq_factor")?,
                original,
            },
            &[
                "factor",
                "high_freq_factor",
                "low_freq_factor",
                "original_max_position_embeddings",
            ],
        ),
        "yarn" => (
            RopeScaling::Yarn {
                factor: factor()?,
                original,
                fast: settings.number("beta_fast")?.unwrap_or(32.0),
                slow: settings.number("beta_slow")?.unwrap_or(1.0),
                amplitude: match settings.number("attention_factor")? {
                    Some(amplitude) => amplitude,
                    None => yarn_amplitude(factor()?),
                },
                truncate: map.get("truncate").and_then(Value::as_bool).unwrap_or(true),
            },
            &[
                "attention_factor",
                "beta_fast",
                "beta_slow",
                "factor",
                "original_max_position_embeddings",
                "truncate",
            ],
        ),
        _ => return Err(settings.refuse(kind_key, KINDS)),
    };
    settings.refuse_others(read)?;
    Ok(Rope { theta, scaling })
}

impl Settings<'_> {
    fn refuse(&self, name: &str, mend: &str) -> Error {
        let value = self.map.get(name).unwrap_or(&Value::Null);
        Error::unsupported(format!("{}.{name}", self.key), value, mend)
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        match self.map.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_f64()
                .map(Some)
                .ok_or_else(|| self.refuse(name, "it must be a number")),
        }
    }

    fn needed(&self, name: &str) -> Result<f64> {
        self.number(name)?
            .ok_or_else(|| self.refuse(name, "this kind of scaling needs it"))
    }

    fn refuse_others(&self, read: &[&str]) -> Result<()> {
        for (name, value) in self.map {
            let fine = match name.as_str() {
                "rope_type" | "type" | "rope_theta" => true,
                "partial_rotary_factor" => value.as_f64() == Some(1.0),
                name => value.is_null() || read.contains(&name),
            };
            if !fine {
                return Err(self.refuse(name, KINDS));
            }
        }
        Ok(())
    }
}
