//! What a good file means.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use stages::Effect;

use super::{open, open_with};
use crate::config::{Action, Pipeline, Reference, StageSpec};

pub(super) const FILE: &str = "
# a comment
name: assistant
seed: 7
default_profile: laptop
params: { rank: 16, lr: 2e-4, sources: [raw], max: null, least: 0.8 }
profiles:
  laptop: {}
  big:
    rank: 64
    sources: [raw, more, ./data/rows.jsonl]
default: model
pools: { gpu: 2, license: 3, memory: 64GiB }
checkpoints: { max_age: 2d, max_size: 1.5GiB, keep: true }
x-limits: &limits
  retries: 2
  timeout: 1h30m
stages:
  model:
    about: the adapter
    uses: train
    inputs: { base: raw:card, rows: \"${sources}\", val: \"${max}\" }
    with:
      r: ${rank}
      alpha: ${2 * rank}
      lr: ${lr}
      method: qlora
      schedule: { steps: \"${rank * 10}\", name: \"cosine-${rank}\" }
    gates: { loss: \"<= 2\", tools: \">= ${least}\" }
    resources: { gpu: 1, license: 2, memory: 8GiB, disk: 500MB }
    <<: *limits
  raw:
    uses: fetch
    with: { dataset: a/b }
    seed: 11
  more:
    uses: fetch
    with: { dataset: c/d, take: 5 }
    profiles: [big]
  report:
    run: |
      python ${inputs.script} --rank ${rank} --home $${HOME} $USER > ${ outputs.page }
    inputs: { script: ./train.py, model: model:log }
    outputs: { page: ./page.html, extra: extra/ }
    env: { VERSION: 1.10, FLAG: true, NAME: \"r${rank}\", OCTAL: 012 }
    secrets: HF_TOKEN
    effect: external
";

fn stage<'a>(pipeline: &'a Pipeline, id: &str) -> &'a StageSpec {
    pipeline.stages.iter().find(|stage| stage.id == id).unwrap()
}

fn product(stage: &str, product: &str) -> Reference {
    let (stage, product) = (stage.to_owned(), product.to_owned());
    Reference::Product { stage, product }
}

fn given(stage: &StageSpec) -> serde_json::Value {
    match &stage.action {
        Action::Builtin { params, .. } => json!(params.given()),
        Action::Shell { .. } => panic!("a built-in stage"),
    }
}

#[test]
fn a_builtin_stage_under_two_profiles() {
    let (small, _) = open(FILE).unwrap_or_else(|faults| panic!("{faults}"));
    let model = stage(&small, "model");
    assert_eq!(small.profile, "laptop");
    assert_eq!(small.stages.len(), 3);
    assert_eq!(
        given(model),
        json!({"schedule": {"steps": 160, "name": "cosine-16"}})
    );
    assert_eq!(model.inputs[0].references, [product("raw", "card")]);
    assert_eq!(model.inputs[1].references, [product("raw", "rows")]);
    assert_eq!(model.inputs[2].references, []);
    assert_eq!(model.limits.retries, 2);
    assert_eq!(model.limits.timeout, Some(Duration::from_mins(90)));
    let claims = ["cpu", "disk", "gpu", "license", "memory"].map(|pool| model.resources.of(pool));
    assert_eq!(claims, [0, 500_000_000, 1, 2, 8 << 30]);
    assert_eq!(stage(&small, "raw").resources.of("net"), 1);
    assert_eq!(small.pools["memory"], 64 << 30);
    assert_eq!(small.checkpoints.age, Duration::from_hours(48));
    assert_eq!(small.checkpoints.size, 3 << 29);
    assert!(small.checkpoints.keep);
    assert_eq!((model.seed, stage(&small, "raw").seed), (7, 11));
    assert!(!model.gates[0].at_least && model.gates[1].at_least);
    assert_eq!(
        (model.gates[0].threshold, model.gates[1].threshold),
        (2.0, 0.8)
    );

    let (big, graph) = open_with(FILE, Some("big"), &["lr=1e-3"]).unwrap_or_else(|f| panic!("{f}"));
    let model = stage(&big, "model");
    assert_eq!(given(model)["r"], json!(64));
    assert_eq!(given(model)["alpha"], json!(128.0));
    assert_eq!(given(model)["lr"], json!(1e-3));
    assert_eq!(
        model.inputs[1].references,
        [
            product("raw", "rows"),
            product("more", "rows"),
            Reference::Path(PathBuf::from("data/rows.jsonl"))
        ]
    );
    let names = |stages: &[usize]| -> Vec<&str> {
        stages
            .iter()
            .map(|stage| big.stages[*stage].id.as_str())
            .collect()
    };
    assert_eq!(names(graph.order()), ["raw", "more", "model", "report"]);
    assert_eq!(
        names(&graph.selection(&big, &[]).unwrap()),
        ["raw", "more", "model"]
    );
    assert_eq!(
        names(&graph.ancestors(&[3])),
        ["raw", "more", "model", "report"]
    );
    assert_eq!(names(&graph.descendants(&[2])), ["more", "model", "report"]);
    assert_eq!(graph.heights(), [2, 3, 3, 1]);
    assert!(graph.selection(&big, &["modle".to_owned()]).is_err());
}

#[test]
fn a_shell_stage() {
    let (pipeline, _) = open(FILE).unwrap_or_else(|faults| panic!("{faults}"));
    let report = stage(&pipeline, "report");
    let Action::Shell { command, .. } = &report.action else {
        panic!("a command")
    };
    assert_eq!(
        command,
        "python ${inputs.script} --rank 16 --home ${HOME} $USER > ${outputs.page}\n"
    );
    assert_eq!(
        report.products(),
        [("page", "page.html"), ("extra", "extra/")]
    );
    let env: Vec<_> = report
        .env
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        env,
        [
            ("FLAG", "true"),
            ("NAME", "r16"),
            ("OCTAL", "012"),
            ("VERSION", "1.10")
        ]
    );
    assert_eq!(report.secrets, ["HF_TOKEN"]);
    assert_eq!(report.effect, Effect::External);
    assert_eq!(report.place("env.NAME.x"), report.spans["env.NAME"]);
    assert_eq!(&pipeline.text[report.place("env.NAME")], "\"r${rank}\"");
    assert_eq!(&pipeline.text[report.place("nothing")], "report");
}

#[test]
fn order_comments_and_written_defaults_mean_the_same() {
    let other = "
stages:
  model:
    with: { lr: 0.0002, r: 16.0, alpha: 32, method: 'qlora' }   # all defaults
    inputs:
      rows: [raw]
      base: \"raw\"
    uses: train
  raw: { with: { dataset: \"a/b\", take: 100 }, uses: fetch }
name: assistant
";
    let plain = "
name: assistant
stages:
  raw: { uses: fetch, with: { dataset: a/b } }
  model: { uses: train, inputs: { base: raw, rows: raw } }
";
    let (a, _) = open(other).unwrap_or_else(|faults| panic!("{faults}"));
    let (b, _) = open(plain).unwrap_or_else(|faults| panic!("{faults}"));
    for id in ["raw", "model"] {
        assert_eq!(given(stage(&a, id)), given(stage(&b, id)));
        let inputs = |p: &Pipeline| {
            let mut all: Vec<_> = stage(p, id)
                .inputs
                .iter()
                .map(|i| (i.name.clone(), i.references.clone()))
                .collect();
            all.sort();
            all
        };
        assert_eq!(inputs(&a), inputs(&b));
    }
}
