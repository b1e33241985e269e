//! What each option does in a run.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::Train;
use crate::StageEvent;
use crate::export::Export;
use crate::model_tests::{ROWS, bench, trained};
use crate::testing::Bench;

/// The short run of every test here, with `more` on top.
fn with(more: &Value) -> Value {
    let mut with =
        json!({ "epochs": 3, "batch": 2, "lr": 5e-3, "r": 4, "alpha": 8, "samples": [] });
    for (name, value) in more.as_object().unwrap() {
        with[name] = value.clone();
    }
    with
}

fn adapter(bench: &Bench) -> Vec<u8> {
    std::fs::read(bench.out().join("adapter/adapter_model.safetensors")).unwrap()
}

fn warnings(bench: &Bench) -> Vec<(String, String)> {
    let events = bench.events.lock().unwrap();
    let warnings = events.iter().filter_map(|event| match event {
        StageEvent::Warning { code, text } => Some((code.clone(), text.clone())),
        _ => None,
    });
    warnings.collect()
}

fn step(bench: &Bench, at: usize, what: &str) -> f64 {
    bench.json("report.json")["steps"][at][what]
        .as_f64()
        .unwrap()
}

fn steps(bench: &Bench) -> usize {
    bench.json("report.json")["steps"].as_array().unwrap().len()
}

/// Tokens of the rows `a`, `b` and `c`, as the refusal tells them.
fn lengths() -> [u64; 3] {
    let mut bench = bench();
    bench.give("train", "train.jsonl", ROWS);
    let error = bench.run(&Train, json!({ "context": 16 })).unwrap_err();
    assert_eq!(error.code, "train::row-too-long");
    let length = |row: &str| {
        let line = error
            .message
            .lines()
            .find(|line| line.contains(row))
            .unwrap();
        let words: Vec<_> = line.split(' ').collect();
        words[words.len() - 2].parse().unwrap()
    };
    [length("`a`"), length("`b`"), length("`c`")]
}

#[test]
fn a_long_row_is_left_out_or_cut_only_if_asked_and_said() {
    let [_, _, c] = lengths();
    let longest = lengths().into_iter().max().unwrap();
    assert_eq!(longest, c);
    let cut = |too_long: &str, context: u64| {
        let mut bench = bench();
        bench.give("train", "train.jsonl", ROWS);
        bench
            .run(
                &Train,
                with(&json!({ "too_long": too_long, "context": context })),
            )
            .expect("it trains");
        bench
    };
    let dropped = cut("drop", c - 1);
    let report = dropped.json("report.json");
    assert_eq!(
        report["rows"],
        json!({ "train": 2, "val": 0, "dropped": { "train": 1, "val": 0 } })
    );
    let [(code, text)] = warnings(&dropped).try_into().unwrap();
    assert_eq!(code, "train::rows-dropped");
    assert!(text.contains("train.jsonl:3 `c`"), "{text}");

    // The row ends with the token that ends its answer, and a line break that is no label.
    let truncated = cut("truncate", c - 2);
    let report = truncated.json("report.json");
    assert_eq!(report["rows"]["train"], 3);
    assert_eq!(report["rows"]["truncated"]["train"], 1);
    assert_eq!(warnings(&truncated)[0].0, "train::rows-truncated");
    let labels = |bench: &Bench| {
        bench.json("report.json")["tokens"]["labels"]
            .as_u64()
            .unwrap()
    };
    let whole = cut("refuse", c);
    assert!(warnings(&whole).is_empty());
    assert_eq!(
        labels(&truncated) + 3,
        labels(&whole),
        "one label less in each of three epochs"
    );
    assert_eq!(
        whole.json("report.json")["rows"],
        json!({ "train": 3, "val": 0 })
    );
}

#[test]
fn a_context_that_no_row_fits_is_refused_even_where_rows_may_go() {
    for too_long in ["drop", "truncate"] {
        let mut bench = bench();
        bench.give("train", "train.jsonl", ROWS);
        let with = json!({ "too_long": too_long, "context": 16 });
        assert_eq!(
            bench.run(&Train, with).unwrap_err().code,
            "train::row-too-long"
        );
    }
}

#[test]
fn only_the_last_answer_is_learned_if_asked() {
    let labels = |choice: &str| {
        let bench = trained(with(
            &json!({ "labels": choice, "max_steps": 1, "batch": 3 }),
        ));
        bench.json("report.json")["tokens"]["labels"]
            .as_u64()
            .unwrap()
    };
    // Row `c` has two answers; the first holds a call and is the longer one.
    assert!(labels("last") + 20 < labels("all"));
}

