//! One file per slip, and what is said about it.

use insta::assert_snapshot;

use super::super::load::load_text;
use super::{STAGES, drawn, folder, open_with, refused};
use crate::config::Overrides;
use crate::graph;

#[test]
fn unknown_stage_kind() {
    assert_snapshot!(refused(
        "name: a
stages:
  model:
    uses: trian
    inputs: { base: ./data/rows.jsonl, rows: ./data/rows.jsonl }
"
    ), @"");
}

#[test]
fn unknown_keys_everywhere() {
    assert_snapshot!(refused(
        "name: a
prams: { lr: 1 }
stages:
  raw:
    uses: fetch
    with: { datset: glaive }
    retrys: 2
    resources: { tpu: 1 }
  b:
    run: cat ${inputs.a} > ${outputs.b}
    input: { a: raw }
    with: { x: 1 }
    outputs: { b: b.txt }
"
    ), @"");
}

#[test]
fn wrong_types() {
    assert_snapshot!(refused(
        "name: 7
seed: -1
stages:
  raw:
    uses: fetch
    with:
      dataset: glaive
      take: many
      revision: 7e10
      files: config.json
    retries: lots
    timeout: 10
  model:
    uses: train
    inputs: { base: [raw, raw], rows: raw }
    with: { r: 1000, resume: yes, method: dora, schedule: cosine }
    gates: { loss: 0.5 }
    secrets: { a: b }
"
    ), @"");
}

#[test]
fn a_cycle_is_named_stage_by_stage() {
    assert_snapshot!(refused(
        "name: a
stages:
  one:
    run: cp ${inputs.x} ${outputs.y}
    inputs:
      x: three
    outputs: { y: y }
  two:
    run: cp ${inputs.x} ${outputs.y}
    inputs:
      x: one
    outputs: { y: y }
  three:
    run: cp ${inputs.x} ${outputs.y}
    inputs:
      x: two
    outputs: { y: y }
  self:
    run: cp ${inputs.x} ${outputs.y}
    inputs: { x: self }
    outputs: { y: y }
"
    ), @"");
}

#[test]
fn missing_inputs() {
    assert_snapshot!(refused(
        "name: a
stages:
  model:
    uses: train
    inputs: { base: ./data/row.jsonl, rows: [modle, train.py, model:adaptor], vla: model }
  push:
    uses: upload
  again:
    run: cat ${inputs.old} ${inputs.new} ${outputs.c}
    inputs: { old: out/laptop/model/adapter, home: ~/x }
    outputs: { b: ../b }
"
    ), @"");
}

