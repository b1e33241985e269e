//! What goes wrong while a stage runs: place, cause, mend, exit code.

use std::process::{Command, Stdio};

use super::project::Project;

#[test]
fn a_command_that_fails() {
    let project = Project::new(
        r"
name: demo
stages:
  first:
    run: echo working >&2; echo 'no such thing' >&2; exit 3
    outputs: { it: it.txt }
  second:
    run: cp ${inputs.it} ${outputs.it}
    inputs: { it: first }
    outputs: { it: it.txt }
",
    );
    insta::assert_snapshot!(project.says(&[]), @r"
    exit 1
    ----- stdout -----
    demo, profile default

      first     runs: it has no result yet
      first     failed after [TIME]
                run::exit: the command exits with status 3
                  at pipeline.yaml:5:5
                mend look at its log
                 log the end of .tunesmith/logs/default/first.log
                   | working
                   | no such thing
      second    skipped: `first` failed

      first     failed [TIME]
      1 stage skipped

      failed in [TIME], 0 stages ran
      next     tunesmith log first
    ");
    project.verify();
}

#[test]
fn an_output_that_is_not_written() {
    let project = Project::new(
        r#"
name: demo
stages:
  first:
    run: touch other.txt
    outputs: { it: it.txt }
  empty:
    run: "true"
    outputs: { it: it/ }
"#,
    );
    insta::assert_snapshot!(project.says(&["run", "first"]), @r"
    exit 1
    ----- stdout -----
    demo, profile default

      first     runs: it has no result yet
      first     failed after [TIME]
                run::missing-output: the output `it` (`it.txt`) was not written by `first`
                  at pipeline.yaml:6:5
                mend let the command write it, or take it out of `outputs`

      first     failed [TIME]

      failed in [TIME], 0 stages ran
      next     tunesmith log first
    ");
    let said = project.says(&["run", "empty"]);
    assert!(
        said.contains("the output `it` (`it`) was left empty"),
        "{said}"
    );
}

#[test]
fn independent_stages_go_on_when_asked() {
    let project = Project::new(
        r#"
name: demo
stages:
  bad: { run: exit 1, outputs: { it: it.txt } }
  below: { run: "cp ${inputs.it} ${outputs.it}", inputs: { it: bad }, outputs: { it: it.txt } }
  good: { run: "touch ${outputs.it}", outputs: { it: it.txt } }
  more: { run: "cp ${inputs.it} ${outputs.it}", inputs: { it: good }, outputs: { it: it.txt } }
"#,
    );
    assert_eq!(project.output(&["run", "-k", "-j1"]).status.code(), Some(1));
    assert!(project.at("out/default/more/it.txt").exists());
    assert!(!project.at("out/default/below").exists());
}

#[test]
fn a_stage_that_takes_too_long() {
    let project = Project::new(
        r"
name: demo
stages:
  slow:
    run: sleep 100
    outputs: { it: it.txt }
    timeout: 1s
",
    );
    insta::assert_snapshot!(project.says(&[]), @r"
    exit 1
    ----- stdout -----
    demo, profile default

      slow      runs: it has no result yet
      slow      failed after [TIME]
                run::timeout: `slow` took longer than 1s
                  at pipeline.yaml:7:5
                mend raise its `timeout`, or give it less to do

      slow      failed [TIME]

      failed in [TIME], 0 stages ran
      next     tunesmith log slow
    ");
}

#[test]
fn a_stage_is_tried_again() {
    let project = Project::new(
        r"
name: demo
stages:
  shaky:
    run: echo try >> DIR/tries; test $(wc -l < DIR/tries) -ge 2; touch ${outputs.it}
    outputs: { it: it.txt }
    retries: 2
",
    );
    // A failing `test` alone does not end a `sh -c`: the last command decides.
    project.edit("pipeline.yaml", "-ge 2; touch", "-ge 2 && touch");
    insta::assert_snapshot!(project.says(&[]), @r"
    exit 0
    ----- stdout -----
    demo, profile default

      shaky     runs: it has no result yet
      shaky     failed after [TIME], tries again in [TIME]: the command exits with status 1
      shaky     runs again, try 2
      shaky     done in [TIME]

      shaky     ran [TIME]

      done in [TIME], 1 stage ran
      results  out/default/
    ");
    assert_eq!(project.marks("tries").len(), 2);
}

#[test]
fn secrets_are_passed_and_never_shown() {
    let project = Project::new(
        r#"
name: demo
stages:
  send:
    run: echo "using $API_TOKEN of $(printf %s "$API_TOKEN" | wc -c) letters"; exit 1
    outputs: { it: it.txt }
    secrets: [API_TOKEN]
"#,
    );
    let mut command = project.command(&["run", "--json"]);
    let output = command
        .env("API_TOKEN", "sesame-opens")
        .output()
        .expect("it starts");
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("using *** of 12 letters"), "{said}");
    assert!(!said.contains("sesame"), "{said}");
    assert!(
        !project
            .read(".tunesmith/logs/default/send.log")
            .contains("sesame")
    );
    insta::assert_snapshot!(project.says(&[]), @r"
    exit 1
    ----- stdout -----
    demo, profile default

      send      runs: it has no result yet
      send      failed after [TIME]
                run::secret-not-set: the secret `API_TOKEN` is not in the environment
                  at pipeline.yaml:7:5
                mend export API_TOKEN, then run again

      send      failed [TIME]

      failed in [TIME], 0 stages ran
      next     tunesmith log send
    ");
}

#[test]
fn a_link_out_of_the_results_is_refused() {
    let project = Project::new(
        r"
name: demo
stages:
  sly:
    run: mkdir -p it && ln -s /etc/passwd it/users
    outputs: { it: it/ }
",
    );
    let said = project.says(&[]);
    assert!(said.starts_with("exit 1"), "{said}");
    assert!(said.contains("cache::link-leaves"), "{said}");
}

/// A store on a file system of one megabyte: the run fails with the cause, the store stays
/// whole, and with more space the next run ends well.
#[test]
fn a_full_disk() {
    let project = Project::new(
        r#"
name: demo
stages:
  small: { run: "echo 1 > ${outputs.it}", outputs: { it: it.txt } }
  large:
    run: head -c ${size} /dev/zero | tr '\0' x > ${outputs.it}; cat ${inputs.it} >> ${outputs.it}
    inputs: { it: small }
    outputs: { it: it.txt }
params: { size: 3000000 }
"#,
    );
    // In a mount namespace of its own: nothing to clean up, and no need to be root.
    let script = r#"
        mkdir .tunesmith && mount -t tmpfs -o size=1m tmpfs .tunesmith || exit 99
        "$0"; echo "exit $?"
        "$0" cache verify
        "$0" --set size=1000; echo "exit $?"
        "$0" cache verify
    "#;
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(env!("CARGO_BIN_EXE_tunesmith"))
        .current_dir(project.path())
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else { return };
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(99) || complained.contains("unshare") {
        // This machine lets nobody mount: nothing can be shown here.
        return;
    }
    assert!(said.contains("exit 1\n"), "{said}{complained}");
    assert!(
        said.to_lowercase().contains("no space left") || said.contains("cache::disk-full"),
        "{said}"
    );
    assert_eq!(said.matches("all as they were stored").count(), 2, "{said}");
    assert!(said.contains("exit 0\n"), "{said}{complained}");
}
