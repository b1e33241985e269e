//! Edited results, and results taken on a person's word.

use super::project::Project;

const PIPELINE: &str = r#"
name: accepted
stages:
  rows:
    run: "sort ${inputs.a} > ${outputs.it}"
    inputs: { a: ./a.txt }
    outputs: { it: it.txt }
  model:
    run: "echo ran >> DIR/ran; sh ${inputs.script} < ${inputs.rows} > ${outputs.it}"
    inputs: { rows: rows, script: ./train.sh }
    outputs: { it: it.txt }
  score:
    run: "wc -c < ${inputs.m} > ${outputs.it}"
    inputs: { m: model }
    outputs: { it: it.txt }
"#;

fn trained() -> Project {
    let project = Project::new(PIPELINE);
    project.write("a.txt", "b\na\n");
    project.write("train.sh", "cat\n");
    project.ok(&[]);
    assert_eq!(project.marks("ran"), ["ran"]);
    project
}

const MODEL: &str = "out/default/model/it.txt";

#[test]
fn a_harmless_change_is_accepted_and_nothing_runs() {
    let project = trained();
    project.write("train.sh", "cat # now with a comment\n");
    let said = project.ok(&["accept", "model"]);
    assert!(said.contains("accepted out/default/model"), "{said}");
    assert!(said.contains("although"), "{said}");
    assert!(!said.contains("other bytes"), "{said}");
    let said = project.ok(&[]);
    assert!(said.starts_with("up to date: 3 stages"), "{said}");
    assert_eq!(project.marks("ran"), ["ran"]);
    let lock = project.read("pipeline.lock");
    assert!(lock.contains("accepted.default.model = "), "{lock}");
    project.ok(&["run", "--locked"]);
    let said = project.ok(&["cache", "du"]);
    assert!(said.contains("1 accepted"), "{said}");
    project.verify();

    // Made for real, the mark goes.
    project.ok(&["run", "--force", "model"]);
    assert_eq!(project.marks("ran"), ["ran", "ran"]);
    let lock = project.read("pipeline.lock");
    assert!(!lock.contains("accepted"), "{lock}");
}

#[test]
fn locked_refuses_what_somebody_vouched_for_unless_the_lock_says_so() {
    let project = trained();
    project.write("train.sh", "cat # now with a comment\n");
    let before = project.read("pipeline.lock");
    project.ok(&["accept", "model"]);
    project.write("pipeline.lock", &before);
    let said = project.says(&["run", "--locked"]);
    assert!(said.starts_with("exit 5"), "{said}");
    assert!(said.contains("locked::accepted"), "{said}");
    assert_eq!(project.marks("ran"), ["ran"]);
}

#[test]
fn an_edited_result_is_reported_left_alone_and_can_be_accepted() {
    let project = trained();
    project.write(MODEL, "better by hand\n");
    let said = project.ok(&[]);
    assert!(said.contains("modified"), "{said}");
    assert_eq!(project.read(MODEL), "better by hand\n");
    project.verify();

    let said = project.ok(&["accept", "model"]);
    assert!(
        said.contains("other bytes than its last result: `it`"),
        "{said}"
    );
    // What hangs on it runs; the stage itself does not.
    project.ok(&[]);
    assert_eq!(project.read("out/default/score/it.txt").trim(), "15");
    assert_eq!(project.read(MODEL), "better by hand\n");
    assert_eq!(project.marks("ran"), ["ran"]);
    let said = project.ok(&[]);
    assert!(said.starts_with("up to date: 3 stages"), "{said}");
    project.verify();
}

#[test]
fn an_edited_result_is_kept_aside_when_a_new_one_takes_its_place() {
    let project = trained();
    project.write(MODEL, "by hand\n");
    project.write("a.txt", "c\nb\n");
    let said = project.ok(&[]);
    assert!(
        said.contains("kept as `out/.kept/default/model/it.txt`"),
        "{said}"
    );
    assert_eq!(project.read(MODEL), "b\nc\n");
    assert_eq!(project.read("out/.kept/default/model/it.txt"), "by hand\n");
    project.verify();
}

#[test]
fn what_cannot_be_accepted_is_refused_with_a_reason() {
    let project = trained();
    let refused = |args: &[&str], code: &str| {
        let said = project.says(args);
        assert!(
            said.starts_with("exit 1") || said.starts_with("exit 2"),
            "{said}"
        );
        assert!(said.contains(code), "{said}");
    };
    refused(&["accept", "model"], "accept::nothing");
    project.write("a.txt", "c\nb\n");
    refused(&["accept", "model"], "accept::upstream");
    project.write("a.txt", "b\na\n");
    project.write("train.sh", "cat #\n");
    std::fs::remove_file(project.at(MODEL)).expect("removed");
    refused(&["accept", "model"], "accept::missing-output");
    refused(&["accept", "modell"], "modell");
}