#[test]
fn undefined_params() {
    assert_snapshot!(refused(
        "name: a
params: { rank: 16, lr: 2e-4, base: smol }
profiles:
  laptop: { epcohs: 2 }
  big: { rnk: 32, size: 7 }
stages:
  raw:
    uses: fetch
    with: { dataset: \"${bsae}\", take: \"${size}\" }
  model:
    uses: train
    inputs: { base: raw, rows: raw }
    with: { r: \"${2 * rnak}\", alpha: \"${rank / (16 - rank)}\", lr: \"${lr\" }
  shell:
    run: echo ${HOME} ${base * 2} > ${outputs.o}
    outputs: { o: o }
"
    ), @"");
}

#[test]
fn duplicate_keys() {
    assert_snapshot!(refused(
        "name: a
stages:
  raw:
    uses: fetch
    with: { dataset: one, dataset: two }
  raw:
    uses: fetch
    with: { dataset: three }
name: b
"
    ), @"");
}

#[test]
fn a_secret_is_reported_and_never_shown() {
    let secret = format!("hf_{}", "Ab1".repeat(11));
    let text = refused(&format!(
        "name: a
params: {{ key: {secret} }}
stages:
  push:
    uses: upload
    inputs: {{ adapter: ./data/rows.jsonl }}
    with: {{ tokn: {secret} }}
    env: {{ TOKEN: {secret} }}
"
    ));
    assert!(!text.contains(&secret), "{text}");
    assert_snapshot!(text, @"");
}

#[test]
fn the_value_of_a_declared_secret_is_a_secret() {
    let yaml = "name: a
stages:
  push:
    run: curl -u me:correct-horse https://example.org > ${outputs.o}
    outputs: { o: o }
    secrets: [UPLOAD_PASSWORD]
";
    let folder = folder(yaml.as_bytes());
    let file = folder.path().join("pipeline.yaml");
    let env = |name: &str| (name == "UPLOAD_PASSWORD").then(|| "correct-horse".to_owned());
    let loaded = load_text(&file, yaml.to_owned(), &Overrides::default(), &STAGES, &env);
    let faults = loaded
        .unwrap_or_else(|_| panic!("the text parses"))
        .finish(Vec::new());
    assert_snapshot!(drawn(faults.err().expect("a secret is a fault")), @"");
}

#[test]
fn syntax_errors_have_a_place() {
    for yaml in [
        "name: [a",
        "a: b: c",
        "a:\n\t- b",
        "\"open",
        "- a\nb: c",
        "*x",
        "a: &x [*x]",
        "--- a\n--- b",
    ] {
        let faults = super::open(yaml).err().expect(yaml);
        let fault = &faults.items[0];
        let span = fault.span.clone().expect("a place");
        assert!(
            span.end <= yaml.len() && !fault.mend.is_empty(),
            "{yaml}: {fault:?}"
        );
    }
    assert_snapshot!(refused("name: a\nstages:\n  raw:\n    uses: fetch\n   with: {}\n"), @"");
}

#[test]
fn an_unquoted_expression_inside_braces() {
    assert_snapshot!(refused(
        "name: a
params: { rank: 1 }
stages:
  m:
    uses: train
    with: { r: ${rank}, lr: 1 }
"
    ), @"");
}

#[test]
fn what_a_stage_knows_to_be_wrong() {
    let yaml = "name: a
stages:
  raw: { uses: fetch, with: { dataset: x } }
  cut: { run: 'head ${inputs.a} > ${outputs.o}', inputs: { a: raw }, outputs: { o: o } }
  model:
    uses: train
    inputs: { base: cut, rows: [./data/rows.jsonl, raw] }
    with: { r: 13 }
";
    let (pipeline, graph) = super::open(yaml).unwrap_or_else(|faults| panic!("{faults}"));
    let faults = crate::check::stages(&pipeline, &graph, graph.order());
    assert_snapshot!(drawn(faults.err().expect("a fault")), @"");
}

#[test]
fn what_comes_later_is_refused_by_name() {
    assert_snapshot!(refused(
        "name: a
store: /mnt/shared
stages:
  raw:
    uses: fetch
    with: { dataset: a }
    matrix: { take: [1, 2] }
    pick: { max: raw.rows }
    executor: slurm
"
    ), @"");
}

#[test]
fn two_actions_none_and_bad_names() {
    assert_snapshot!(refused(
        "name: a
default: [rwa]
pools: { gpu: 1 }
stages:
  \"a/b\":
    uses: fetch
    run: ls
  none: {}
  quiet:
    run: ls
  big:
    run: ls > ${outputs.o}
    outputs: { o: o, p: o/p }
    resources: { gpu: 2 }
    env: { \"A-B\": 1, C: [1] }
    secrets: [C]
    retries: '2'
    profiles: [laptop]
"
    ), @"");
}

#[test]
fn command_line_faults_stand_in_no_line() {
    let yaml = "name: a
params: { lr: 1 }
profiles: { laptop: {}, big: {} }
stages:
  raw: { uses: fetch, with: { dataset: x } }
";
    let faults = open_with(yaml, Some("labtop"), &["lr", "lrr=2", "lr=[", "lr=2"]);
    assert_snapshot!(drawn(faults.err().expect("faults")), @"");
}

#[test]
fn faults_of_different_rooms_come_together() {
    assert_snapshot!(refused(
        "name: a
stages:
  loop:
    run: cp ${inputs.x} ${outputs.y}
    inputs: { x: loop }
    outputs: { y: y }
    retires: 2
  raw:
    uses: fetch
    with: { dataset: x, take: 0 }
  raw: {}
"
    ), @"");
}

#[test]
fn a_file_that_is_no_text_or_not_there() {
    let folder = folder(b"name: a\nx: \xff\n");
    let file = folder.path().join("pipeline.yaml");
    let overrides = Overrides::default();
    let faults = graph::open(&file, &overrides, &STAGES)
        .err()
        .expect("no UTF-8");
    assert_snapshot!(drawn(faults), @"");
    let faults = graph::open(&folder.path().join("no.yaml"), &overrides, &STAGES);
    let faults = faults.err().expect("no file");
    assert_eq!(faults.items[0].code, "config::unreadable");
    let faults = crate::config::find(folder.path().join("data").as_path());
    assert_eq!(faults.ok(), Some(std::path::absolute(&file).unwrap()));
}
