//! Several processes at once on one project.

use std::process::Stdio;

use super::project::Project;

#[test]
fn each_stage_runs_once() {
    let project = Project::new(
        r#"
name: both
stages:
  a: { run: "echo a >> DIR/ran; sleep 0.2; echo 1 > ${outputs.it}", outputs: { it: it.txt } }
  b: { run: "echo b >> DIR/ran; sleep 0.2; cp ${inputs.x} ${outputs.it}", inputs: { x: a }, outputs: { it: it.txt } }
  c: { run: "echo c >> DIR/ran; sleep 0.2; cp ${inputs.x} ${outputs.it}", inputs: { x: a }, outputs: { it: it.txt } }
  d: { run: "echo d >> DIR/ran; cat ${inputs.x} > ${outputs.it}", inputs: { x: [b, c] }, outputs: { it: it.txt } }
"#,
    );
    let start = || {
        let mut command = project.command(&["run"]);
        command.stdout(Stdio::piped()).spawn().expect("it starts")
    };
    let children: Vec<_> = (0..8).map(|_| start()).collect();
    for child in children {
        let output = child.wait_with_output().expect("it was started");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
    }
    let mut ran = project.marks("ran");
    ran.sort();
    assert_eq!(ran, ["a", "b", "c", "d"]);
    assert_eq!(project.read("out/default/d/it.txt"), "1\n1\n");
    project.verify();
    let said = project.ok(&[]);
    assert!(said.starts_with("up to date: 4 stages"), "{said}");
}

/// The holder of a key's lock is killed: those who wait take over, and the stage is made once more
/// and only once.
#[test]
fn a_dead_holders_lock_is_free() {
    let project = Project::new(
        r#"
name: dead
stages:
  a: { run: "echo a >> DIR/ran; test -e DIR/go || sleep 100; echo 1 > ${outputs.it}", outputs: { it: it.txt } }
"#,
    );
    let start = || {
        let mut command = project.command(&["run"]);
        command.stdout(Stdio::piped()).spawn().expect("it starts")
    };
    let mut holder = start();
    project.wait_for("ran");
    let waiting: Vec<_> = (0..7).map(|_| start()).collect();
    project.write("go", "");
    holder.kill().expect("it runs");
    holder.wait().expect("it was started");
    for child in waiting {
        let output = child.wait_with_output().expect("it was started");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
    }
    assert_eq!(project.marks("ran"), ["a", "a"]);
    project.verify();
}

#[test]
fn equal_stages_of_one_run_share_the_work() {
    let project = Project::new(
        r#"
name: twins
stages:
  one: { run: "echo ran >> DIR/ran; echo 1 > ${outputs.it}", outputs: { it: it.txt } }
  two: { run: "echo ran >> DIR/ran; echo 1 > ${outputs.it}", outputs: { it: it.txt } }
"#,
    );
    project.ok(&[]);
    assert_eq!(project.marks("ran"), ["ran"]);
    assert_eq!(project.read("out/default/two/it.txt"), "1\n");
}
