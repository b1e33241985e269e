//! `adapter_config.json`: what it must say, and what the service's engine cannot do.

use std::path::Path;

use serde_json::Value;

use crate::contract::Fault;

use super::super::models::{self, MODEL_TYPES, MOST_RANK};
use super::{CONFIG, fault, rank_fault};

/// What is used of the file.
pub(super) struct Config {
    pub(super) rank: u64,
    pub(super) alpha: f64,
    pub(super) model_type: Option<String>,
    /// Suffixes of the adapted layers, when they are listed.
    pub(super) targets: Vec<String>,
}

/// Keys that change the maths in ways only PEFT itself knows, with the values that do not.
const FEATURES: [(&str, &str); 14] = [
    ("use_rslora", "rank-stabilised scaling"),
    ("use_dora", "DoRA"),
    ("use_qalora", "QA-LoRA"),
    ("use_bdlora", "block-diagonal LoRA"),
    ("lora_bias", "biases"),
    ("fan_in_fan_out", "transposed layers"),
    ("modules_to_save", "fully trained modules"),
    ("rank_pattern", "ranks by layer"),
    ("alpha_pattern", "alphas by layer"),
    ("layer_replication", "replicated layers"),
    ("target_parameters", "adapted parameters"),
    ("trainable_token_indices", "trained tokens"),
    ("alora_invocation_tokens", "activated LoRA"),
    ("arrow_config", "arrow routing"),
];

/// Reads and judges the file. `None` when it cannot be read at all.
pub(super) fn read(path: &Path, model: Option<&str>, faults: &mut Vec<Fault>) -> Option<Config> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
    let value = text
        .and_then(|text| serde_json::from_str::<Value>(&text).map_err(|error| error.to_string()));
    let value = match value {
        Ok(value) => value,
        Err(error) => {
            faults.push(fault(
                "bad-config",
                format!("`{}`: {error}", path.display()),
                "export the adapter again",
            ));
            return None;
        }
    };
    let (rank, alpha) = (value["r"].as_u64(), value["lora_alpha"].as_f64());
    let is_lora = value["peft_type"] == "LORA";
    let (true, Some(rank), Some(alpha)) = (is_lora, rank, alpha) else {
        faults.push(fault(
            "bad-config",
            format!("`{CONFIG}` does not describe a LoRA adapter: it needs `peft_type` LORA, `r` and `lora_alpha`"),
            "export the adapter again",
        ));
        return None;
    };
    let model_type = value["model_type"].as_str().map(str::to_owned);
    if let Some(model) = model {
        if rank > MOST_RANK {
            faults.push(rank_fault(rank));
        }
        faults.extend(wrong_type(model_type.as_deref(), model));
        faults.extend(unserved(&value));
    }
    let targets = value["target_modules"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    Some(Config {
        rank,
        alpha,
        model_type,
        targets: targets
            .iter()
            .filter_map(|name| Some(name.as_str()?.to_owned()))
            .collect(),
    })
}

fn wrong_type(found: Option<&str>, model: &str) -> Option<Fault> {
    let known = MODEL_TYPES.join("`, `");
    let expected = models::model_type(model);
    let (message, mend) = match (found, expected) {
        (None, _) => (
            format!("`{CONFIG}` lacks `model_type`; the service loads nothing without it"),
            format!(
                "set it in `export` to {}",
                expected.map_or(format!("one of `{known}`"), |name| format!("`{name}`"))
            ),
        ),
        (Some(found), _) if !MODEL_TYPES.contains(&found) => (
            format!("`model_type` is `{found}`; the service knows `{known}`"),
            "train on a base of one of these families".to_owned(),
        ),
        (Some(found), Some(expected)) if found != expected => (
            format!("`model_type` is `{found}`, and `{model}` is a `{expected}` model"),
            "upload to the model the adapter was trained for".to_owned(),
        ),
        _ => return None,
    };
    Some(fault("model-type", message, mend))
}

/// One fault for every feature that is on.
fn unserved(value: &Value) -> Vec<Fault> {
    let off = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    let mut on: Vec<_> = FEATURES
        .iter()
        .filter(|(key, _)| !off(&value[*key]))
        .map(|(key, what)| format!("{what} (`{key}`)"))
        .collect();
    if value["bias"].as_str().is_some_and(|bias| bias != "none") {
        on.push("trained biases (`bias`)".to_owned());
    }
    on.iter()
        .map(|what| {
            fault(
                "unsupported-feature",
                format!("the adapter uses {what}, which the service cannot apply"),
                "train a plain LoRA adapter",
            )
        })
        .collect()
}
