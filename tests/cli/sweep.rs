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
    insta::assert_snapshot!(project.says(&["plan"]), @r"
    exit 0
    ----- stdout -----
      rows                      run: it has no result yet
      train[lr=1e-4,rank=4]     not known before `rows` is done
      train[lr=1e-4,rank=8]     not known before `rows` is done
      train[lr=2e-4,rank=4]     not known before `rows` is done
      val-eval[lr=1e-4,rank=4]  not known before `rows` is done
      val-eval[lr=1e-4,rank=8]  not known before `rows` is done
      val-eval[lr=2e-4,rank=4]  not known before `rows` is done
      best                      not known before `rows` is done

    1 stage to run, 7 stages that may follow
    ");
    insta::assert_snapshot!(project.says(&["run", "-j1"]), @r"
    exit 0
    ----- stdout -----
    demo, profile default

      rows                      runs: it has no result yet
      rows                      done in [TIME]
      train[lr=1e-4,rank=4]     runs: it has no result yet
      train[lr=1e-4,rank=4]     done in [TIME]
      train[lr=1e-4,rank=8]     runs: it has no result yet
      train[lr=1e-4,rank=8]     done in [TIME]
      train[lr=2e-4,rank=4]     runs: it has no result yet
      train[lr=2e-4,rank=4]     done in [TIME]
      val-eval[lr=1e-4,rank=4]  runs: it has no result yet
      val-eval[lr=1e-4,rank=4]  done in [TIME]
      val-eval[lr=1e-4,rank=8]  runs: it has no result yet
      val-eval[lr=1e-4,rank=8]  done in [TIME]
      val-eval[lr=2e-4,rank=4]  runs: it has no result yet
      val-eval[lr=2e-4,rank=4]  done in [TIME]
      best                      picks val-eval[lr=1e-4,rank=8]: val-eval.score 80000, the largest of 3
      best                      runs: it has no result yet
      best                      done in [TIME]

      rows                      ran [TIME]
      train[lr=1e-4,rank=4]     ran [TIME]
      train[lr=1e-4,rank=8]     ran [TIME]
      train[lr=2e-4,rank=4]     ran [TIME]
      val-eval[lr=1e-4,rank=4]  ran [TIME]
      val-eval[lr=1e-4,rank=8]  ran [TIME]
      val-eval[lr=2e-4,rank=4]  ran [TIME]
      best                      ran [TIME]

      done in [TIME], 8 stages ran
      results  out/default/
    ");
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
    insta::assert_snapshot!(project.says(&["plan", "--check"]), @r"
    exit 0
    ----- stdout -----
      rows                      up to date
      train[lr=1e-4,rank=4]     up to date
      train[lr=1e-4,rank=8]     up to date
      train[lr=2e-4,rank=4]     up to date
      val-eval[lr=1e-4,rank=4]  up to date
      val-eval[lr=1e-4,rank=8]  up to date
      val-eval[lr=2e-4,rank=4]  up to date
      best                      up to date
                                picks val-eval[lr=1e-4,rank=8]: val-eval.score 80000, the largest of 3

    8 stages up to date
    ");
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
    insta::assert_snapshot!(project.says(&[]), @r"
    exit 0
    ----- stdout -----
    demo, profile default

      best                      picks val-eval[lr=2e-4,rank=4]: val-eval.score 200000, the smallest of 3
      best                      runs: input `adapter` changed: [DIGEST] -> [DIGEST]
      best                      done in [TIME]

      best                      ran [TIME]
      7 stages up to date

      done in [TIME], 1 stage ran
      results  out/default/
    ");
}

#[test]
fn cells_are_named_on_the_command_line() {
    let project = sweep();
    let said = project.ok(&["run", "train[lr=0.0001]"]);
    assert!(said.contains("3 stages ran"), "{said}");
    let said = project.ok(&["run", "train"]);
    assert!(said.contains("1 stage ran"), "{said}");
    insta::assert_snapshot!(project.says(&["run", "train[lr=3e-4]"]), @r"
    exit 2
    ----- stderr -----
    config::unknown-stage

      × there is no cell `train[lr=3e-4]` in profile `default`
      help: known cells: train[lr=1e-4,rank=4], train[lr=1e-4,rank=8], train[lr=2e-4,rank=4]
    ");
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
    insta::assert_snapshot!(project.says(&["--set", "say.retries=many", "plan"]), @r#"
    exit 2
    ----- stderr -----
    config::wrong-type

      × `--set say.retries=many`: `retries` takes a whole number from 0 to 100, not `"many"`
      help: write a number in that range
    "#);
    insta::assert_snapshot!(project.says(&["--set", "sya.retries=1", "plan"]), @r"
    exit 2
    ----- stderr -----
    config::set

      × `--set sya.retries=1`: `sya.retries` names no field of a stage
      help: did you mean `say`?
    ");
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
    insta::assert_snapshot!(refused("val-eval:\n", "val-eval:\n    gates: { score: '>= 1' }\n"), @r#"
    exit 2
    ----- stderr -----
    config::pick-on-gate

      × `pick` chooses by `val-eval`, whose gates judge the choice
        ╭─[pipeline.yaml:29:18]
     19 │   val-eval:
        ·   ────┬───
        ·       ╰── this stage has gates
     20 │     gates: { score: '>= 1' }
     21 │     run: |
     22 │       tail -n 1 ${inputs.adapter} | awk '{ printf "{\"score\": %f}\n", $1 / $2 }' > ${outputs.metrics}
     23 │     inputs: { adapter: train }
     24 │     outputs: { metrics: metrics.json }
     25 │   best:
     26 │     run: cp ${inputs.adapter} ${outputs.adapter}
     27 │     inputs: { adapter: train }
     28 │     outputs: { adapter: adapter.txt }
     29 │     pick: { max: val-eval.score }
        ·                  ──────────────
        ╰────
      help: measure the cells on val or on a dev split, in a stage without gates
    "#);
    insta::assert_snapshot!(refused("    pick: { max: val-eval.score }", "    effect: external"), @r"
    exit 2
    ----- stderr -----
    config::effect-in-cell

      × `best` acts outside, and would do so in each of 3 cells
        ╭─[pipeline.yaml:24:3]
     24 │   best:
        ·   ────
        ╰────
      help: let it, or a stage above it, `pick` one cell
    ");
    insta::assert_snapshot!(refused("    run: cp ${inputs.adapter} ${outputs.adapter}", "    run: echo ${lr} > ${outputs.adapter}"), @r"
    exit 2
    ----- stderr -----
    config::after-pick

      × `lr` is swept above, and which value `best` picks is not known before the run
        ╭─[pipeline.yaml:25:15]
     25 │     run: echo ${lr} > ${outputs.adapter}
        ·               ──┬──
        ·                 ╰── not known
        ╰────
      help: move what needs it into a stage of the sweep, whose output is picked
    ");
    insta::assert_snapshot!(refused("exclude: [{ lr: 2e-4, rank: 8 }]", "exclude: [{ lr: 3e-4 }]"), @r"
    exit 2
    ----- stderr -----
    config::no-cells

      × this excludes no cell
        ╭─[pipeline.yaml:18:17]
     18 │       exclude: [{ lr: 3e-4 }]
        ·                 ────────────
        ╰────
      help: write values as they stand in the axes, or take it out
    ");
    insta::assert_snapshot!(refused("      lr: [1e-4, 0.0002]", "      lrr: [1e-4, 0.0002]"), @r"
    exit 2
    ----- stderr -----
    config::undefined-param

      × `matrix` binds `lrr`, which is no parameter
        ╭─[pipeline.yaml:16:7]
     16 │       lrr: [1e-4, 0.0002]
        ·       ───
        ╰────
      help: did you mean `lr`?
    ");
}

#[test]
fn a_fingerprint_is_a_part_of_the_key_and_is_asked_once() {
    let project = Project::new(
        r"
name: demo
stages:
  say:
    run: echo hello > ${outputs.text}
    outputs: { text: text.txt }
    fingerprint: ./tool --version
",
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
    insta::assert_snapshot!(project.says(&["plan"]), @r"
    exit 0
    ----- stdout -----
      say       run: the tool changed: `./tool --version` says tool 1.0 -> tool 2.0.1

    1 stage to run
    ");
    assert_eq!(project.marks("asked").len(), 2);
    std::fs::remove_file(project.at("tool")).expect("it was there");
    insta::assert_snapshot!(project.says(&["run"]), @r"
    exit 1
    ----- stdout -----
    demo, profile default

      say       failed after [TIME]
                plan::fingerprint: the fingerprint `./tool --version` of `say` says nothing: it ended with exit status: 127: sh: 1: ./tool: not found
                  at pipeline.yaml:4:3
                mend install the program, or name one that is on PATH

      say       failed [TIME]

      failed in [TIME], 0 stages ran
      next     tunesmith log say
    ");
}

#[test]
fn a_pick_on_the_prompts_of_the_gated_eval_is_refused() {
    let project = Project::new(
        r#"
name: demo
params: { context: 512 }
stages:
  base:
    run: mkdir -p ${outputs.model}
    outputs: { model: model/ }
  score:
    uses: eval
    inputs: { base: base, prompts: ./prompts.jsonl, tools: ./tools.yaml }
    matrix: { context: [512, 1024] }
  judge:
    uses: eval
    inputs: { base: best, prompts: ./prompts.jsonl, tools: ./tools.yaml }
    gates: { tool_selection: ">= 0.5" }
  best:
    run: cp -r ${inputs.base}/. ${outputs.model}
    inputs: { base: base }
    outputs: { model: model/ }
    pick: { max: score.tool_selection }
"#,
    );
    project.write("prompts.jsonl", "");
    project.write("tools.yaml", "tools: []\n");
    let said = project.says(&["plan"]);
    assert!(
        said.starts_with("exit 2")
            && said.contains("`pick` chooses by `score`, which reads the prompts of `judge`"),
        "{said}"
    );
}
