//! `compare`, and `explain` between two runs.

use super::project::Project;

const SWEEP: &str = r#"
name: demo
params: { lr: 1e-3, rank: 4 }
stages:
  train:
    run: printf '%s\n' "${rank} ${lr}" > ${outputs.adapter}
    outputs: { adapter: adapter.txt }
    env: { RANK: "${rank}" }
    matrix: { rank: [4, 8] }
  eval:
    run: |
      awk '{ printf "{\"score\": %f, \"loss\": 0.5}\n", $1 }' ${inputs.adapter} > ${outputs.metrics}
    inputs: { adapter: train }
    outputs: { metrics: metrics.json }
"#;

#[test]
fn results_are_compared_by_what_made_them() {
    let project = Project::new(SWEEP);
    insta::assert_snapshot!(project.says(&["compare"]), @r"
    exit 1
    ----- stderr -----
    compare::nothing

      × there is no result to compare
      help: run the pipeline, or name a stage that has run: tunesmith compare STAGE
    ");
    project.ok(&[]);
    insta::assert_snapshot!(project.says(&["compare"]), @r#"
    exit 0
    ----- stdout -----
    stage         from  train.command                             train.env.RANK  loss  score
    eval[rank=4]  now   printf '%s\n' "4 0.001" > ${outputs.ada…  4                0.5      4
    eval[rank=8]  now   printf '%s\n' "8 0.001" > ${outputs.ada…  8                0.5      8
    "#);
    insta::assert_snapshot!(project.says(&["compare", "--format", "markdown"]), @r#"
    exit 0
    ----- stdout -----
    | stage | from | train.command | train.env.RANK | loss | score |
    | --- | --- | --- | --- | --- | --- |
    | eval[rank=4] | now | printf '%s\n' "4 0.001" > ${outputs.ada… | 4 | 0.5 | 4 |
    | eval[rank=8] | now | printf '%s\n' "8 0.001" > ${outputs.ada… | 8 | 0.5 | 8 |
    "#);
    insta::assert_snapshot!(project.says(&["compare", "eval[rank=8]", "--format", "csv"]), @r"
    exit 0
    ----- stdout -----
    stage,from,loss,score
    eval[rank=8],now,0.5,8
    ");
    insta::assert_snapshot!(project.says(&["compare", "eval[rank=8]", "--json"]), @r#"
    exit 0
    ----- stdout -----
    {"stage":"eval[rank=8]","from":"now","parameters":{"eval.command":"awk '{ printf \"{\\\"score\\\": %f, \\\"loss\\\": 0.5}\\n\", $1 }' ${inputs.adapter} > ${outputs.metrics}\n","eval.seed":"0","eval.version":"1","train.command":"printf '%s\\n' \"8 0.001\" > ${outputs.adapter}","train.env.RANK":"8","train.seed":"0","train.version":"1"},"metrics":{"loss":0.5,"score":8.0}}
    "#);
}

#[test]
fn history_and_other_lock_files_are_rows_too() {
    let project = Project::new(SWEEP);
    project.ok(&[]);
    std::fs::copy(project.at("pipeline.lock"), project.at("other.lock")).expect("a copy");
    project.edit("pipeline.yaml", "lr: 1e-3", "lr: 5e-4");
    project.edit("pipeline.yaml", "[4, 8]", "[4]");
    project.ok(&[]);
    insta::assert_snapshot!(project.says(&["compare", "eval", "--lock", "other.lock"]), @r#"
    exit 0
    ----- stdout -----
    stage         from        train.command                             train.env.RANK  loss  score
    eval[rank=4]  now         printf '%s\n' "4 0.0005" > ${outputs.ad…  4                0.5      4
    eval[rank=4]  other.lock  printf '%s\n' "4 0.001" > ${outputs.ada…  4                0.5      4
    eval[rank=8]  other.lock  printf '%s\n' "8 0.001" > ${outputs.ada…  8                0.5      8
    "#);
    let history = project.ok(&["compare", "eval", "--history"]);
    assert_eq!(history.lines().count(), 1 + 3, "{history}");
    assert!(history.contains("[WHEN]"), "{history}");
    insta::assert_snapshot!(project.says(&["explain", "1", "2"]), @r"
    exit 0
    ----- stdout -----
    from run 1 to run 2

      eval[rank=4]   input `adapter` changed: [DIGEST] -> [DIGEST]
      eval[rank=8]   only in run 1
      train[rank=4]  its command changed
      train[rank=8]  only in run 1
    ");
    insta::assert_snapshot!(project.says(&["explain", "2", "2"]), @r"
    exit 0
    ----- stdout -----
    run 2 and run 2 had the same keys
    ");
    insta::assert_snapshot!(project.says(&["explain", "1", "7"]), @r"
    exit 2
    ----- stderr -----
    explain::no-run

      × there is no record of a run `7`
      help: name two from 1 to 2
    ");
    project.edit("pipeline.yaml", "lr: 5e-4", "lr: 6e-4");
    insta::assert_snapshot!(project.says(&["explain", "train"]), @r#"
    exit 0
    ----- stdout -----
    train[rank=4]  run: printf '%s\n' "4 0.0006" > ${outputs.adapter}

      state     would run
      because   its command changed
                  was  printf '%s\n' "4 0.0005" > ${outputs.adapter}
                  is   printf '%s\n' "4 0.0006" > ${outputs.adapter}
      compared  with its last result, [WHEN], of run 2
      last made [WHEN] in [TIME] on [HOST] by tunesmith [VERSION]
      outputs   adapter: out/default/train[rank=4]/adapter.txt  (9 B, [DIGEST])
      log       .tunesmith/logs/default/train[rank=4].log
      read by   eval[rank=4]
    "#);
}

#[test]
fn a_lock_of_another_branch_or_from_a_pipe_is_a_row_too() {
    let project = Project::new(SWEEP);
    let git = |args: &[&str]| {
        let mut git = std::process::Command::new("git");
        git.current_dir(project.path()).args(args);
        for (name, value) in [("NAME", "somebody"), ("EMAIL", "some@body")] {
            git.env(format!("GIT_AUTHOR_{name}"), value);
            git.env(format!("GIT_COMMITTER_{name}"), value);
        }
        let done = git.output().expect("git");
        assert!(done.status.success(), "{done:?}");
        done.stdout
    };
    git(&["init", "--quiet", "--initial-branch=trial"]);
    project.ok(&[]);
    git(&["add", "pipeline.yaml", "pipeline.lock"]);
    git(&["commit", "--quiet", "-m", "trial"]);
    git(&["checkout", "--quiet", "-b", "next"]);
    project.edit("pipeline.yaml", "lr: 1e-3", "lr: 5e-4");
    project.edit("pipeline.yaml", "$1 }", "$1 * 2 }");
    project.ok(&[]);
    insta::assert_snapshot!(project.says(&["compare", "eval[rank=4]", "--lock", "git:trial"]), @r#"
    exit 0
    ----- stdout -----
    stage         from   eval.command                              train.command                             loss  score
    eval[rank=4]  now    awk '{ printf "{\"score\": %f, \"loss\"…  printf '%s\n' "4 0.0005" > ${outputs.ad…   0.5      8
    eval[rank=4]  trial  awk '{ printf "{\"score\": %f, \"loss\"…  printf '%s\n' "4 0.001" > ${outputs.ada…   0.5      4
    "#);

    // The same lock from a pipe.
    let lock = git(&["show", "trial:pipeline.lock"]);
    let mut command = project.command(&["compare", "eval[rank=4]", "--lock", "-"]);
    command.stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, &lock).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it was started");
    insta::assert_snapshot!(project.page(&output), @r#"
    exit 0
    ----- stdout -----
    stage         from   eval.command                              train.command                             loss  score
    eval[rank=4]  now    awk '{ printf "{\"score\": %f, \"loss\"…  printf '%s\n' "4 0.0005" > ${outputs.ad…   0.5      8
    eval[rank=4]  stdin  awk '{ printf "{\"score\": %f, \"loss\"…  printf '%s\n' "4 0.001" > ${outputs.ada…   0.5      4
    "#);

    insta::assert_snapshot!(project.says(&["compare", "eval", "--lock", "git:nobody"]), @r"
    exit 2
    ----- stderr -----
    compare::lock

      × `git:nobody`: fatal: invalid object name 'nobody'.
      help: name a file, `-` for standard input, or `git:BRANCH`
    ");
}
