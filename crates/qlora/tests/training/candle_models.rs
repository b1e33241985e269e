//! Logits beside candle-transformers' own models, family by family, on one folder of random weights that both read.
//!
//! Where it computes otherwise than transformers, transformers is right here (`architectures`): the configurations keep
//! to what candle-transformers has, and its one difference among that is told to it and tested. A window of `w` reaches
//! `w` keys back there, the query's own not counted; in transformers the query's own counts.
//!
//! What it lacks: scores scaled by `query_pre_attn_scalar`, windows of some layers only (Gemma 2, Qwen2), linear and YaRN
//! angles, heads of Llama that are not `hidden / heads` wide, more than one key head in Gemma 3 (its cache refuses it).

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{gemma, gemma2, gemma3, llama, mistral, qwen2, qwen3};
use qlora::weights::ModelFiles;
use qlora::{Generator, Model, Quantization};
use serde_json::{Value, json};

use crate::architectures::{golden, rows, write_model};
use crate::peft_refs::distance;

/// Logits of the last of `ids` by one of candle-transformers' models.
type Theirs = fn(Value, VarBuilder<'_>, &Tensor) -> Result<Tensor>;

struct Family {
    /// The case whose weights it has.
    case: &'static str,
    /// What the configuration has otherwise, for both sides.
    both: Value,
    /// And for candle-transformers alone: keys that it reads elsewhere.
    there: Value,
    theirs: Theirs,
}

fn with(mut config: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn case(name: &str) -> Value {
    let cases = std::fs::read(golden("cases.json")).unwrap();
    serde_json::from_slice::<Value>(&cases).unwrap()[name].take()
}

fn parsed<T: serde::de::DeserializeOwned>(config: Value) -> T {
    serde_json::from_value(config).unwrap()
}

/// Gives the products around attention the sides that the configuration asks for.
fn shape_heads(case: &mut Value) {
    let side = |key: &str| case["config"][key].as_u64();
    let (hidden, heads) = (
        side("hidden_size").unwrap(),
        side("num_attention_heads").unwrap(),
    );
    let size = side("head_dim").unwrap_or(hidden / heads);
    let (queries, keys) = (heads * size, side("num_key_value_heads").unwrap() * size);
    for (name, shape) in case["weights"].as_object_mut().unwrap() {
        if name.ends_with("q_proj.weight") {
            *shape = json!([queries, hidden]);
        } else if name.ends_with("k_proj.weight") || name.ends_with("v_proj.weight") {
            *shape = json!([keys, hidden]);
        } else if name.ends_with("o_proj.weight") {
            *shape = json!([hidden, queries]);
        }
    }
}

/// Both sides' logits after each row, `window` keys wide there.
fn logits(family: &Family, window: Option<usize>) -> (Vec<f32>, Vec<f32>) {
    let mut case = case(family.case);
    case["config"] = with(case["config"].take(), &family.both);
    shape_heads(&mut case);
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), &case);
    let files = ModelFiles::open(folder.path()).unwrap();
    let mut model = Model::load(&files, Quantization::None).unwrap();
    let prompts: Vec<Vec<u32>> = rows().into_iter().map(|row| row.ids).collect();
    let generator = Generator::new(&mut model, None).unwrap();
    let ours = generator.next_logits(&prompts).unwrap().data().to_vec();

    let mut config = with(case["config"].take(), &family.there);
    if let Some(window) = window {
        config["sliding_window"] = json!(window);
    }
    let file = folder.path().join("model.safetensors");
    let weights = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let weights = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
    let theirs = prompts.iter().flat_map(|ids| {
        let ids = Tensor::new(ids.as_slice(), &Device::Cpu).unwrap();
        let ids = ids.unsqueeze(0).unwrap();
        let logits = (family.theirs)(config.clone(), weights.clone(), &ids).unwrap();
        logits.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    });
    (ours, theirs.collect())
}

fn agrees(family: &Family) {
    let window = case(family.case)["config"]["sliding_window"].as_u64();
    let (ours, theirs) = logits(family, window.map(|window| window as usize - 1));
    let far = distance(&ours, &theirs);
    assert!(far < 1e-5, "{}: logits {far}", family.case);
    if let Some(window) = window {
        let (ours, theirs) = logits(family, Some(window as usize));
        let far = distance(&ours, &theirs);
        assert!(far > 1e-3, "{}: the window no longer differs", family.case);
    }
}

fn theta() -> Value {
    json!({ "rope_theta": 1e4 })
}

#[test]
fn mistral_with_a_window() {
    agrees(&Family {
        case: "mistral",
        both: json!({}),
        there: with(theta(), &json!({ "use_flash_attn": false })),
        theirs: |config, weights, ids| {
            mistral::Model::new(&parsed(config), weights)?.forward(ids, 0)
        },
    });
}

#[test]
fn llama_with_llama3_scaling() {
    let scaling = case("llama3")["config"]["rope_parameters"].clone();
    agrees(&Family {
        case: "llama3",
        both: json!({ "head_dim": 8 }),
        there: with(theta(), &json!({ "rope_scaling": scaling })),
        theirs: |config, weights, ids| {
            let config = parsed::<llama::LlamaConfig>(config).into_config(false);
            let mut cache = llama::Cache::new(false, DType::F32, &config, &Device::Cpu)?;
            llama::Llama::load(weights, &config)?.forward(ids, 0, &mut cache)
        },
    });
}

#[test]
fn gemma_1() {
    agrees(&Family {
        case: "gemma",
        both: json!({}),
        there: theta(),
        theirs: |config, weights, ids| {
            gemma::Model::new(false, &parsed(config), weights)?.forward(ids, 0)
        },
    });
}

#[test]
fn gemma_2_with_windows_everywhere() {
    agrees(&Family {
        case: "gemma2",
        both: json!({ "query_pre_attn_scalar": 16, "layer_types": vec!["sliding_attention"; 4] }),
        there: theta(),
        theirs: |config, weights, ids| {
            gemma2::Model::new(false, &parsed(config), weights)?.forward(ids, 0)
        },
    });
}

#[test]
fn gemma_3() {
    agrees(&Family {
        case: "gemma3",
        both: json!({ "query_pre_attn_scalar": 16, "num_key_value_heads": 1, "rope_parameters": {
            "sliding_attention": { "rope_type": "default", "rope_theta": 1e4 },
            "full_attention": { "rope_type": "default", "rope_theta": 1e6 },
        } }),
        there: json!({ "rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window_pattern": 3 }),
        theirs: |config, weights, ids| {
            gemma3::Model::new(false, &parsed(config), weights)?.forward(ids, 0)
        },
    });
}

#[test]
fn qwen2_with_windows_everywhere() {
    agrees(&Family {
        case: "qwen2",
        both: json!({
            "rope_parameters": { "rope_type": "default", "rope_theta": 1e4 },
            "max_window_layers": 0, "layer_types": vec!["sliding_attention"; 4],
        }),
        there: theta(),
        theirs: |config, weights, ids| {
            qwen2::ModelForCausalLM::new(&parsed(config), weights)?.forward(ids, 0)
        },
    });
}

#[test]
fn qwen3_tied() {
    agrees(&Family {
        case: "qwen3",
        both: json!({}),
        there: theta(),
        theirs: |config, weights, ids| {
            qwen3::ModelForCausalLM::new(&parsed(config), weights)?.forward(ids, 0)
        },
    });
}
