//! `plan --memory`: which cards a training fits, told without a card and without weights.

use std::process::Output;

use serde_json::Value;

use super::builtin::worker;
use super::project::Project;

const PIPELINE: &str = r"
name: planned
params: { batch: 8, lr: 1e-3 }
stages:
  rows:
    run: cp ${inputs.from} ${outputs.it}
    inputs: { from: ./rows.jsonl }
    outputs: { it: made.jsonl }
  train:
    uses: train
    inputs: { base: ./model, train: rows, tools: ./tools.yaml }
    with: { r: 16, batch: '${batch}', lr: '${lr}', samples: [], context: 2048 }
    matrix: { lr: [1e-3, 2e-3] }
";

/// The tiny model's tokenizer under the config of a model of a billion weights, which are never read.
fn project() -> Project {
    let project = Project::new(PIPELINE);
    project.give_smoke_model();
    let text = project.read("model/config.json");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    for (key, value) in [
        ("hidden_size", 2048),
        ("intermediate_size", 8192),
        ("num_hidden_layers", 16),
        ("num_attention_heads", 32),
        ("num_key_value_heads", 8),
        ("head_dim", 64),
        ("vocab_size", 704),
    ] {
        config[key] = value.into();
    }
    project.write("model/config.json", &config.to_string());
    let row = |row: usize| {
        let words = "remember this word and that one ".repeat(5 + row);
        let user = serde_json::json!({ "role": "user", "content": words });
        let answer = serde_json::json!({ "role": "assistant", "content": "Gladly." });
        serde_json::json!({
            "id": format!("r{row}"), "source": "hand", "type": "negative", "messages": [user, answer]
        })
        .to_string()
    };
    let rows: Vec<String> = (0..12).map(row).collect();
    project.write("rows.jsonl", &(rows.join("\n") + "\n"));
    project
}

fn run(project: &Project, args: &[&str]) -> Output {
    let mut command = project.command(args);
    command
        .env("TUNESMITH_WORKER", worker())
        .output()
        .expect("it starts")
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn real_rows_are_planned_where_they_are_and_long_ones_assumed_where_not() {
    let project = project();
    let args = [
        "plan", "--memory", "--card", "h100", "--card", "3GiB", "--card", "T4", "--json",
    ];
    let assumed = lines(&run(&project, &args));
    assert_eq!(assumed.len(), 3, "{assumed:?}");
    assert_eq!(assumed[0]["stages"].as_array().map(Vec::len), Some(2));
    assert_eq!(assumed[0]["assumed"], true);
    assert_eq!(assumed[0]["longest"], 2048);
    assert_eq!(assumed[0]["fits"], true);
    assert_eq!(assumed[2]["fits"], false);
    assert!(assumed[2]["why"].as_str().expect("why").contains("bf16"));

    let made = project.output(&["run", "rows"]);
    assert!(made.status.success(), "{}", project.page(&made));
    let real = lines(&run(&project, &args));
    assert_eq!(
        (&real[0]["assumed"], &real[0]["rows"]),
        (&false.into(), &12.into())
    );
    let total = |line: &Value| line["total"].as_u64().expect("a size");
    assert!(total(&real[0]) < total(&assumed[0]));
    // The smaller card keeps less, or does not fit.
    let bytes = |line: &Value| line["takes"]["step"]["bytes"].as_u64().unwrap_or(0);
    assert!(bytes(&real[1]) <= bytes(&real[0]));
    assert!(
        !project
            .at(".tunesmith/store/tmp")
            .read_dir()
            .expect("a folder")
            .any(|e| { e.is_ok_and(|e| e.path().is_dir()) })
    );
}

#[test]
fn the_table_names_every_card_and_nothing_is_run() {
    let project = project();
    let output = run(&project, &["plan", "--memory"]);
    let said = project.page(&output);
    assert!(said.starts_with("exit 0"), "{said}");
    for card in ["T4", "L4", "RTX 4090", "A100 40GB", "H100", "H200"] {
        assert!(said.contains(card), "{card}: {said}");
    }
    assert!(said.contains("its rows are not made yet"), "{said}");
    assert!(said.contains("every activation kept"), "{said}");
    assert!(
        said.contains("has no bf16 (compute capability 7.5)"),
        "{said}"
    );
    assert!(!project.at("out").exists());
}

#[test]
fn what_cannot_be_planned_says_why() {
    let project = project();
    let said = project.page(&run(&project, &["plan", "--memory", "--card", "GTX 970"]));
    assert!(said.starts_with("exit 1"), "{said}");
    assert!(said.contains("no card is called `GTX 970`"), "{said}");
    let said = project.page(&run(&project, &["plan", "--memory", "rows"]));
    assert!(said.starts_with("exit 2"), "{said}");
    assert!(said.contains("nothing here trains"), "{said}");
    project.edit("pipeline.yaml", "base: ./model,", "base: rows,");
    let said = project.page(&run(&project, &["plan", "--memory"]));
    assert!(said.contains("`tunesmith run rows` first"), "{said}");
}
