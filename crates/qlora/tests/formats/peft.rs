//! PEFT folders against peft's own: names, shapes, keys, bytes, and a merge that peft made.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use qlora::peft::merge;
use qlora::{AdapterConfig, Dtype, LoraPair, Matrix, ModelFiles, PeftAdapter};
use serde_json::{Value, json};

use crate::support::{Golden, golden, json_file};

/// Tensor names with type and shape, and the metadata, of a safetensors file.
fn header(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    for (_, tensor) in header.as_object_mut().unwrap() {
        tensor.as_object_mut().unwrap().remove("data_offsets");
    }
    header
}

#[test]
fn an_adapter_of_peft_is_read_and_written_back_byte_for_byte() {
    for name in ["peft_tiny4_cf", "peft-refs/tiny_lora"] {
        let adapter = PeftAdapter::load(&golden(name)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        adapter.save(folder.path(), Dtype::F32).unwrap();
        let (ours, theirs) = (
            folder.path().join("adapter_model.safetensors"),
            golden(name).join("adapter_model.safetensors"),
        );
        assert_eq!(header(&ours), header(&theirs), "{name}");
        assert!(
            std::fs::read(&ours).unwrap() == std::fs::read(&theirs).unwrap(),
            "{name}: bytes differ"
        );
        assert_eq!(PeftAdapter::load(folder.path()).unwrap(), adapter);
    }
}

#[test]
fn the_config_has_pefts_keys_and_values_and_the_model_type() {
    let adapter = PeftAdapter::load(&golden("peft_tiny4_cf")).unwrap();
    assert_eq!(
        (
            adapter.config.r,
            adapter.config.alpha,
            adapter.config.scale("model.layers.0.self_attn.q_proj")
        ),
        (16, 32.0, 2.0)
    );
    assert_eq!(adapter.config.model_type.as_deref(), Some("mistral"));
    let folder = tempfile::tempdir().unwrap();
    adapter.save(folder.path(), Dtype::Bf16).unwrap();
    let ours = json_file(&folder.path().join("adapter_config.json"));
    let theirs = json_file(&golden("peft_tiny4_cf/adapter_config.json"));
    let suffixes: BTreeSet<&str> = theirs["target_modules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    for (key, value) in ours.as_object().unwrap() {
        if key == "target_modules" {
            // Sorted, where peft writes a set in any order.
            assert_eq!(value, &json!(suffixes));
        } else {
            assert_eq!(value, &theirs[key], "{key}");
            assert!(theirs.get(key).is_some(), "{key} is not a key of peft");
        }
    }
    let keys: Vec<&String> = ours.as_object().unwrap().keys().collect();
    assert!(keys.is_sorted());
    assert_eq!(keys.len(), 25);
}

#[test]
fn sixteen_bit_tensors_are_half_the_size_and_nearest() {
    let adapter = PeftAdapter::load(&golden("peft-refs/tiny_lora")).unwrap();
    for dtype in [Dtype::F16, Dtype::Bf16] {
        let folder = tempfile::tempdir().unwrap();
        adapter.save(folder.path(), dtype).unwrap();
        let read = PeftAdapter::load(folder.path()).unwrap();
        for (module, pair) in &adapter.pairs {
            let rounded: Vec<f32> = pair.b.data().iter().map(|v| dtype.round(*v)).collect();
            assert_eq!(read.pairs[module].b.data(), rounded, "{module}");
        }
        assert_eq!(adapter.size(dtype) * 2, adapter.size(Dtype::F32));
    }
}

#[test]
fn merging_gives_the_weights_that_peft_merged() {
    let base = ModelFiles::open(golden("peft-refs/tiny_f32")).unwrap();
    let adapter = PeftAdapter::load(&golden("peft-refs/tiny_lora")).unwrap();
    let merged = Golden::open("peft-refs/tiny_merged_f32.safetensors");
    assert_eq!(adapter.pairs.len(), 14);
    for (module, pair) in &adapter.pairs {
        let name = format!("{module}.weight");
        let mut weight = base.tensor(&name).unwrap();
        merge(&mut weight, pair, adapter.config.scale(module)).unwrap();
        for (ours, theirs) in weight.data().iter().zip(merged.floats(&name)) {
            assert!((ours - theirs).abs() <= 1e-6, "{name}: {ours} {theirs}");
        }
    }
}

#[test]
fn what_changes_the_maths_and_is_not_known_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let config = json_file(&golden("peft_tiny4_cf/adapter_config.json"));
    std::fs::copy(
        golden("peft_tiny4_cf/adapter_model.safetensors"),
        folder.path().join("adapter_model.safetensors"),
    )
    .unwrap();
    for (key, value, shown) in [
        ("use_dora", json!(true), "`use_dora: true`"),
        (
            "modules_to_save",
            json!(["lm_head"]),
            "`modules_to_save: [\"lm_head\"]`",
        ),
        ("bias", json!("all"), "`bias: \"all\"`"),
        ("lora_bias", json!(true), "`lora_bias: true`"),
        ("peft_type", json!("LOHA"), "`peft_type: \"LOHA\"`"),
    ] {
        let mut broken = config.clone();
        broken[key] = value;
        std::fs::write(
            folder.path().join("adapter_config.json"),
            broken.to_string(),
        )
        .unwrap();
        let error = PeftAdapter::load(folder.path()).unwrap_err();
        assert_eq!(error.to_string(), format!("{shown} is not supported"));
    }
    let mut broken = config.clone();
    broken["r"] = json!(8);
    std::fs::write(
        folder.path().join("adapter_config.json"),
        broken.to_string(),
    )
    .unwrap();
    let error = PeftAdapter::load(folder.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("expected [8, in] and [out, 8], found [16, in] and [out, 16]"),
        "{error}"
    );
}

