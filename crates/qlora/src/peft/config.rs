//! `adapter_config.json`: the keys that all readers since peft 0.10 know, and `model_type`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::pattern;
use crate::error::{Error, Result};

/// What a LoRA adapter says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdapterConfig {
    pub r: usize,
    /// The product is scaled by `alpha / r`.
    pub alpha: f64,
    /// Used in training only; kept so that a continued run starts from it.
    pub dropout: f64,
    /// Suffixes of the adapted modules, sorted (`down_proj`, ...).
    pub target_modules: Vec<String>,
    /// `layers_to_transform`; none: all of them.
    pub layers: Option<Vec<usize>>,
    /// Ranks of modules that are named by the end of their path.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas, likewise.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// `use_rslora`: scaled by `alpha / sqrt(r)`.
    pub rslora: bool,
    /// `base_model_name_or_path`.
    pub base_model: Option<String>,
    /// `mistral`, `gemma` or `llama`: asked for by Workers AI, unknown to peft, which does not mind.
    pub model_type: Option<String>,
}

impl AdapterConfig {
    /// The rank of a module's pair.
    pub fn rank(&self, module: &str) -> usize {
        pattern::find(&self.rank_pattern, module).unwrap_or(self.r)
    }

    /// What the product of a module's factors is multiplied by.
    pub fn scale(&self, module: &str) -> f32 {
        let alpha = pattern::find(&self.alpha_pattern, module).unwrap_or(self.alpha);
        let rank = self.rank(module) as f64;
        (alpha / if self.rslora { rank.sqrt() } else { rank }) as f32
    }

    pub(super) fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let mend = "export the adapter again with plain peft LoRA";
        let root: Value =
            serde_json::from_slice(&bytes).map_err(|e| Error::format(path, e.to_string(), mend))?;
        let map = root
            .as_object()
            .ok_or_else(|| Error::format(path, "it is not an object", mend))?;
        refuse(map)?;
        let missing = |key: &str| {
            Error::format(
                path,
                format!("`{key}` is missing or of the wrong type"),
                mend,
            )
        };
        let r = map
            .get("r")
            .and_then(Value::as_u64)
            .filter(|r| *r > 0)
            .ok_or_else(|| missing("r"))? as usize;
        let text = |key: &str| map.get(key).and_then(Value::as_str).map(String::from);
        let mut target_modules: Vec<String> = map
            .get("target_modules")
            .and_then(Value::as_array)
            .and_then(|list| {
                list.iter()
                    .map(|name| name.as_str().map(String::from))
                    .collect()
            })
            .ok_or_else(|| missing("target_modules"))?;
        target_modules.sort();
        target_modules.dedup();
        let whole = |value: &Value| value.as_u64().map(|n| n as usize);
        let layers = match map.get("layers_to_transform") {
            None | Some(Value::Null) => None,
            Some(Value::Array(list)) => Some(list.iter().map(whole).collect::<Option<Vec<_>>>()),
            Some(one) => Some(whole(one).map(|one| vec![one])),
        };
        let layers = layers
            .map(|layers| layers.ok_or_else(|| missing("layers_to_transform")))
            .transpose()?;
        Ok(Self {
            r,
            alpha: map
                .get("lora_alpha")
                .and_then(Value::as_f64)
                .ok_or_else(|| missing("lora_alpha"))?,
            dropout: map
                .get("lora_dropout")
                .and_then(Value::as_f64)
                .unwrap_or(0.0),
            target_modules,
            layers,
            rank_pattern: values(map, "rank_pattern", |r| whole(r).filter(|r| *r > 0))
                .ok_or_else(|| missing("rank_pattern"))?,
            alpha_pattern: values(map, "alpha_pattern", Value::as_f64)
                .ok_or_else(|| missing("alpha_pattern"))?,
            rslora: map.get("use_rslora") == Some(&Value::Bool(true)),
            base_model: text("base_model_name_or_path"),
            model_type: text("model_type"),
        })
    }

    /// Indented by two and sorted by key, as peft writes it.
    pub(super) fn to_json(&self) -> String {
        let mut targets = self.target_modules.clone();
        targets.sort();
        targets.dedup();
        let alphas: Map<String, Value> = self
            .alpha_pattern
            .iter()
            .map(|(key, alpha)| (key.clone(), number(*alpha)))
            .collect();
        let mut root = json!({
            "alpha_pattern": alphas, "auto_mapping": null, "base_model_name_or_path": self.base_model, "bias": "none",
            "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true, "layer_replication": null,
            "layers_pattern": null, "layers_to_transform": self.layers, "loftq_config": {}, "lora_alpha": number(self.alpha),
            "lora_dropout": self.dropout, "megatron_config": null, "megatron_core": "megatron.core",
            "modules_to_save": null, "peft_type": "LORA", "r": self.r, "rank_pattern": self.rank_pattern, "revision": null,
            "target_modules": targets, "task_type": "CAUSAL_LM", "use_dora": false, "use_rslora": self.rslora,
        });
        if let Some(model_type) = &self.model_type {
            root["model_type"] = json!(model_type);
        }
        root.sort_all_objects();
        serde_json::to_string_pretty(&root).expect("a JSON value is JSON")
    }
}

/// A pattern's values by key; absent is empty.
fn values<T>(
    map: &Map<String, Value>,
    key: &str,
    value: impl Fn(&Value) -> Option<T>,
) -> Option<BTreeMap<String, T>> {
    let Some(pattern) = map.get(key).filter(|pattern| !pattern.is_null()) else {
        return Some(BTreeMap::new());
    };
    let pairs = pattern.as_object()?.iter();
    pairs
        .map(|(key, v)| Some((key.clone(), value(v)?)))
        .collect()
}

/// peft writes a whole alpha as an integer, and older readers ask for one.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        json!(value as i64)
    } else {
        json!(value)
    }
}

/// Keys that are read, and those that say nothing about the maths of a LoRA adapter.
const KNOWN: &[&str] = &[
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "init_lora_weights",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "model_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "target_modules",
    "task_type",
    "use_rslora",
    "ensure_weight_tying",
    "loftq_config",
    "layers_pattern",
    "runtime_config",
    "exclude_modules",
];

/// Anything set that changes the maths and is not known here.
fn refuse(map: &Map<String, Value>) -> Result<()> {
    let mend = "train it again without: LoRA with rsLoRA, layers and patterns is what is read";
    for (key, value) in map {
        let plain = match key.as_str() {
            key if KNOWN.contains(&key) => true,
            "peft_type" => value == "LORA",
            "bias" => value == "none",
            _ => match value {
                Value::Null | Value::Bool(false) => true,
                Value::Object(inner) => inner.is_empty(),
                Value::Array(inner) => inner.is_empty(),
                _ => false,
            },
        };
        if !plain {
            return Err(Error::unsupported(key, value, mend));
        }
    }
    Ok(())
}
