//! The bytes that each kind of stage makes of the same inputs, beside its version: bytes that
//! change under an old version would be taken for what is in people's caches.
//!
//! Fails? If the change of bytes is meant, raise the `version` of the kind and pin both. Without
//! `train` and `eval`, whose last bits follow the processor (the same one gives the same bytes:
//! `model_tests.rs`), and `upload`, which acts outside. Inputs are the tests' own: what people
//! write in `data/` may change any day.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::contract::Stage;
use crate::convert::Convert;
use crate::export::Export;
use crate::fetch::Fetch;
use crate::sha256;
use crate::split::Split;
use crate::synthesize::Synthesize;
use crate::testing::Bench;
use crate::validate::Validate;

const TOOLS: &str = "\
tools:
  - name: createTask
    description: Add a to-do or reminder.
    params:
      type: object
      properties:
        title: { type: string, minLength: 1 }
        dueDate: { type: string, format: date-time }
      required: [title]
      additionalProperties: false
";

const BOOK: &str = r#"
mix: { single: 1.0 }
typos: { remind: [remnd] }
phrases: { please: ["", "please "] }
slots:
  person: [Ann, Bo, Cyd, Dee, Eli, Fay, Gus, Hal]
  doc: [the budget, the slides, the contract, the report, the survey, the notes]
  todo: ["call {person}", "send {person} {doc}", "ask {person} about {doc}"]
rows:
  - type: single
    call: createTask
    user: ["<please>remind me to {todo} {due}", "i have to {todo} {due}"]
    say: ["I'll add it."]
    params: { title: "{todo|title}", dueDate: "{due}" }
    result: { status: created }
    done: ["Done."]
"#;

fn golden(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("../crates/qlora/tests/golden").join(name)
}

fn real(format: &str) -> PathBuf {
    let rows = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rows");
    rows.join(format!("{format}.jsonl"))
}

fn bench(inputs: &[(&str, PathBuf)]) -> Bench {
    let mut bench = Bench::new();
    bench.give("tools", "tools.yaml", TOOLS);
    for (port, path) in inputs {
        bench.inputs.insert((*port).to_owned(), vec![path.clone()]);
    }
    bench
}

/// Runs the stage and adds a line for every file it made.
fn pin(text: &mut String, stage: &dyn Stage, what: &str, bench: &Bench, with: Value) {
    if let Err(error) = bench.run(stage, with) {
        panic!("{} {what}: {error:?}", stage.kind());
    }
    let out = bench.out();
    let files = walkdir::WalkDir::new(&out).sort_by_file_name();
    for entry in files.into_iter().map(Result::unwrap) {
        if entry.file_type().is_file() {
            let path = entry.path().strip_prefix(&out).unwrap().display();
            let digest = sha256::of_file(entry.path()).unwrap();
            let (kind, version) = (stage.kind(), stage.version());
            writeln!(text, "{kind} {version}  {what} {path}  {}", &digest[..16]).unwrap();
        }
    }
}

#[test]
fn the_bytes_of_each_version_are_pinned() {
    let mut text = String::new();
    let fetched = bench(&[("path", real("xlam"))]);
    pin(&mut text, &Fetch, "path", &fetched, json!({}));
    for format in ["glaive", "hermes", "xlam", "apigen-mt", "alpaca"] {
        let bench = bench(&[("rows", real(format))]);
        let with = json!({"format": format, "keep_tools": true, "longest": 20000});
        pin(&mut text, &Convert, format, &bench, with);
    }
    let mut drawn = bench(&[]);
    drawn.give("grammar", "grammar.yaml", BOOK);
    pin(
        &mut text,
        &Synthesize,
        "grammar",
        &drawn,
        json!({"count": 60}),
    );
    let valid = bench(&[("rows", drawn.out().join("rows.jsonl"))]);
    let with = json!({"min_examples": 1, "on_fault": "drop"});
    pin(&mut text, &Validate, "rows", &valid, with);
    let split = bench(&[("rows", valid.out().join("rows.jsonl"))]);
    pin(&mut text, &Split, "rows", &split, json!({"fraction": 0.2}));
    let base = tempfile::tempdir().unwrap();
    for (from, file) in [
        ("peft-refs/tiny_f32", "config.json"),
        ("peft-refs/tiny_f32", "model.safetensors"),
        ("mistral-v1-tokenizer", "tokenizer.json"),
        ("mistral-v1-tokenizer", "tokenizer_config.json"),
    ] {
        std::fs::copy(golden(from).join(file), base.path().join(file)).unwrap();
    }
    let export = bench(&[
        ("adapter", golden("peft-refs/tiny_lora")),
        ("base", base.path().to_owned()),
    ]);
    pin(
        &mut text,
        &Export,
        "adapter",
        &export,
        json!({"model_type": "mistral"}),
    );
    insta::assert_snapshot!(text, @r"
    fetch 1  path data/xlam.jsonl  b9d32a3ea90171e9
    convert 2  glaive report.json  56d21d63e9197894
    convert 2  glaive rows.jsonl  0855634c76ecf337
    convert 2  hermes report.json  ce3ef524563e43f9
    convert 2  hermes rows.jsonl  8013a4d2a35d2c8c
    convert 2  xlam report.json  9cee7646886b17c3
    convert 2  xlam rows.jsonl  ed0505ddf0699be7
    convert 2  apigen-mt report.json  d3f399dd4a0c4a55
    convert 2  apigen-mt rows.jsonl  c600398ab6591f80
    convert 2  alpaca report.json  1bb7442b68a2a757
    convert 2  alpaca rows.jsonl  63750790f179503f
    synthesize 1  grammar report.json  4903153383b0d253
    synthesize 1  grammar rows.jsonl  da2fca88b0f8e8cd
    validate 1  rows report.json  862a7e60be960a78
    validate 1  rows rows.jsonl  da2fca88b0f8e8cd
    split 1  rows report.json  dfca8aa1c5d4bee4
    split 1  rows train.jsonl  b198fc0357315d52
    split 1  rows val.jsonl  6db22d204a4c4c02
    export 1  adapter adapter/adapter_config.json  ec3c32627f143704
    export 1  adapter adapter/adapter_model.safetensors  b98cfd662f5ef989
    export 1  adapter adapter/tokenizer.json  9b29840a458b8d5b
    export 1  adapter adapter/tokenizer_config.json  c2625e59a1ca7655
    export 1  adapter system-prompt.txt  59ab1826cc992394
    ");
}