/// What peft writes for rsLoRA, patterns and layers comes back as it was, key for key.
#[test]
fn the_options_that_peft_saved_are_read_and_written_alike() {
    for case in ["subset", "layers", "rslora", "patterns", "patterns_rslora"] {
        let theirs = golden(&format!("peft-options/{case}"));
        let adapter = PeftAdapter::load(&theirs).unwrap();
        let folder = tempfile::tempdir().unwrap();
        adapter.save(folder.path(), Dtype::F32).unwrap();
        assert_eq!(PeftAdapter::load(folder.path()).unwrap(), adapter, "{case}");
        let (ours, theirs) = (
            json_file(&folder.path().join("adapter_config.json")),
            json_file(&theirs.join("adapter_config.json")),
        );
        for key in [
            "r",
            "lora_alpha",
            "rank_pattern",
            "alpha_pattern",
            "use_rslora",
            "layers_to_transform",
        ] {
            assert_eq!(ours[key], theirs[key], "{case}: {key}");
        }
    }
}

#[test]
fn patterns_give_each_module_its_rank_and_scale() {
    let config = PeftAdapter::load(&golden("peft-options/patterns_rslora"))
        .unwrap()
        .config;
    let of = |module: &str| (config.rank(module), config.scale(module));
    assert_eq!(
        of("model.layers.0.self_attn.q_proj"),
        (2, (8.0 / 2f64.sqrt()) as f32)
    );
    assert_eq!(of("model.layers.0.self_attn.o_proj"), (4, 8.0));
    assert_eq!(of("model.layers.1.self_attn.o_proj"), (4, 4.0));
    assert_eq!(
        of("model.layers.1.mlp.down_proj"),
        (8, (8.0 / 8f64.sqrt()) as f32)
    );
}

#[test]
fn values_that_sixteen_bits_cannot_hold_are_refused() {
    let pair = LoraPair {
        a: Matrix::new(1, 2, vec![1.0, 70000.0]),
        b: Matrix::zeros(2, 1),
    };
    let config = AdapterConfig {
        r: 1,
        alpha: 2.5,
        dropout: 0.0,
        target_modules: vec!["q_proj".into()],
        ..AdapterConfig::default()
    };
    let adapter = PeftAdapter {
        config,
        pairs: BTreeMap::from([("model.layers.0.self_attn.q_proj".into(), pair)]),
    };
    let folder = tempfile::tempdir().unwrap();
    let error = adapter
        .save(folder.path(), Dtype::F16)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("expected values that float16 holds, found 70000"),
        "{error}"
    );
    assert!(
        std::fs::read_dir(folder.path()).unwrap().next().is_none(),
        "nothing is written"
    );
    adapter.save(folder.path(), Dtype::Bf16).unwrap();
    assert_eq!(PeftAdapter::load(folder.path()).unwrap().config.alpha, 2.5);
}
