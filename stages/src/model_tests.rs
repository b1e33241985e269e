//! Train, eval and export on the random tiny model: every promise that needs no knowledge.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::StageEvent;
use crate::eval::Eval;
use crate::export::Export;
use crate::testing::Bench;
use crate::train::Train;

pub(crate) const ROWS: &str = r#"{"id":"a","source":"hand","type":"single","now":"2026-03-02T09:00","messages":[{"role":"user","content":"call john"},{"role":"assistant","content":"I'll add it.","calls":[{"tool":"createTask","params":{"title":"Call John"}}]}]}
{"id":"b","source":"hand","type":"negative","messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"Hello!"}]}
{"id":"c","source":"hand","type":"single","messages":[{"role":"user","content":"drop task_1"},{"role":"assistant","content":"I'll delete it.","calls":[{"tool":"deleteTask","params":{"id":"task_1"}}]},{"role":"tool","content":{"ok":true}},{"role":"assistant","content":"Gone."}]}
"#;

const PROMPTS: &str = r#"{"id":"p1","category":"single","messages":[{"role":"user","content":"call john"}],"expect":[{"tool":"createTask","params":{"title":{"contains":"john"}}}]}
{"id":"p2","category":"negative","messages":[{"role":"user","content":"hello"}],"expect":[]}
"#;

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/smoke-model")
}

pub(crate) fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.tools();
    bench.inputs.insert("base".to_owned(), vec![model()]);
    bench
}

pub(crate) fn trained(with: Value) -> Bench {
    let mut bench = bench();
    bench
        .give("train", "train.jsonl", ROWS)
        .give("val", "val.jsonl", ROWS);
    bench.run(&Train, with).expect("it trains");
    bench
}

fn short() -> Value {
    json!({ "epochs": 3, "batch": 2, "lr": 5e-3, "r": 4, "alpha": 8, "samples": ["hi"] })
}

#[test]
fn training_learns_and_tells() {
    let bench = trained(short());
    let report = bench.json("report.json");
    let loss = |at: usize| report["steps"][at]["loss"].as_f64().unwrap();
    assert!(loss(5) < loss(0), "{report}");
    assert!(report["tokens"]["computed"].as_u64() < report["tokens"]["without_sharing"].as_u64());
    let events = bench.events.lock().unwrap();
    assert!(
        events
            .iter()
            .any(|event| matches!(event, StageEvent::Sample { prompt, .. } if prompt == "hi"))
    );
    assert!(
        events
            .iter()
            .any(|event| matches!(event, StageEvent::Metric { name, .. } if name == "val.loss"))
    );
}

#[test]
fn the_same_inputs_give_the_same_adapter() {
    let read = |bench: &Bench| {
        std::fs::read(bench.out().join("adapter/adapter_model.safetensors")).unwrap()
    };
    assert_eq!(read(&trained(short())), read(&trained(short())));
}

#[test]
fn a_row_that_is_too_long_is_named_and_never_cut() {
    let mut bench = bench();
    bench.give("train", "train.jsonl", ROWS);
    let error = bench.run(&Train, json!({ "context": 64 })).unwrap_err();
    assert_eq!(error.code, "train::row-too-long");
    assert!(
        error.message.contains("train.jsonl:1 `a`"),
        "{}",
        error.message
    );
    assert!(
        error.message.contains("train.jsonl:3 `c`"),
        "{}",
        error.message
    );
}

#[test]
fn an_adapter_of_another_shape_is_refused() {
    let trained = trained(json!({ "max_steps": 1, "r": 2 }));
    let folder = trained.out().join("adapter");
    let weights = folder.join("adapter_model.safetensors");
    let config = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap();
    std::fs::write(
        folder.join("adapter_config.json"),
        config.replace("\"r\": 2", "\"r\": 4"),
    )
    .unwrap();
    assert!(weights.exists());
    let mut bench = bench();
    bench.give("prompts", "prompts.jsonl", PROMPTS);
    bench.inputs.insert("adapter".to_owned(), vec![folder]);
    let error = bench
        .run(&Eval, json!({ "max_new_tokens": 4 }))
        .unwrap_err();
    assert!(
        ["adapter::base-mismatch", "qlora::shape", "qlora::format"].contains(&error.code.as_str()),
        "{error:?}"
    );
}

#[test]
fn eval_scores_a_model_that_knows_nothing() {
    let mut bench = bench();
    bench.give("prompts", "prompts.jsonl", PROMPTS);
    let outcome = bench
        .run(&Eval, json!({ "max_new_tokens": 12 }))
        .expect("it answers");
    assert_eq!(outcome.metrics["tool_selection"], 0.0);
    assert_eq!(outcome.metrics["valid_json"], 0.0);
    let report = bench.json("report.json");
    assert_eq!(report["metrics"]["tool_selection"]["of"], 1);
    assert_eq!(bench.text("transcripts.jsonl").lines().count(), 2);
    let again = bench.text("transcripts.jsonl");
    bench
        .run(&Eval, json!({ "max_new_tokens": 12 }))
        .expect("it answers again");
    assert_eq!(bench.text("transcripts.jsonl"), again);
}

#[test]
fn broken_prompts_are_all_named() {
    let mut bench = bench();
    let twice = format!("{PROMPTS}{PROMPTS}");
    bench.give("prompts", "prompts.jsonl", &twice);
    let error = bench.run(&Eval, json!({})).unwrap_err();
    assert_eq!(error.code, "eval::broken-prompts");
    assert!(
        error.message.contains("prompts.jsonl:3") && error.message.contains("prompts.jsonl:4"),
        "{}",
        error.message
    );
}

#[test]
fn export_writes_what_workers_ai_asks_for() {
    let trained = trained(json!({ "max_steps": 1 }));
    let mut bench = bench();
    bench
        .inputs
        .insert("adapter".to_owned(), vec![trained.out().join("adapter")]);
    bench
        .run(
            &Export,
            json!({ "model_type": "llama", "target": "cloudflare" }),
        )
        .expect("it exports");
    let config = bench.json("adapter/adapter_config.json");
    assert_eq!(config["model_type"], "llama");
    assert_eq!(config["peft_type"], "LORA");
    assert_eq!(
        config["target_modules"],
        json!([
            "down_proj",
            "gate_proj",
            "k_proj",
            "o_proj",
            "q_proj",
            "up_proj",
            "v_proj"
        ])
    );
    let bytes = std::fs::read(bench.out().join("adapter/adapter_model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let name = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight";
    assert_eq!(header[name]["dtype"], "BF16");
    assert_eq!(header[name]["shape"], json!([64, 16]));
    assert!(
        bench
            .text("system-prompt.txt")
            .contains("createCalendarEvent(")
    );
    assert!(bench.out().join("adapter/tokenizer.json").exists());
}

#[test]
fn export_refuses_another_model_type() {
    let trained = trained(json!({ "max_steps": 1 }));
    let mut bench = bench();
    bench
        .inputs
        .insert("adapter".to_owned(), vec![trained.out().join("adapter")]);
    let error = bench
        .run(&Export, json!({ "model_type": "gemma" }))
        .unwrap_err();
    assert_eq!(error.code, "export::base-mismatch");
}
