//! What is refused before a byte is sent.

use serde_json::{Value, json};

use super::{Entry, MODEL, adapter, bench, config, given, mistral, params, run, site};
use crate::contract::{Params, Site, Stage};
use crate::http::testing::Bench;
use crate::upload::Upload;

fn faults_of(config: &Value, tensors: &[Entry]) -> Vec<String> {
    let bench = Bench::new();
    let folder = bench.path("adapter");
    adapter(&folder, config, tensors);
    let found = Upload.check(
        &params(given("https://api.example", json!({}))),
        &site(folder),
    );
    found.iter().map(|fault| fault.code.clone()).collect()
}

#[test]
fn a_fitting_adapter_passes() {
    assert!(faults_of(&config(), &mistral(8)).is_empty());
}

#[test]
fn every_trap_has_its_name() {
    let with = |name: &str, value: Value| {
        let mut changed = config();
        changed[name] = value;
        changed
    };
    let mut bare = config();
    bare.as_object_mut().expect("a map").remove("model_type");
    let retyped = |dtype| {
        mistral(8)
            .into_iter()
            .map(|(name, _, shape)| (name, dtype, shape))
            .collect::<Vec<_>>()
    };
    let renamed = |from: &str, to: &str| {
        mistral(8)
            .into_iter()
            .map(|(name, dtype, shape)| (name.replace(from, to), dtype, shape))
            .collect::<Vec<_>>()
    };
    let cases: Vec<(Value, Vec<Entry>, Vec<&str>)> = vec![
        (
            with("r", json!(64)),
            mistral(64),
            vec!["upload::rank-too-high"],
        ),
        (
            with("r", json!(16)),
            mistral(8),
            vec!["upload::rank-mismatch"],
        ),
        (bare, mistral(8), vec!["upload::model-type"]),
        (
            with("model_type", json!("qwen2")),
            mistral(8),
            vec!["upload::model-type"],
        ),
        (
            with("model_type", json!("llama")),
            mistral(8),
            vec!["upload::model-type"],
        ),
        (
            with("use_rslora", json!(true)),
            mistral(8),
            vec!["upload::unsupported-feature"],
        ),
        (
            with("use_dora", json!(true)),
            mistral(8),
            vec!["upload::unsupported-feature"],
        ),
        (
            with("modules_to_save", json!(["lm_head"])),
            mistral(8),
            vec!["upload::unsupported-feature"],
        ),
        (
            with("rank_pattern", json!({"q_proj": 4})),
            mistral(8),
            vec!["upload::unsupported-feature"],
        ),
        (
            with("bias", json!("all")),
            mistral(8),
            vec!["upload::unsupported-feature"],
        ),
        (
            with("peft_type", json!("IA3")),
            mistral(8),
            vec!["upload::bad-config"],
        ),
        (
            with("target_modules", json!(["q_proj"])),
            mistral(8),
            vec!["upload::target-mismatch"],
        ),
        (config(), retyped("F32"), vec!["upload::dtype"]),
        (config(), mistral(8)[..3].to_vec(), vec!["upload::unpaired"]),
        (
            config(),
            renamed("layers.31", "layers.32"),
            vec!["upload::base-mismatch"],
        ),
        (
            config(),
            renamed("base_model.model.model.", "model."),
            vec!["upload::foreign-tensor"],
        ),
        (config(), vec![], vec!["upload::no-tensors"]),
    ];
    for (config, tensors, expected) in cases {
        assert_eq!(faults_of(&config, &tensors), expected, "{config}");
    }
}

/// What peft itself writes by default: 32-bit weights, and here a tiny base.
#[test]
fn an_adapter_as_peft_saves_it() {
    let header: Value =
        serde_json::from_str(include_str!("golden/peft-header.json")).expect("JSON");
    let config: Value =
        serde_json::from_str(include_str!("golden/peft-config.json")).expect("JSON");
    let entries = header
        .as_object()
        .expect("a map")
        .iter()
        .filter(|(name, _)| *name != "__metadata__");
    let tensors: Vec<Entry> = entries
        .map(|(name, entry)| {
            let shape = entry["shape"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|size| size.as_u64().expect("a size"));
            (name.clone(), "F32", shape.collect())
        })
        .collect();
    assert_eq!(tensors.len(), 56);
    assert_eq!(
        faults_of(&config, &tensors),
        ["upload::dtype", "upload::base-mismatch"]
    );
    let half: Vec<Entry> = tensors
        .into_iter()
        .map(|(name, _, shape)| (name, "BF16", shape))
        .collect();
    assert_eq!(faults_of(&config, &half), ["upload::base-mismatch"]);
}

