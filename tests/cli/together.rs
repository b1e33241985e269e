//! Several processes at once on one project.

use std::process::Stdio;

use super::project::{Project, wait_until};

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

/// A stage that waits for `DIR/go`.
const SLOW: &str = r#"
name: slow
params: { n: 1 }
stages:
  slow:
    run: |
      echo slow >> DIR/ran
      echo $$ > DIR/begun
      while test ! -e DIR/go; do sleep 0.02; done
      echo 1 > ${outputs.it}
    outputs: { it: it.txt }
  quick: { run: "echo quick ${n} >> DIR/ran; echo 1 > ${outputs.it}", outputs: { it: it.txt } }
"#;

/// Reads what a command writes until a line holds `text`.
fn read_until(child: &mut std::process::Child, text: &str) -> String {
    use std::io::{BufRead as _, BufReader};
    let mut all = String::new();
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let line = line.expect("UTF-8");
        all.push_str(&line);
        all.push('\n');
        if line.contains(text) {
            return line;
        }
    }
    panic!("no `{text}` in:\n{all}");
}

#[test]
fn who_waits_names_the_holder_and_takes_its_result() {
    let project = Project::new(SLOW);
    let start = |args: &[&str]| {
        let mut command = project.command(args);
        command.stdout(Stdio::piped()).spawn().expect("it starts")
    };
    let mut first = start(&["run", "--jobs", "2"]);
    project.wait_for("begun");
    // One slot: that `slow` is waited for takes none from another `quick`.
    let mut second = start(&["run", "--jobs", "1", "--set", "n=2", "--json"]);
    let line = read_until(&mut second, "stage-waiting");
    let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(event["stage"], "slow");
    assert_eq!(event["pid"], first.id());
    assert_eq!(event["command"], "tunesmith run --jobs 2");
    assert!(
        event["since"]
            .as_str()
            .is_some_and(|since| since.starts_with("20"))
    );
    assert!(event["host"].as_str().is_some_and(|host| !host.is_empty()));
    wait_until("the other `quick`", || {
        project.marks("ran").iter().any(|name| name == "quick 2")
    });
    project.write("go", "");
    assert!(first.wait().expect("it was started").success());
    assert!(second.wait().expect("it was started").success());
    let slow = project
        .marks("ran")
        .iter()
        .filter(|name| *name == "slow")
        .count();
    assert_eq!(slow, 1, "its result was taken");
    project.verify();
}

#[test]
fn a_dead_holder_holds_nothing_back() {
    let project = Project::new(SLOW);
    let start = || {
        let mut command = project.command(&["run", "slow", "--json"]);
        command.stdout(Stdio::piped()).spawn().expect("it starts")
    };
    let mut first = start();
    project.wait_for("begun");
    let mut second = start();
    read_until(&mut second, "stage-waiting");
    first.kill().expect("it runs");
    first.wait().expect("it was started");
    project.write("go", "");
    assert!(second.wait().expect("it was started").success());
    assert_eq!(project.marks("ran"), ["slow", "slow"]);
    assert_eq!(project.read("out/default/slow/it.txt"), "1\n");
    project.verify();
}
