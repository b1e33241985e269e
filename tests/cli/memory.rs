//! `plan --memory`: which cards a training fits, told without a card and without weights.

use std::process::Output;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

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

/// As [`run`], with a hub at `endpoint`.
fn run_with_hub(project: &Project, endpoint: &str, args: &[&str]) -> Output {
    let mut command = project.command(args);
    command
        .env("TUNESMITH_WORKER", worker())
        .env("HF_ENDPOINT", endpoint)
        .env("HF_HOME", project.at("no-hub-cache"))
        .env_remove("HF_HUB_CACHE")
        .env_remove("HF_HUB_OFFLINE")
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy")
        .output()
        .expect("it starts")
}

/// A hub with one model, of which it gives the config alone; and what it was asked for.
fn hub(config: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let server = tiny_http::Server::http("127.0.0.1:0").expect("a port");
    let address = server.server_addr().to_ip().expect("an IP address");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    let listing = json!({
        "id": "owner/name",
        "sha": "0123456789abcdef0123456789abcdef01234567",
        "siblings": [
            { "rfilename": "config.json", "size": config.len() },
            { "rfilename": "model.safetensors", "size": 1 << 30 },
            { "rfilename": "tokenizer.json", "size": 9 },
        ],
    });
    std::thread::spawn(move || {
        for request in server.incoming_requests() {
            let path = request.url().split('?').next().unwrap_or_default();
            let body = match path.rsplit('/').next() {
                Some("main") => listing.to_string(),
                Some("config.json") => config.clone(),
                _ => String::new(),
            };
            heard.lock().expect("a list").push(path.to_owned());
            let _client_went = request.respond(tiny_http::Response::from_string(body));
        }
    });
    (format!("http://{address}"), asked)
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

const L4: [&str; 4] = ["plan", "--memory", "--card", "L4"];

#[test]
fn a_folder_with_the_config_alone_is_enough() {
    let project = project();
    for file in [
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        std::fs::remove_file(project.at(&format!("model/{file}"))).expect("it was there");
    }
    let said = project.page(&run(&project, &L4));
    insta::with_settings!({ filters => [(r" +\d+\.\d", " [GIB]")] }, {
        insta::assert_snapshot!(said, @r"
        exit 0
        ----- stdout -----
        train[lr=1e-3], train[lr=2e-3]
          of its base only the config is there: a batch of 8 is assumed, 2048 tokens each, which share nothing

          card     GiB   takes  weights  adapter    step  decoded  how
          L4 [GIB] [GIB] [GIB] [GIB] [GIB] [GIB]  every activation kept; 8 rows at a time; 16 layers stay decoded (1930 MiB)
        ");
    });
}

#[test]
fn of_a_hub_model_that_is_not_fetched_the_config_is_read_once() {
    let project = project();
    project.edit("pipeline.yaml", "base: ./model,", "base: hub,");
    project.edit(
        "pipeline.yaml",
        "stages:\n",
        "stages:\n  hub: { uses: fetch, with: { model: owner/name } }\n",
    );
    let (endpoint, asked) = hub(project.read("model/config.json"));
    let planned = lines(&run_with_hub(
        &project,
        &endpoint,
        &[&L4[..], &["--json"]].concat(),
    ));
    assert_eq!(planned.len(), 1, "{planned:?}");
    assert_eq!(planned[0]["stages"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        (&planned[0]["bare"], &planned[0]["fits"]),
        (&true.into(), &true.into())
    );
    let asked = asked.lock().expect("a list").clone();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[1].ends_with("/config.json"), "{asked:?}");
    assert!(!project.at("out").exists(), "nothing was run");

    // Nobody is there.
    let said = project.page(&run_with_hub(&project, "http://127.0.0.1:1", &L4));
    insta::assert_snapshot!(said, @r"
    exit 1
    ----- stderr -----
    memory::no-base

      × the base of `train[lr=1e-3]` (`hub`) is not there yet, and its config.json cannot be had:
      │ `http://127.0.0.1:1/api/models/owner/name/revision/main` cannot be reached: io: Connection
      │ refused (os error 111)
      help: check the connection, `HTTPS_PROXY` and the host name; what has arrived is kept; or run
            `tunesmith run hub` first
    ");
}

#[test]
fn a_base_that_is_fetched_from_this_machine_is_read_where_it_is() {
    let project = project();
    project.edit("pipeline.yaml", "base: ./model,", "base: copy,");
    project.edit(
        "pipeline.yaml",
        "stages:\n",
        "stages:\n  copy: { uses: fetch, inputs: { path: ./model } }\n",
    );
    let planned = lines(&run(&project, &[&L4[..], &["--json"]].concat()));
    assert_eq!(
        (&planned[0]["bare"], &planned[0]["fits"]),
        (&false.into(), &true.into())
    );
}