#[test]
fn weights_count_by_type_and_by_row_alike() {
    let run = |rows: &str, more: Value| {
        let mut bench = bench();
        bench.give("train", "train.jsonl", rows);
        bench.run(&Train, with(&more)).map(|_| adapter(&bench))
    };
    let plain = run(ROWS, json!({})).unwrap();
    let by_type = run(ROWS, json!({ "weights": { "negative": 3 } })).unwrap();
    assert!(by_type != plain);
    let weighted = ROWS.replace(r#""type":"negative""#, r#""type":"negative","weight":3"#);
    assert!(weighted != ROWS);
    let by_row = run(&weighted, json!({ "row_weights": true })).unwrap();
    assert!(by_row == by_type);
    let error = run(&weighted, json!({})).unwrap_err();
    assert_eq!(
        (&*error.code, &*error.field),
        ("train::row-weights", "inputs.train")
    );
    assert!(
        error.message.contains("train.jsonl:2 `b`"),
        "{}",
        error.message
    );
}

#[test]
fn the_best_adapters_lie_beside_the_returned_one() {
    let bench = trained(with(
        &json!({ "eval_every": 1, "keep": 2, "keep_best": true }),
    ));
    let report = bench.json("report.json");
    let kept = report["kept"].as_array().unwrap();
    assert_eq!(kept.len(), 2);
    assert!(kept[0]["loss"].as_f64() <= kept[1]["loss"].as_f64());
    let path = |at: usize| -> PathBuf {
        bench
            .out()
            .join("adapter")
            .join(kept[at]["adapter"].as_str().unwrap())
    };
    let file = |at: usize| std::fs::read(path(at).join("adapter_model.safetensors")).unwrap();
    assert!(
        file(0) == adapter(&bench),
        "the best of them is the returned one"
    );
    assert!(file(1) != file(0));
    assert!(path(1).join("adapter_config.json").is_file());
}

#[test]
fn training_goes_on_from_an_adapter_of_the_same_shape() {
    let first = trained(with(&json!({ "rank_pattern": { "q_proj": 2 } })));
    let folder = first.out().join("adapter");
    let go_on = |more: Value| {
        let mut bench = bench();
        bench.give("train", "train.jsonl", ROWS);
        bench
            .inputs
            .insert("adapter".to_owned(), vec![folder.clone()]);
        let done = bench.run(&Train, with(&more));
        done.map(|_| bench)
    };
    let second = go_on(json!({ "rank_pattern": { "q_proj": 2 }, "dropout": 0.1 })).unwrap();
    assert!(
        step(&second, 0, "loss") < step(&first, 0, "loss") - 0.05,
        "it has learned before"
    );
    let error = go_on(json!({ "r": 8, "rslora": true })).err().unwrap();
    assert_eq!(
        (&*error.code, &*error.field),
        ("train::adapter-mismatch", "inputs.adapter")
    );
    for told in [
        "`r` is 8, the adapter's is 4",
        "`rank_pattern` is {}",
        "`rslora` is true",
    ] {
        assert!(error.message.contains(told), "{}", error.message);
    }
}

#[test]
fn the_adapter_says_what_it_is_and_export_refuses_what_workers_ai_cannot_apply() {
    let trained = trained(with(&json!({
        "rslora": true, "layers": [1], "rank_pattern": { "q_proj": 2 }, "alpha_pattern": { "up_proj": 2.5 },
        "init": "gaussian", "max_steps": 1,
    })));
    let config = trained.json("adapter/adapter_config.json");
    assert_eq!(config["use_rslora"], true);
    assert_eq!(config["layers_to_transform"], json!([1]));
    assert_eq!(config["rank_pattern"], json!({ "q_proj": 2 }));
    assert_eq!(config["alpha_pattern"], json!({ "up_proj": 2.5 }));
    let export = |target: &str| {
        let mut bench = bench();
        let folder = trained.out().join("adapter");
        bench.inputs.insert("adapter".to_owned(), vec![folder]);
        let done = bench.run(&Export, json!({ "model_type": "llama", "target": target }));
        done.map(|_| bench.json("adapter/adapter_config.json"))
    };
    assert_eq!(export("folder").unwrap()["use_rslora"], true);
    let error = export("cloudflare").unwrap_err();
    assert_eq!(error.code, "export::unsupported-feature");
    for told in ["rslora", "rank_pattern", "alpha_pattern"] {
        assert!(error.message.contains(told), "{}", error.message);
    }
}

#[test]
fn a_layer_that_the_base_lacks_is_named() {
    let mut bench = bench();
    bench.give("train", "train.jsonl", ROWS);
    let error = bench
        .run(&Train, with(&json!({ "layers": [40] })))
        .unwrap_err();
    assert!(
        error.message.contains("name layer 40, and the model has 2"),
        "{}",
        error.message
    );
}

#[test]
fn rates_and_batches_go_by_the_settings() {
    let bench = trained(with(&json!({
        "epochs": 4, "batch": 3, "schedule": "linear", "warmup_steps": 2, "lr_end": 0.5,
    })));
    let rates: Vec<f64> = (0..4).map(|at| step(&bench, at, "lr") / 5e-3).collect();
    assert_eq!(rates, [0.5, 1.0, 1.0, 0.75]);

    let [a, b, c] = lengths();
    let one_by_one = trained(with(
        &json!({ "batch": 3, "batch_tokens": a.min(b) + 1, "epochs": 1 }),
    ));
    assert_eq!(steps(&one_by_one), 3);
    let together = trained(with(
        &json!({ "batch": 3, "batch_tokens": a + b + c, "epochs": 1 }),
    ));
    assert_eq!(steps(&together), 1);
    let every_half = one_by_one.json("report.json");
    let looks = every_half["validations"].as_array().unwrap();
    assert_eq!(looks.len(), 2, "by default it looks twice an epoch");

    let faster = trained(with(&json!({ "lora_plus": 4, "epochs": 1 })));
    assert!(adapter(&faster) != adapter(&trained(with(&json!({ "epochs": 1 })))));
}
