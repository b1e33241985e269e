//! What runs again and what does not, through the whole command: results, restores, lock, damage.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

const CHAIN: &str = "\
name: chain
params: { word: one }
stages:
  rows:
    run: sort ${inputs.a} > ${outputs.rows}
    inputs: { a: ./data/a.txt }
    outputs: { rows: rows.txt }
  train:
    run: (echo ${word}; cat ${inputs.rows}) > ${outputs.model}
    inputs: { rows: rows }
    outputs: { model: model.txt }
  eval:
    run: wc -l < ${inputs.model} > ${outputs.score}
    inputs: { model: train }
    outputs: { score: score.txt }
";

struct Project(tempfile::TempDir);

impl Project {
    fn new(yaml: &str) -> Self {
        let project = Self(tempfile::tempdir().expect("a folder"));
        project.write("data/a.txt", "b\na\n");
        project.write("pipeline.yaml", yaml);
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("written");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn command(&self, args: &[&str]) -> Output {
        Command::new(assert_cmd::cargo::cargo_bin!("tunesmith"))
            .args(args)
            .current_dir(self.0.path())
            .output()
            .expect("started")
    }

    /// Runs and tells which stages were started, and the exit code.
    fn run(&self, args: &[&str]) -> (BTreeSet<String>, i32) {
        let output = self.command(&[&["run", "--json"], args].concat());
        let text = String::from_utf8(output.stdout).expect("text");
        let started = text.lines().filter_map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
            (event["type"] == "stage-started")
                .then(|| event["stage"].as_str().unwrap_or_default().to_owned())
        });
        (
            started.collect(),
            output.status.code().expect("an exit code"),
        )
    }

    /// Runs, which must go well.
    fn ran(&self, args: &[&str]) -> Vec<String> {
        let (started, code) = self.run(args);
        assert_eq!(code, 0, "{started:?}");
        started.into_iter().collect()
    }

    fn blob_of(&self, name: &str) -> PathBuf {
        let hex = cache::Digest::of(self.read(name).as_bytes()).hex();
        self.path(".tunesmith/store/blobs")
            .join(&hex[..2])
            .join(hex)
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_second_run_does_nothing_and_a_deleted_output_is_noticed() {
    let project = Project::new(CHAIN);
    assert_eq!(project.ran(&[]), ["eval", "rows", "train"]);
    assert_eq!(project.ran(&[]), NOTHING);

    let model = "out/default/train/model.txt";
    let bytes = project.read(model);
    fs::remove_file(project.path(model)).expect("removed");
    assert_eq!(project.ran(&[]), NOTHING);
    assert_eq!(project.read(model), bytes, "laid out again from the store");

    fs::remove_file(project.blob_of(model)).expect("removed");
    assert_eq!(
        project.ran(&[]),
        ["train"],
        "made again into the same bytes"
    );
    assert_eq!(project.ran(&[]), NOTHING);
}

#[test]
fn only_what_depends_on_a_change_runs_and_going_back_runs_nothing() {
    let project = Project::new(CHAIN);
    project.ran(&[]);
    let with = |from: &str, to: &str| project.write("pipeline.yaml", &CHAIN.replace(from, to));

    with("word: one", "word: two");
    // `eval` counts lines: its input changed, its output does not.
    assert_eq!(project.ran(&[]), ["eval", "train"]);
    with("word: one", "word: one");
    assert_eq!(project.ran(&[]), NOTHING);
    assert!(
        project
            .read("out/default/train/model.txt")
            .starts_with("one\n"),
        "restored"
    );

    with("name: chain", "# a comment\nname: 'other'");
    assert_eq!(project.ran(&[]), NOTHING);
    with(
        "    outputs: { score: score.txt }",
        "    outputs: { \"score\": score.txt }\n    retries: 2\n    timeout: 1m",
    );
    assert_eq!(project.ran(&[]), NOTHING);

    // The same rows in another order: sorted, they are the same bytes.
    project.write("data/a.txt", "a\nb\n");
    assert_eq!(project.ran(&[]), ["rows"]);
    project.write("data/a.txt", "a\nb\nc\n");
    assert_eq!(project.ran(&[]), ["eval", "rows", "train"]);
    project.write("data/a.txt", "b\na\n");
    assert_eq!(project.ran(&[]), NOTHING);
}

#[test]
fn a_gate_is_in_no_key() {
    let project = Project::new(CHAIN);
    project.ran(&[]);
    project.write(
        "pipeline.yaml",
        &format!("{CHAIN}    gates: {{ lines: '>= 1' }}\n"),
    );
    let (started, _) = project.run(&[]);
    assert_eq!(started, BTreeSet::new());
}

#[test]
fn an_input_edited_while_its_stage_runs_does_not_mix_into_the_result() {
    let project = Project::new("");
    let original = project.path("data/a.txt");
    let yaml = format!(
        "name: x\nstages:\n  s:\n    run: cat ${{inputs.a}} > ${{outputs.o}}; echo new > '{}'; cat ${{inputs.a}} >> ${{outputs.o}}\n    \
         inputs: {{ a: ./data/a.txt }}\n    outputs: {{ o: o.txt }}\n",
        original.display()
    );
    project.write("pipeline.yaml", &yaml);
    assert_eq!(project.ran(&[]), ["s"]);
    assert_eq!(project.read("out/default/s/o.txt"), "b\na\nb\na\n");
    assert_eq!(project.ran(&[]), ["s"], "the edit is a change");
    assert_eq!(project.read("out/default/s/o.txt"), "new\nnew\n");
    assert_eq!(project.ran(&[]), NOTHING);
}

#[test]
fn the_lock_names_results_and_locked_takes_nothing_else() {
    let project = Project::new(CHAIN);
    project.ran(&[]);
    let lock = project.read("pipeline.lock");
    let model = cache::Digest::of(project.read("out/default/train/model.txt").as_bytes());
    assert!(
        lock.contains(&format!("result.default.train.model = \"{model}\"")),
        "{lock}"
    );
    assert_eq!(project.ran(&["--locked"]), NOTHING);

    // A changed parameter is not what the lock names.
    let (started, code) = project.run(&["--locked", "--set", "word=two"]);
    assert_eq!((started, code), (BTreeSet::new(), 5));
    // `--set` writes no lock.
    assert_eq!(project.ran(&["--set", "word=two"]), ["eval", "train"]);
    assert_eq!(project.read("pipeline.lock"), lock);

    // Another clone has the lock but not the store.
    fs::remove_dir_all(project.path(".tunesmith")).expect("removed");
    assert_eq!(project.run(&["--locked"]).1, 5);
    assert_eq!(
        project.ran(&["--locked", "--recompute"]),
        ["eval", "rows", "train"]
    );
    assert_eq!(project.ran(&["--locked"]), NOTHING);
}

#[test]
fn a_damaged_blob_is_found_and_made_again() {
    let project = Project::new(CHAIN);
    project.ran(&[]);
    assert!(project.command(&["cache", "verify"]).status.success());
    let blob = project.blob_of("out/default/train/model.txt");
    let bytes = fs::read(&blob).expect("a blob");
    fs::remove_file(&blob).expect("removed");
    fs::write(&blob, b"rot").expect("written");
    let output = project.command(&["cache", "verify"]);
    assert!(!output.status.success());
    assert_eq!(project.ran(&[]), ["train"]);
    assert_eq!(fs::read(&blob).expect("a blob"), bytes);
    assert!(project.command(&["cache", "verify"]).status.success());
}

#[test]
fn collecting_keeps_what_the_last_run_used() {
    let project = Project::new(CHAIN);
    project.ran(&["--set", "word=two"]);
    project.ran(&[]);
    assert!(
        project
            .command(&["cache", "gc", "--days", "0"])
            .status
            .success()
    );
    assert_eq!(project.ran(&[]), NOTHING);
    assert!(project.command(&["cache", "verify"]).status.success());
    assert_eq!(
        project.ran(&["--set", "word=two"]),
        ["train"],
        "dropped; `eval` has the bytes that the lock names"
    );
}
