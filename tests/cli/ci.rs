//! What a run leaves for GitHub Actions.

use super::project::Project;

#[test]
fn a_job_gets_a_summary_and_annotations() {
    let project = Project::new(
        r#"
name: demo
stages:
  good:
    run: |
      echo '{"score": 0.5}' > ${outputs.metrics}
    outputs: { metrics: metrics.json }
    gates: { score: ">= 0.6" }
  bad:
    run: "exit 3"
    outputs: { x: x }
"#,
    );
    let run = |args: &[&str]| {
        let mut command = project.command(args);
        command.env("GITHUB_ACTIONS", "true");
        command.env("GITHUB_WORKSPACE", project.path());
        command.env("GITHUB_STEP_SUMMARY", project.at("summary.md"));
        command.output().expect("it starts")
    };
    let output = run(&["run", "-k"]);
    assert_eq!(output.status.code(), Some(1));
    // The two stages run side by side: which ends first is not promised.
    let told = String::from_utf8_lossy(&output.stderr);
    let mut told = told.lines().collect::<Vec<_>>();
    told.sort_unstable();
    insta::assert_snapshot!(told.join("\n"), @r"
    ::error file=pipeline.yaml,line=10,col=5,title=bad%3A run%3A%3Aexit::the command exits with status 3%0Alook at its log
    ::error file=pipeline.yaml,line=8,col=21,title=good%3A gate::score is 0.5, wanted >= 0.6
    ");
    let time = regex::Regex::new(r"\d+\.\d+s").expect("a pattern");
    let summary = project.read("summary.md");
    let mut lines = summary.lines().collect::<Vec<_>>();
    lines[4..6].sort_unstable();
    let summary = lines.join("\n");
    insta::assert_snapshot!(time.replace_all(&summary, "[TIME]"), @r"
    ### demo, profile default: failed in [TIME]

    | stage | outcome | time | metrics |
    | --- | --- | ---: | --- |
    | bad | **failed**: the command exits with status 3 | [TIME] |  |
    | good | ran | [TIME] | score 0.5 |

    | gate | value | wanted | |
    | --- | ---: | --- | --- |
    | good score | 0.5 | >= 0.6 | **broken** |
    ");
    project.edit("pipeline.yaml", "run: \"exit 3\"", "rum: \"exit 3\"");
    let output = run(&["check"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let annotation = told
        .lines()
        .filter(|line| line.starts_with("::error"))
        .collect::<Vec<_>>();
    insta::assert_snapshot!(annotation.join("\n"), @r"
    ::error file=pipeline.yaml,line=9,col=3,title=config%3A%3Ano-action::stage `bad` does nothing%0Aadd `uses:` with a built-in stage, or `run:` with a command
    ::error file=pipeline.yaml,line=10,col=5,title=config%3A%3Aunknown-key::unknown key `rum` in a stage%0Adid you mean `run`?
    ");
}
