//! What is in a key and what is not; what the stage sees of an input.

use std::collections::BTreeMap;
use std::path::Path;

use cache::KeyParts;

use super::{CHAIN, Happened, Project, ran, sentences, with};
use crate::lock::Lock;
use crate::plan::{Decision, Options, Planner, Settled, key};

fn listed(parts: &KeyParts) -> String {
    let lines: Vec<_> = parts
        .iter()
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    lines.join("\n")
}

#[test]
fn the_parts_of_a_key_are_pinned() {
    let project = Project::new(
        "name: x\nseed: 7\nstages:\n  t:\n    uses: toy\n    inputs: { rows: [data/a.jsonl, ./data/b.jsonl] }\n    \
         with: { lr: 2e-1, more: { b: 1.0, a: [x] } }\n    env: { MODE: fast }\n",
    );
    let parts = project.parts("t");
    let text = listed(&parts);
    insta::assert_snapshot!(text, @r#"
    key = 1
    kind = toy
    version = 3
    shared.canonical = 1
    shared.tokenizer = 2
    with.lr = 0.2
    with.more = {"a":["x"],"b":1}
    seed = 7
    input.rows.0 = 17762fddd969a453925d65717ac3eea21320b66b54342fde15128d6caf21215f
    input.rows.0.name = a.jsonl
    input.rows.1 = 10e5cf3d3c8a4f9f3468c8cc58eea84892a22fdadbc1acb22410190044c1d553
    input.rows.1.name = b.jsonl
    env.MODE = fast
    "#);
    insta::assert_snapshot!(parts.digest().to_string(), @"8683f9053e85c42c37ed907b295200560de06038adbe9ac272d161ea18e0fb56");

    let project = Project::new(
        "name: x\nstages:\n  s:\n    run: python ${inputs.script} > ${outputs.b}\n    inputs: { script: ./data/a.jsonl }\n    \
         outputs: { b: b.txt, a: a/ }\n",
    );
    let parts = project.parts("s");
    let text = listed(&parts);
    insta::assert_snapshot!(text, @r"
    key = 1
    kind = shell
    version = 1
    command = python ${inputs.script} > ${outputs.b}
    output.a = a/
    output.b = b.txt
    seed = 0
    input.script = 17762fddd969a453925d65717ac3eea21320b66b54342fde15128d6caf21215f
    input.script.name = data/a.jsonl
    ");
    insta::assert_snapshot!(parts.digest().to_string(), @r"bd4a848e2930567f99a708e8a50ed88ac31513e9ec322028e57550001db356ec");
}

#[test]
fn spelling_gates_and_defaults_change_nothing() {
    let project = Project::new(CHAIN);
    project.run(&Options::default());
    let respelled = "\
# A comment.
stages:
  eval:
    gates: { score: '>= 0.9' }
    with: { lr: 1.0e-1, more: null }
    inputs: { rows: 'train:rows' }
    retries: 3
    timeout: 10m
    uses: \"toy\"
  train: { with: { lr: 20e-2 }, inputs: { rows: [\"rows:out\", ./data/b.jsonl] }, uses: toy }
  rows:
    outputs: { out: out.jsonl }
    inputs: { a: data/a.jsonl }
    run: 'cat ${inputs.a} > ${outputs.out}'
name: other name
";
    project.write("pipeline.yaml", respelled);
    let told = project.run(&Options::default());
    assert_eq!(with(&told, &Happened::Fresh).len(), 3, "{told:?}");
}

#[test]
fn a_default_that_goes_and_comes_is_told_in_words() {
    let project = Project::new(CHAIN);
    project.run(&Options::default());
    project.write(
        "pipeline.yaml",
        &CHAIN.replace(
            "    with: { lr: 0.2 }\n",
            "    with: { more: [1] }\n    seed: 4\n",
        ),
    );
    let told = project.run(&Options::default());
    assert_eq!(
        sentences(&told, "train"),
        [
            "`with.more` is [1] now (it was not set)",
            "the seed changed: 0 -> 4",
            "`with.lr` is no longer set (it was 0.2)",
        ]
    );
}

#[test]
fn a_pin_is_part_of_the_key_and_a_result_is_kept_under_the_pinned_one() {
    let mut project = Project::new("name: x\nstages:\n  p:\n    uses: pull\n");
    let unpinned = project.parts("p");
    assert_eq!(unpinned.get("pin"), Some(""));
    project.lock.set_source("hub:o/d@main", "e7f4");
    let pinned = project.parts("p");
    assert_eq!(pinned, key::pinned(&unpinned, "e7f4"));
    assert_ne!(pinned.digest(), unpinned.digest());
    assert_eq!(ran(&project.run(&Options::default())), ["p"]);
    assert_eq!(
        with(&project.run(&Options::default()), &Happened::Fresh),
        ["p"]
    );
    project.lock.set_source("hub:o/d@main", "abcd");
    let told = project.run(&Options::default());
    assert_eq!(sentences(&told, "p"), ["its source moved: e7f4 -> abcd"]);

    project.lock = Lock::default();
    for options in [
        Options {
            frozen: true,
            ..Options::default()
        },
        Options {
            locked: true,
            ..Options::default()
        },
    ] {
        let error = project.try_run(&options).unwrap_err();
        assert_eq!(error.code(), "locked::no-pin");
        assert!(error.is_locked());
    }
}

#[test]
fn the_place_of_an_input_is_what_a_stage_may_see() {
    let project = Project::new(
        "name: x\nstages:\n  s:\n    run: a\n    inputs: { one: ./data/a.jsonl, many: [data/a.jsonl, /etc/hostname] }\n    \
         outputs: { o: sub/o.txt }\n  t:\n    uses: toy\n    inputs: { rows: [data/a.jsonl, s] }\n",
    );
    let (pipeline, graph) = project.open();
    let (store, lock) = (project.store(), Lock::default());
    let mut planner = Planner::new(&pipeline, &store, &lock, Options::default());
    let tree = store.put(&project.dir.path().join("data/a.jsonl")).unwrap();
    let settled = Settled::from([(0, BTreeMap::from([("o".to_owned(), tree)]))]);
    let mut places = Vec::new();
    for &stage in graph.order() {
        if let Decision::Run { inputs, .. } = planner.decide(stage, &settled).unwrap() {
            places.extend(inputs.values().flatten().map(|item| item.place.clone()));
        }
    }
    assert_eq!(
        places,
        [
            "data/a.jsonl",
            "inputs/many/1/hostname",
            "data/a.jsonl",
            "inputs/rows/0/a.jsonl",
            "inputs/rows/1/o.txt",
        ]
    );
    assert!(Path::new("/etc/hostname").exists());
}

#[test]
fn a_folder_that_holds_the_store_is_no_input() {
    let project = Project::new("name: x\nstages:\n  t:\n    uses: toy\n    inputs: { rows: ./ }\n");
    let error = project.try_run(&Options::default()).unwrap_err();
    assert_eq!(error.code(), "plan::holds-store");
}
