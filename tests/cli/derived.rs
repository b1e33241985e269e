//! What stages derive from a base and share: made once, under a key of its own, whoever asks.

use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use super::builtin::worker;
use super::project::Project;

const PIPELINE: &str = r"
name: shared
params: { lr: 1e-3 }
stages:
  train:
    uses: train
    inputs: { base: ./model, train: ./rows.jsonl, tools: ./tools.yaml }
    with: { r: 4, max_steps: 1, batch: 2, samples: [], lr: '${lr}' }
    matrix: { lr: [1e-3, 2e-3] }
  score:
    uses: eval
    inputs: { base: ./model, prompts: ./prompts.jsonl, tools: ./tools.yaml }
    with: { quantization: nf4, max_new_tokens: 4 }
";

const ROWS: &str = r#"{"id":"a","source":"hand","type":"negative","messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"Hello!"}]}
{"id":"b","source":"hand","type":"negative","messages":[{"role":"user","content":"thanks"},{"role":"assistant","content":"Gladly."}]}
"#;

const PROMPTS: &str = r#"{"id":"p","category":"negative","messages":[{"role":"user","content":"hello"}],"expect":[]}
"#;

fn project() -> Project {
    let project = Project::new(PIPELINE);
    project.write("rows.jsonl", ROWS);
    project.write("prompts.jsonl", PROMPTS);
    project.give_smoke_model();
    project
}

fn run(project: &Project, args: &[&str]) -> Output {
    let mut command = project.command(args);
    let output = command.env("TUNESMITH_WORKER", worker()).output();
    let output = output.expect("it starts");
    assert!(output.status.success(), "{}", project.page(&output));
    output
}

/// Records of derived layers, with their files.
fn layers(project: &Project) -> Vec<(PathBuf, Value)> {
    let all = walkdir::WalkDir::new(project.at(".tunesmith/store/records")).into_iter();
    let files = all.flatten().filter(|entry| entry.file_type().is_file());
    let records = files.map(|entry| {
        let text = std::fs::read_to_string(entry.path()).expect("a record");
        (
            entry.into_path(),
            serde_json::from_str(&text).expect("JSON"),
        )
    });
    records
        .filter(|(_, record): &(_, Value)| record["made"]["stage"] == "nf4-layers")
        .collect()
}

fn times_made(output: &Output) -> usize {
    String::from_utf8_lossy(&output.stdout)
        .matches("making nf4-layers")
        .count()
}

#[test]
fn cells_and_scoring_share_one_record_of_the_base_s_layers() {
    let project = project();
    let output = run(&project, &["run", "--json"]);
    assert_eq!(times_made(&output), 1, "{}", project.page(&output));
    let [(_, record)] = &layers(&project)[..] else {
        panic!("one record: {:?}", layers(&project))
    };
    let parts: Vec<&str> = record["parts"]
        .as_array()
        .expect("parts")
        .iter()
        .filter_map(|part| part[0].as_str())
        .collect();
    assert_eq!(
        parts,
        ["key", "kind", "version", "shared.layers", "input.base"]
    );
    project.verify();

    // Another learning rate reads what is there; another base has layers of its own.
    project.edit("pipeline.yaml", "[1e-3, 2e-3]", "[1e-3, 3e-3]");
    let output = run(&project, &["run", "--json"]);
    assert_eq!(times_made(&output), 0, "{}", project.page(&output));
    let config = project.read("model/config.json");
    project.write("model/config.json", &format!("{config}\n"));
    let output = run(&project, &["run", "--json"]);
    assert_eq!(times_made(&output), 1, "{}", project.page(&output));
    assert_eq!(layers(&project).len(), 2);
    project.verify();
}

#[test]
fn collected_or_damaged_layers_are_made_again() {
    let project = project();
    run(&project, &["run", "score"]);
    // Nobody's lock and nobody's last result: only its age keeps it.
    project.ok(&["cache", "gc", "--days", "0"]);
    assert_eq!(layers(&project).len(), 0);
    project.edit("pipeline.yaml", "max_new_tokens: 4", "max_new_tokens: 5");
    let output = run(&project, &["run", "score", "--json"]);
    assert_eq!(times_made(&output), 1, "{}", project.page(&output));

    let [(_, record)] = &layers(&project)[..] else {
        panic!("one record")
    };
    let outputs = record["outputs"].to_string();
    let blob = walkdir::WalkDir::new(project.at(".tunesmith/store/blobs"))
        .into_iter()
        .flatten()
        .find(|entry| {
            outputs.contains(&*entry.file_name().to_string_lossy()) && entry.file_type().is_file()
        })
        .expect("the blob of the layers");
    let mut bytes = std::fs::read(blob.path()).expect("a blob");
    bytes[20_000] ^= 1;
    let mut permissions = blob.metadata().expect("a file").permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "the test damages it")]
    permissions.set_readonly(false);
    std::fs::set_permissions(blob.path(), permissions).expect("ours");
    std::fs::write(blob.path(), bytes).expect("ours");
    project.edit("pipeline.yaml", "max_new_tokens: 5", "max_new_tokens: 6");
    let output = run(&project, &["run", "score", "--json"]);
    assert_eq!(times_made(&output), 1, "{}", project.page(&output));
    project.verify();
}
