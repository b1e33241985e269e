//! Half-done work is kept and taken up again; logs and times go with a result.

use std::process::Stdio;

use super::project::{Project, wait_until};

/// Counts to ten, a file for each number in its checkpoint folder; waits at the fourth until
/// `DIR/go` is there.
const COUNTS: &str = r#"
name: counts
params: { n: 1 }
stages:
  count:
    run: |
      for i in 1 2 3 4 5 6 7 8 9 10; do
        test -e "$TUNESMITH_CHECKPOINT/$i" && continue
        if test $i = 4; then touch DIR/begun; while test ! -e DIR/go; do sleep 0.02; done; fi
        echo "step $i of ${n}"
        echo $i >> DIR/steps
        touch "$TUNESMITH_CHECKPOINT/$i"
      done
      ls "$TUNESMITH_CHECKPOINT" | wc -l > ${outputs.it}
    outputs: { it: it.txt }
"#;

#[test]
fn a_killed_stage_goes_on_from_its_checkpoint() {
    let project = Project::new(COUNTS);
    let mut child = project
        .command(&["run"])
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    project.wait_for("begun");
    child.kill().expect("it runs");
    child.wait().expect("it was started");
    assert_eq!(project.marks("steps"), ["1", "2", "3"]);
    // Another key has a folder of its own.
    project.write("go", "");
    project.ok(&["run", "--set", "n=2"]);
    assert_eq!(project.marks("steps").len(), 13);
    project.ok(&["run"]);
    let wanted: Vec<String> = (1..=10).map(|step| step.to_string()).collect();
    let steps = project.marks("steps");
    assert_eq!(steps[..3], wanted[..3]);
    assert_eq!(steps[13..], wanted[3..]);
    assert_eq!(project.read("out/default/count/it.txt").trim(), "10");
    // With the result the half-done work goes.
    assert_eq!(project.files(".tunesmith/checkpoints"), []);
    project.verify();
}

#[test]
fn checkpoints_stay_after_success_when_asked() {
    let project =
        Project::new(&COUNTS.replace("name: counts", "name: counts\ncheckpoints: { keep: true }"));
    project.write("go", "");
    project.ok(&[]);
    assert_eq!(project.files(".tunesmith/checkpoints").len(), 10);
    // Bounded all the same: a run that did something drops what is too much.
    project.edit("pipeline.yaml", "keep: true", "max_size: 0.001kB");
    project.write("fat", "");
    let folder = std::fs::read_dir(project.at(".tunesmith/checkpoints"));
    let folder = folder
        .expect("a folder")
        .flatten()
        .next()
        .expect("a key")
        .path();
    std::fs::write(folder.join("fat"), [0; 1000]).expect("a file");
    let said = project.ok(&["run", "--set", "n=2"]);
    assert!(said.contains("checkpoint::dropped"), "{said}");
    assert_eq!(project.files(".tunesmith/checkpoints"), []);
}

#[test]
fn a_restored_stage_has_its_log_and_its_time() {
    let project = Project::new(COUNTS);
    project.write("go", "");
    project.ok(&[]);
    project.edit("pipeline.yaml", "n: 1", "n: 2");
    project.ok(&[]);
    assert!(project.ok(&["log", "count"]).contains("step 5 of 2"));
    project.edit("pipeline.yaml", "n: 2", "n: 1");
    let said = project.ok(&[]);
    assert!(
        said.contains("count     restored from the store, took [TIME] when made"),
        "{said}"
    );
    let log = project.ok(&["log", "count"]);
    assert!(
        log.contains("step 5 of 1") && !log.contains("of 2"),
        "{log}"
    );
    assert!(log.starts_with("# restored; made "), "{log}");
    // A checkout without its own log still has the result's.
    std::fs::remove_dir_all(project.at(".tunesmith/logs")).expect("a folder");
    assert!(project.ok(&["log", "count"]).contains("step 5 of 1"));
    assert!(
        project
            .ok(&["log", "--result", "count"])
            .contains("step 5 of 1")
    );
}

#[test]
fn a_long_log_is_kept_with_the_result_and_survives_collecting() {
    let project = Project::new(
        r#"
name: long
params: { n: 1 }
stages:
  talk: { run: "seq 20000; echo ${n} > ${outputs.it}", outputs: { it: it.txt } }
"#,
    );
    project.ok(&[]);
    project.ok(&["cache", "gc"]);
    std::fs::remove_dir_all(project.at(".tunesmith/logs")).expect("a folder");
    let log = project.ok(&["log", "talk"]);
    assert!(log.contains("\n20000\n"), "{} bytes", log.len());
    project.verify();
}

#[test]
fn a_guard_that_is_killed_takes_its_stage_with_it() {
    let project = Project::new(
        r"
name: orphan
stages:
  long:
    run: |
      sleep 1000 & echo $! > DIR/grandchild
      echo $PPID > DIR/guard
      wait
    outputs: { it: it.txt }
",
    );
    let child = project
        .command(&["run"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    wait_until("the guard", || !project.marks("guard").is_empty());
    let guard: i32 = project.marks("guard")[0].parse().expect("a number");
    let guard = rustix::process::Pid::from_raw(guard).expect("a process");
    rustix::process::kill_process(guard, rustix::process::Signal::KILL).expect("it runs");
    let output = child.wait_with_output().expect("it was started");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("run::killed") && said.contains("guard"),
        "{said}"
    );
    let process = format!("/proc/{}/stat", project.marks("grandchild")[0]);
    wait_until("its end", || {
        let stat = std::fs::read_to_string(&process).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
    project.verify();
}

/// The idiom `trap 'kill 0' EXIT` signals the stage's whole group; its guard does not mind.
#[test]
fn a_stage_that_signals_its_group_ends_by_itself() {
    let project = Project::new(
        r#"
name: group
stages:
  it: { run: "trap '' TERM USR1; kill -TERM 0; kill -USR1 0; (sleep 1000 &) ; echo fine > ${outputs.it}", outputs: { it: it.txt } }
"#,
    );
    project.ok(&[]);
    assert_eq!(project.read("out/default/it/it.txt"), "fine\n");
}
