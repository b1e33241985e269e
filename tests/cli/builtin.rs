//! Built-in stages through the worker: the real executable, on real rows.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::project::Project;

/// The worker beside the command, built if a partial build left it out.
pub(crate) fn worker() -> &'static PathBuf {
    static WORKER: OnceLock<PathBuf> = OnceLock::new();
    WORKER.get_or_init(|| {
        let command = PathBuf::from(env!("CARGO_BIN_EXE_tunesmith"));
        let folder = command.parent().expect("a program lies in a folder");
        let worker = folder.join("tunesmith-worker");
        if !worker.is_file() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--quiet", "-p", "tunesmith-worker"]);
            if folder.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().expect("cargo starts").success());
        }
        worker
    })
}

const SPLIT: &str = r"
name: rows
stages:
  split:
    uses: split
    inputs: { rows: ./rows.jsonl }
    with: { fraction: 0.2 }
  sizes:
    run: wc -l < ${inputs.train} > ${outputs.train}; wc -l < ${inputs.val} > ${outputs.val}
    inputs: { train: 'split:train', val: 'split:val' }
    outputs: { train: train.txt, val: val.txt }
";

fn rows() -> String {
    let things = [
        "dentist", "grocery", "passport", "piano", "tax", "garden", "laptop", "school",
    ];
    let verbs = [
        "book the",
        "cancel my",
        "plan a",
        "forget about that",
        "think over the",
    ];
    let mut text = String::new();
    for (at, thing) in things.iter().enumerate() {
        for (round, verb) in verbs.iter().enumerate() {
            text.push_str(&format!(
                concat!(
                    r#"{{"id":"r-{}-{}","source":"hand","type":"single","messages":["#,
                    r#"{{"role":"user","content":"{} {} thing"}},"#,
                    r#"{{"role":"assistant","content":"Done with the {}."}}]}}"#,
                    "\n"
                ),
                at, round, verb, thing, thing
            ));
        }
    }
    text
}

#[test]
fn a_stage_runs_in_the_worker() {
    let project = Project::new(SPLIT);
    project.write("rows.jsonl", &rows());
    let mut command = project.command(&["run"]);
    let output = command
        .env("TUNESMITH_WORKER", worker())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let number = |path: &str| {
        project
            .read(path)
            .trim()
            .parse::<usize>()
            .expect("a number")
    };
    let (train, val) = (
        number("out/default/sizes/train.txt"),
        number("out/default/sizes/val.txt"),
    );
    assert_eq!(train + val, 40);
    assert!((4..=12).contains(&val), "{val}");
    assert!(project.at("out/default/split/report.json").is_file());
    project.verify();
    let mut again = project.command(&["run"]);
    let output = again
        .env("TUNESMITH_WORKER", "/nonexistent")
        .output()
        .expect("it starts");
    assert!(output.status.success(), "a result needs no worker");
}

#[test]
fn a_stage_that_fails_says_where_and_why() {
    let project = Project::new(SPLIT);
    project.write("rows.jsonl", "{\"id\": \"broken\"\n");
    let mut command = project.command(&["run", "split"]);
    let output = command
        .env("TUNESMITH_WORKER", worker())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("at pipeline.yaml:"), "{said}");
    assert!(said.contains("rows.jsonl"), "{said}");
}

#[test]
fn a_missing_worker_has_a_mend() {
    let project = Project::new(SPLIT);
    project.write("rows.jsonl", &rows());
    let mut command = project.command(&["run", "split"]);
    let output = command
        .env("TUNESMITH_WORKER", "/nonexistent/worker")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("run::no-worker"), "{said}");
}

/// Features that are not built and names of other tools, all at once, each at its line with a mend.
#[test]
fn what_other_trainers_take_is_refused_by_name_at_its_line() {
    let project = Project::new(
        r"
name: rows
stages:
  train:
    uses: train
    inputs: { base: ./base/, train: ./rows.jsonl, tools: ./tools.yaml }
    with:
      use_dora: true
      init: pissa
      lora_alpha: 32
      r: 1000
      optim: adamw_8bit
",
    );
    let said = project.says(&["check"]);
    assert!(said.starts_with("exit 2"), "{said}");
    for told in [
        "DoRA is not built",
        "this start is not built",
        "write `alpha`",
        "`r` takes a whole number from 1 to 256",
        "8-bit and paged ones are not built",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
    for line in 8..13 {
        assert!(
            said.contains(&format!("pipeline.yaml:{line}:")),
            "{line}: {said}"
        );
    }
    assert_eq!(said.matches("train::unsupported").count(), 3, "{said}");
    assert_eq!(said.matches("train::other-name").count(), 1, "{said}");
}
