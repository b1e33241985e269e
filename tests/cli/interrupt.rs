//! Ctrl-C, and files that change under a running stage.

use std::fs;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::project::Project;

fn start(project: &Project) -> Child {
    project
        .command(&["run"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts")
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).expect("it runs");
}

/// A stage that says when it has begun, and what it is told.
const LONG: &str = r#"
name: long
stages:
  first: { run: "echo 1 > ${outputs.it}", outputs: { it: it.txt } }
  long:
    run: |
      trap 'echo asked >> DIR/told; exit 1' TERM
      touch DIR/begun
      while test ! -e DIR/go; do sleep 0.05; done
      cp ${inputs.it} ${outputs.it}
    inputs: { it: first }
    outputs: { it: it.txt }
"#;

#[test]
fn the_first_interrupt_asks_and_keeps_what_is_done() {
    let project = Project::new(LONG);
    let child = start(&project);
    project.wait_for("begun");
    interrupt(&child);
    let output = child.wait_with_output().expect("it was started");
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(project.marks("told"), ["asked"]);
    project.verify();
    project.write("go", "");
    let said = project.ok(&[]);
    assert!(said.contains("1 stage ran"), "`first` was kept: {said}");
}

#[test]
fn the_second_interrupt_does_not_wait() {
    let project = Project::new(&LONG.replace("; exit 1'", "'"));
    let child = start(&project);
    project.wait_for("begun");
    interrupt(&child);
    project.wait_for("told");
    interrupt(&child);
    let output = child.wait_with_output().expect("it was started");
    assert_eq!(output.status.code(), Some(130));
    project.verify();
}

#[test]
fn an_input_edited_while_its_stage_runs_is_read_as_it_was() {
    let project =
        Project::new(&LONG.replace("it: first }\n    outputs", "it: ./local.txt }\n    outputs"));
    project.write("local.txt", "old\n");
    let child = start(&project);
    project.wait_for("begun");
    project.write("local.txt", "new\n");
    project.write("go", "");
    assert!(
        child
            .wait_with_output()
            .expect("it was started")
            .status
            .success()
    );
    assert_eq!(project.read("out/default/long/it.txt"), "old\n");
    let said = project.ok(&[]);
    assert!(said.contains("input `it` changed"), "{said}");
    assert_eq!(project.read("out/default/long/it.txt"), "new\n");
}

#[test]
fn a_big_input_that_changes_discards_the_result() {
    let project = Project::new(
        &LONG
            .replace("it: first }\n    outputs", "it: ./big.bin }\n    outputs")
            .replace("cp ${inputs.it}", "head -c 3 ${inputs.it} >"),
    );
    // Full of holes, and too big to be copied into the store.
    let big = fs::File::create(project.at("big.bin")).expect("a file");
    big.set_len(257 << 20).expect("a sparse file");
    let child = start(&project);
    project.wait_for("begun");
    fs::write(project.at("big.bin"), "short").expect("a file");
    project.write("go", "");
    let output = child.wait_with_output().expect("it was started");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("run::input-changed"), "{said}");
    assert!(said.contains("big.bin"), "{said}");
    assert!(!project.at("out/default/long").exists());
    project.ok(&[]);
    assert_eq!(project.read("out/default/long/it.txt"), "sho");
}
