//! The stage against a server on this machine that behaves as recorded.

mod check;
mod deploy;
mod folder;
mod server;
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::contract::canonical;
use crate::http::testing::{Bench, environment, hasty};

pub(super) const MODEL: &str = "@cf/mistral/mistral-7b-instruct-v0.2-lora";
pub(super) const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
pub(super) const TOKEN: &str = "cf-token-of-the-tests";

pub(super) fn params(given: Value) -> Params {
    let given: BTreeMap<String, Value> = match given {
        Value::Object(map) => map.into_iter().collect(),
        other => panic!("a map, not {other}"),
    };
    canonical(params::FIELDS, &given).expect("known parameters")
}

/// Parameters for the service at `base`, with changes.
pub(super) fn given(base: &str, changes: Value) -> Value {
    let mut value = json!({
        "target": "cloudflare",
        "name": "assistant",
        "model": MODEL,
        "account": ACCOUNT,
        "api_base": format!("{base}/client/v4"),
    });
    for (name, change) in changes.as_object().expect("a map") {
        value[name] = change.clone();
    }
    value
}

pub(super) fn run(bench: &Bench, given: Value) -> Result<Outcome, StageError> {
    run_in(bench, given, &[("CLOUDFLARE_API_TOKEN", TOKEN)])
}

pub(super) fn run_in(
    bench: &Bench,
    given: Value,
    variables: &[(&str, &str)],
) -> Result<Outcome, StageError> {
    bench.run(|ctx| upload(&params(given), ctx, &environment(variables), hasty()))
}

/// A bench whose input is an adapter that fits Mistral 7B.
pub(super) fn bench() -> Bench {
    let mut bench = Bench::new();
    let folder = bench.path("adapter");
    adapter(&folder, &config(), &mistral(8));
    bench.inputs.insert("adapter".to_owned(), vec![folder]);
    bench
}

pub(super) fn config() -> Value {
    json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "model_type": "mistral",
        "r": 8, "lora_alpha": 16, "target_modules": ["k_proj", "q_proj"], "bias": "none",
        "use_rslora": false, "use_dora": false, "modules_to_save": null, "rank_pattern": {},
    })
}

/// One tensor of a test adapter: name, type, shape.
pub(super) type Entry = (String, &'static str, Vec<u64>);

pub(super) fn mistral(rank: u64) -> Vec<Entry> {
    let name = |layer: u64, suffix: &str, part: &str| {
        format!("base_model.model.model.layers.{layer}.self_attn.{suffix}.lora_{part}.weight")
    };
    let mut tensors = Vec::new();
    for (suffix, out) in [("q_proj", 4096), ("k_proj", 1024)] {
        tensors.push((name(31, suffix, "A"), "F16", vec![rank, 4096]));
        tensors.push((name(31, suffix, "B"), "F16", vec![out, rank]));
    }
    tensors
}

/// Writes an adapter folder.
pub(super) fn adapter(folder: &Path, config: &Value, tensors: &[Entry]) {
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).expect("a file");
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    for (name, dtype, shape) in tensors {
        let width = if *dtype == "F32" { 4 } else { 2 };
        let start = end;
        end += shape.iter().product::<u64>() * width;
        header.insert(
            name.clone(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}),
        );
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + end as usize, 7);
    std::fs::write(folder.join("adapter_model.safetensors"), bytes).expect("a file");
}

pub(super) fn made(bench: &Bench, name: &str) -> Value {
    serde_json::from_slice(&bench.made(name)).expect("JSON")
}

pub(super) fn site(folder: PathBuf) -> Site {
    Site {
        inputs: BTreeMap::from([("adapter".to_owned(), vec![folder])]),
        ..Site::default()
    }
}