#[test]
fn faults_come_together_and_say_what_to_do() {
    let bench = Bench::new();
    let folder = bench.path("adapter");
    let mut changed = config();
    changed["r"] = json!(64);
    changed["model_type"] = json!("gemma");
    adapter(&folder, &changed, &mistral(64));
    let found = Upload.check(
        &params(given("https://api.example", json!({}))),
        &site(folder.clone()),
    );
    let told: Vec<_> = found
        .iter()
        .map(|fault| format!("{}: {} / {}", fault.field, fault.message, fault.mend))
        .collect();
    assert_eq!(
        told,
        [
            "inputs.adapter: the adapter's rank is 64; the service takes at most 32 / train with `r: 32` or less",
            "inputs.adapter: `model_type` is `gemma`, and `@cf/mistral/mistral-7b-instruct-v0.2-lora` is a `mistral` model / upload to the model the adapter was trained for",
        ]
    );
    let weights = folder.join("adapter_model.safetensors");
    let bytes = std::fs::read(&weights).expect("a file");
    std::fs::write(&weights, &bytes[..bytes.len() - 5]).expect("a file");
    std::fs::write(folder.join("adapter_config.json"), "{").expect("a file");
    let found = Upload.check(
        &params(given("https://api.example", json!({}))),
        &site(folder),
    );
    let codes: Vec<_> = found.iter().map(|fault| fault.code.as_str()).collect();
    assert_eq!(codes, ["upload::bad-config", "upload::bad-weights"]);
    let size = bytes.len();
    assert!(
        found[1]
            .message
            .ends_with(&format!("it should have {size} bytes and has {}", size - 5))
    );
}

#[test]
fn a_folder_without_an_adapter_is_explained() {
    let bench = Bench::new();
    let folder = bench.path("merged");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("model.safetensors"), "").expect("a file");
    let found = Upload.check(
        &params(given("https://api.example", json!({}))),
        &site(folder),
    );
    assert_eq!(found.len(), 2);
    assert!(
        found[1].mend.contains("merged weights"),
        "{}",
        found[1].mend
    );
}

#[test]
fn a_rank_above_the_limit_is_known_before_the_training() {
    use crate::contract::{Field, FieldType, canonical};
    const TRAIN: &[Field] = &[Field {
        name: "r",
        kind: FieldType::Int(1, 256),
        default: Some("16"),
        about: "rank",
    }];
    let faults = |rank: Value| {
        let above: Params = canonical(TRAIN, &[("r".to_owned(), rank)].into()).expect("a rank");
        let upstream = vec![
            ("export".to_owned(), Params::default()),
            ("train".to_owned(), above),
        ];
        let site = Site {
            upstream: [("adapter".to_owned(), upstream)].into(),
            ..Site::default()
        };
        Upload
            .check(&params(given("https://api.example", json!({}))), &site)
            .len()
    };
    assert_eq!(
        (faults(json!(64)), faults(json!(32)), faults(json!(16))),
        (1, 0, 0)
    );
}

#[test]
fn parameters_are_checked_together() {
    for (value, expected) in [
        (
            json!({"target": "cloudflare"}),
            vec!["config::missing-field", "config::missing-field"],
        ),
        (json!({"target": "folder"}), vec!["config::missing-field"]),
        (
            json!({"target": "folder", "folder": "x", "account": "y", "limit": 9}),
            vec!["upload::unused", "upload::unused"],
        ),
        (
            json!({"target": "cloudflare", "name": "My Adapter", "model": "mistral", "api_base": "http://api.example/client/v4"}),
            vec![
                "upload::insecure-api",
                "upload::bad-model",
                "upload::bad-name",
            ],
        ),
        (
            json!({"target": "cloudflare", "name": "cf-public-x", "model": MODEL}),
            vec!["upload::bad-name"],
        ),
        (
            json!({"target": "cloudflare", "name": "x", "model": MODEL, "api_base": "http://127.0.0.1.evil.example"}),
            vec!["upload::insecure-api"],
        ),
    ] {
        let found = Upload.check(&params(value.clone()), &Site::default());
        let codes: Vec<_> = found.iter().map(|fault| fault.code.as_str()).collect();
        assert_eq!(codes, expected, "{value}");
    }
}

#[test]
fn a_run_on_a_bad_adapter_sends_nothing() {
    let bench = bench();
    let mut changed = config();
    changed["use_dora"] = json!(true);
    adapter(&bench.path("adapter"), &changed, &mistral(8));
    let error = run(&bench, given("http://127.0.0.1:9", json!({}))).expect_err("DoRA");
    assert_eq!(error.code, "upload::unsupported-feature");
    assert_eq!(error.field, "inputs.adapter");
}
