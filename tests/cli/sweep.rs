//! Sweeps: cells, what they are called, what goes on after a pick.

use super::project::Project;

/// `score` of a cell is rank / lr, so the largest is rank 8 at lr 1e-4.
const SWEEP: &str = r#"
name: demo
params: { lr: 1e-3, rank: 4 }
stages:
  rows:
    run: cp ${inputs.text} ${outputs.rows}
    inputs: { text: ./words.txt }
    outputs: { rows: rows.txt }
  train:
    run: |
      cat ${inputs.rows} > ${outputs.adapter}
      echo "${rank} ${lr}" >> ${outputs.adapter}
    inputs: { rows: rows }
    outputs: { adapter: adapter.txt }
    matrix:
      lr: [1e-4, 0.0002]
      rank: { from: 4, to: 8, factor: 2 }
      exclude: [{ lr: 2e-4, rank: 8 }]
  val-eval:
    run: |
      tail -n 1 ${inputs.adapter} | awk '{ printf "{\"score\": %f}\n", $1 / $2 }' > ${outputs.metrics}
    inputs: { adapter: train }
    outputs: { metrics: metrics.json }
  best:
    run: cp ${inputs.adapter} ${outputs.adapter}
    inputs: { adapter: train }
    outputs: { adapter: adapter.txt }
    pick: { max: val-eval.score }
"#;

fn sweep() -> Project {
    let project = Project::new(SWEEP);
    project.write("words.txt", "one\n");
    project
}

#[test]
fn a_sweep_fans_out_until_a_stage_picks() {
    let project = sweep();
    insta::assert_snapshot!(project.says(&["plan"]), @"");
    insta::assert_snapshot!(project.says(&["run", "-j1"]), @"");
    assert_eq!(
        project.read("out/default/best/adapter.txt"),
        "one\n8 0.0001\n"
    );
    assert_eq!(
        project.read("out/default/train[lr=2e-4,rank=4]/adapter.txt"),
        "one\n4 0.0002\n"
    );
    let lock = project.read("pipeline.lock");
    assert!(
        lock.contains("result.default.\"train[lr=1e-4,rank=8]\".adapter = "),
        "{lock}"
    );
    let again = project.ok(&[]);
    assert!(again.starts_with("up to date: 8 stages"), "{again}");
    // A plan after the run says the same, and which cell was picked.
    insta::assert_snapshot!(project.says(&["plan", "--check"]), @"");
    project.verify();
}

#[test]
fn the_same_pick_again_runs_nothing_below_it() {
    let project = sweep();
    project.ok(&[]);
    // Another metric with the same winner: `best` reads the same bytes.
    project.edit("pipeline.yaml", "$1 / $2", "$1 * 10 / $2");
    let said = project.ok(&[]);
    assert!(
        said.contains("val-eval[lr=1e-4,rank=8]  runs: its command changed"),
        "{said}"
    );
    assert!(!said.contains("  best "), "{said}");
    // Another winner.
    project.edit("pipeline.yaml", "pick: { max:", "pick: { min:");
    insta::assert_snapshot!(project.says(&[]), @"");
}

#[test]
fn cells_are_named_on_the_command_line() {
    let project = sweep();
    let said = project.ok(&["run", "train[lr=0.0001]"]);
    assert!(said.contains("3 stages ran"), "{said}");
    let said = project.ok(&["run", "train"]);
    assert!(said.contains("1 stage ran"), "{said}");
    insta::assert_snapshot!(project.says(&["run", "train[lr=3e-4]"]), @"");
    let said = project.ok(&["run", "--force", "train[rank=4]", "train"]);
    assert!(said.contains("2 stages ran"), "{said}");
}

#[test]
fn set_takes_parameters_and_fields_of_stages() {
    let project = Project::new(
        r#"
name: demo
params: { word: one }
stages:
  say:
    run: printf '%s %s' ${word} "$MORE" > ${outputs.text}
    outputs: { text: text.txt }
    env: { MORE: "1" }
"#,
    );
    project.ok(&["--set", "word=two", "--set", "say.env.MORE=1e-4"]);
    assert_eq!(project.read("out/default/say/text.txt"), "two 1e-4");
    assert!(
        !project.at("pipeline.lock").exists(),
        "a set run locks nothing"
    );
    insta::assert_snapshot!(project.says(&["--set", "say.retries=many", "plan"]), @"");
    insta::assert_snapshot!(project.says(&["--set", "sya.retries=1", "plan"]), @"");
}

#[test]
fn set_on_an_axis_is_that_value_alone() {
    let project = sweep();
    let said = project.ok(&["run", "train", "--set", "lr=5e-4"]);
    assert!(said.contains("train[lr=5e-4,rank=8]"), "{said}");
    assert!(said.contains("3 stages ran"), "{said}");
}

#[test]
fn what_a_sweep_cannot_mean_is_refused() {
    let refused = |from: &str, to: &str| {
        let project = sweep();
        project.edit("pipeline.yaml", from, to);
        project.says(&["plan"])
    };
    insta::assert_snapshot!(refused("val-eval:\n", "val-eval:\n    gates: { score: '>= 1' }\n"), @"");
    insta::assert_snapshot!(refused("    pick: { max: val-eval.score }", "    effect: external"), @"");
    insta::assert_snapshot!(refused("    run: cp ${inputs.adapter} ${outputs.adapter}", "    run: echo ${lr} > ${outputs.adapter}"), @"");
    insta::assert_snapshot!(refused("exclude: [{ lr: 2e-4, rank: 8 }]", "exclude: [{ lr: 3e-4 }]"), @"");
    insta::assert_snapshot!(refused("      lr: [1e-4, 0.0002]", "      lrr: [1e-4, 0.0002]"), @"");
}

#[test]
fn a_fingerprint_is_a_part_of_the_key_and_is_asked_once() {
    let project = Project::new(
        r#"
name: demo
stages:
  say:
    run: echo hello > ${outputs.text}
    outputs: { text: text.txt }
    fingerprint: ./tool --version
"#,
    );
    let tool = |version: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        project.write(
            "tool",
            &format!("#!/bin/sh\necho asked >> DIR/asked\necho tool {version}\n"),
        );
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(project.at("tool"), mode).expect("a mode");
    };
    tool("1.0");
    project.ok(&[]);
    project.ok(&[]);
    project.ok(&["plan", "--check"]);
    assert_eq!(project.marks("asked").len(), 1);
    tool("2.0.1");
    insta::assert_snapshot!(project.says(&["plan"]), @"");
    assert_eq!(project.marks("asked").len(), 2);
    std::fs::remove_file(project.at("tool")).expect("it was there");
    insta::assert_snapshot!(project.says(&["run"]), @"");
}
