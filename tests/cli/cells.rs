//! Which cells a sweep has: what `include` adds, and stages that join sweeps.

use super::project::Project;

/// Two sweeps that know nothing of each other, and a stage that reads both.
const TWO_SWEEPS: &str = r#"
name: demo
params: { lr: 1e-3, prompt: short }
stages:
  train:
    run: echo "lr ${lr}" > ${outputs.adapter}
    outputs: { adapter: adapter.txt }
    matrix: { lr: [1e-4, 2e-4] }
  loss:
    run: cp ${inputs.adapter} ${outputs.loss}
    inputs: { adapter: train }
    outputs: { loss: loss.txt }
  prompts:
    run: echo "prompt ${prompt}" > ${outputs.prompts}
    outputs: { prompts: prompts.txt }
    matrix: { prompt: [long, short] }
  eval:
    run: cat ${inputs.adapter} ${inputs.loss} ${inputs.prompts} > ${outputs.score}; echo "with ${lr} ${prompt}" >> ${outputs.score}
    inputs: { adapter: train, loss: loss, prompts: prompts }
    outputs: { score: score.txt }
"#;

#[test]
fn a_stage_that_joins_two_sweeps_has_every_combination_and_one_cell_of_each_sweep() {
    let project = Project::new(TWO_SWEEPS);
    project.ok(&[]);
    let files = project.files("out/default");
    let names: Vec<_> = files.iter().map(|(path, _)| &**path).collect();
    insta::assert_debug_snapshot!(names, @r#"
    [
        "eval[lr=1e-4,prompt=long]/score.txt",
        "eval[lr=1e-4,prompt=short]/score.txt",
        "eval[lr=2e-4,prompt=long]/score.txt",
        "eval[lr=2e-4,prompt=short]/score.txt",
        "loss[lr=1e-4]/loss.txt",
        "loss[lr=2e-4]/loss.txt",
        "prompts[prompt=long]/prompts.txt",
        "prompts[prompt=short]/prompts.txt",
        "train[lr=1e-4]/adapter.txt",
        "train[lr=2e-4]/adapter.txt",
    ]
    "#);
    for lr in ["1e-4", "2e-4"] {
        for prompt in ["long", "short"] {
            // One cell of `train` however many ways lead to it, and the parameters of both sweeps.
            let written = lr.replace("1e-4", "0.0001").replace("2e-4", "0.0002");
            assert_eq!(
                project.read(&format!(
                    "out/default/eval[lr={lr},prompt={prompt}]/score.txt"
                )),
                format!("lr {written}\nlr {written}\nprompt {prompt}\nwith {written} {prompt}\n")
            );
        }
    }
    // A value more in one sweep: two cells more of the join, and of the other sweep none.
    project.edit("pipeline.yaml", "[1e-4, 2e-4]", "[1e-4, 2e-4, 4e-4]");
    insta::assert_snapshot!(project.ok(&["plan"]), @r"
      train[lr=1e-4]              up to date
      train[lr=2e-4]              up to date
      train[lr=4e-4]              run: it has no result yet
      loss[lr=1e-4]               up to date
      loss[lr=2e-4]               up to date
      loss[lr=4e-4]               not known before `train[lr=4e-4]` is done
      prompts[prompt=long]        up to date
      prompts[prompt=short]       up to date
      eval[lr=1e-4,prompt=long]   up to date
      eval[lr=1e-4,prompt=short]  up to date
      eval[lr=2e-4,prompt=long]   up to date
      eval[lr=2e-4,prompt=short]  up to date
      eval[lr=4e-4,prompt=long]   not known before `train[lr=4e-4]` is done
      eval[lr=4e-4,prompt=short]  not known before `train[lr=4e-4]` is done

    1 stage to run, 3 stages that may follow, 10 stages up to date
    ");
    let said = project.ok(&[]);
    assert!(said.contains("4 stages ran"), "{said}");
    let said = project.ok(&[]);
    assert!(said.starts_with("up to date: 14 stages"), "{said}");
}

#[test]
fn include_adds_a_cell_beside_the_product() {
    let project = Project::new(
        r#"
name: demo
params: { lr: 1e-3, rank: 4 }
stages:
  train:
    run: echo "${rank} ${lr}" > ${outputs.adapter}
    outputs: { adapter: adapter.txt }
    matrix:
      lr: [1e-4, 2e-4]
      rank: [8]
      include:
        - { lr: 5e-5, rank: 64 }
        - { lr: 0.0001, rank: 8 }
"#,
    );
    // The second one is there already, however it is written.
    insta::assert_snapshot!(project.ok(&["plan"]), @r"
      train[lr=1e-4,rank=8]   run: it has no result yet
      train[lr=2e-4,rank=8]   run: it has no result yet
      train[lr=5e-5,rank=64]  run: it has no result yet

    3 stages to run
    ");
    project.ok(&[]);
    assert_eq!(
        project.read("out/default/train[lr=5e-5,rank=64]/adapter.txt"),
        "64 0.00005\n"
    );
    // Under `--set` on an axis it stays where it has that value.
    let said = project.ok(&["plan", "--set", "rank=64"]);
    assert!(said.contains("train[lr=5e-5,rank=64]"), "{said}");
    let said = project.ok(&["plan", "--set", "rank=16"]);
    assert!(!said.contains("rank=64"), "{said}");
    project.edit("pipeline.yaml", "{ lr: 5e-5, rank: 64 }", "{ rank: 64 }");
    insta::assert_snapshot!(project.says(&["plan"]), @r"
    exit 2
    ----- stderr -----
    config::missing-field

      × the cell to include has no `lr`
        ╭─[pipeline.yaml:12:11]
     12 │         - { rank: 64 }
        ·           ────────────
        ╰────
      help: give a value for every axis of the matrix
    ");
    project.edit(
        "pipeline.yaml",
        "{ rank: 64 }",
        "{ lr: 1e-5, rank: 64, epochs: 3 }",
    );
    insta::assert_snapshot!(project.says(&["plan"]), @r"
    exit 2
    ----- stderr -----
    config::unknown-key

      × unknown key `epochs` in the matrix
        ╭─[pipeline.yaml:12:33]
     12 │         - { lr: 1e-5, rank: 64, epochs: 3 }
        ·                                 ───┬──
        ·                                    ╰── unknown
        ╰────
      help: known keys: lr, rank
    ");
}
