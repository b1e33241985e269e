//! `adapter_config.json`: the keys that all readers since peft 0.10 know, and `model_type`.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// What a plain LoRA adapter says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    pub r: usize,
    /// The product is scaled by `alpha / r`.
    pub alpha: f64,
    /// Used in training only; kept so that a continued run starts from it.
    pub dropout: f64,
    /// Suffixes of the adapted modules, sorted (`down_proj`, ...).
    pub target_modules: Vec<String>,
    /// `base_model_name_or_path`.
    pub base_model: Option<String>,
    /// `mistral`, `gemma` or `llama`: asked for by Workers AI, unknown to peft, which does not mind.
    pub model_type: Option<String>,
}

impl AdapterConfig {
    /// What the product of the factors is multiplied by.
    pub fn scale(&self) -> f32 {
        (self.alpha / self.r as f64) as f32
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
            base_model: text("base_model_name_or_path"),
            model_type: text("model_type"),
        })
    }

    /// Indented by two and sorted by key, as peft writes it.
    pub(super) fn to_json(&self) -> String {
        let mut targets = self.target_modules.clone();
        targets.sort();
        targets.dedup();
        let mut root = json!({
            "alpha_pattern": {}, "auto_mapping": null, "base_model_name_or_path": self.base_model, "bias": "none",
            "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true, "layer_replication": null,
            "layers_pattern": null, "layers_to_transform": null, "loftq_config": {}, "lora_alpha": number(self.alpha),
            "lora_dropout": self.dropout, "megatron_config": null, "megatron_core": "megatron.core",
            "modules_to_save": null, "peft_type": "LORA", "r": self.r, "rank_pattern": {}, "revision": null,
            "target_modules": targets, "task_type": "CAUSAL_LM", "use_dora": false, "use_rslora": false,
        });
        if let Some(model_type) = &self.model_type {
            root["model_type"] = json!(model_type);
        }
        root.sort_all_objects();
        serde_json::to_string_pretty(&root).expect("a JSON value is JSON")
    }
}

/// peft writes a whole alpha as an integer, and older readers ask for one.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        json!(value as i64)
    } else {
        json!(value)
    }
}

/// Keys that say nothing about the maths of a plain LoRA adapter.
const NEUTRAL: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "init_lora_weights",
    "lora_alpha",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "model_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "target_modules",
    "task_type",
    "ensure_weight_tying",
    "loftq_config",
    "layers_pattern",
    "runtime_config",
    "exclude_modules",
];

/// Anything set that plain LoRA does not have.
fn refuse(map: &Map<String, Value>) -> Result<()> {
    let mend = "only plain LoRA adapters are read";
    for (key, value) in map {
        let plain = match key.as_str() {
            key if NEUTRAL.contains(&key) => true,
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
