//! Killed at any moment: the store stays whole, and the next run ends the same.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use super::project::{Project, wait_until};

/// Eight small stages: a chain, a fan, a folder of files, and a join.
const EIGHT: &str = r#"
name: eight
params: { n: 1 }
stages:
  a: { run: "echo ${n} > ${outputs.it}", outputs: { it: it.txt } }
  b: { run: "sed s/^/b/ ${inputs.x} > ${outputs.it}", inputs: { x: a }, outputs: { it: it.txt } }
  c: { run: "sed s/^/c/ ${inputs.x} > ${outputs.it}", inputs: { x: a }, outputs: { it: it.txt } }
  d: { run: "for i in $(seq 60); do cat ${inputs.x} > many/$i; done", inputs: { x: b }, outputs: { it: many/ } }
  e: { run: "cat ${inputs.x} ${inputs.x} > ${outputs.it}", inputs: { x: c }, outputs: { it: it.txt } }
  f: { run: "ls ${inputs.x} > ${outputs.names}; echo f > ${outputs.it}", inputs: { x: d }, outputs: { names: names.txt, it: it.txt } }
  g: { run: "cat ${inputs.x} > ${outputs.it}", inputs: { x: [e, "f:names", local/] }, outputs: { it: it.txt } }
  h: { run: "wc -l < ${inputs.x} > ${outputs.it}", inputs: { x: g }, outputs: { it: it.txt } }
"#;

fn eight() -> Project {
    // `cat` of a folder would fail: `g` reads a file of it.
    let project = Project::new(&EIGHT.replace("local/]", "local/words.txt]"));
    project.write("local/words.txt", "some\nwords\n");
    project
}

/// What a run leaves that nobody killed.
fn reference() -> (Vec<(String, Vec<u8>)>, String) {
    let project = eight();
    project.ok(&[]);
    (project.files("out"), project.read("pipeline.lock"))
}

fn ends_the_same(project: &Project, moment: &str) {
    let (files, lock) = reference();
    project.ok(&[]);
    let same = project.files("out") == files;
    assert!(same, "{moment}: other results");
    assert_eq!(project.read("pipeline.lock"), lock, "{moment}");
    project.verify();
    let said = project.ok(&[]);
    assert!(said.starts_with("up to date: 8 stages"), "{moment}: {said}");
}

/// Starts a run and kills it with SIGKILL after its `k`-th event; false if it ended before.
fn killed_after(project: &Project, k: usize) -> bool {
    let mut command = project.command(&["run", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let heard = lines.take(k).map_while(Result::ok).count();
    // It may have ended by itself meanwhile.
    let _ended = child.kill();
    child.wait().expect("it was started");
    heard == k
}

#[test]
fn killed_after_every_event() {
    let mut k = 1;
    loop {
        let project = eight();
        if !killed_after(&project, k) {
            break;
        }
        // Whatever was stored is whole before anything is mended.
        let said = project.ok(&["cache", "verify"]);
        assert!(
            said.contains("all as they were stored"),
            "after event {k}: {said}"
        );
        ends_the_same(&project, &format!("after event {k}"));
        k += 1;
    }
    assert!(
        k > 16,
        "a run has a start and an end for each stage, not {k} events"
    );
}

#[test]
fn killed_again_and_again_in_one_project() {
    let project = eight();
    for (round, millis) in [3, 8, 13, 21, 34, 45, 60, 80, 100].into_iter().enumerate() {
        project.edit(
            "pipeline.yaml",
            &format!("n: {}", round + 1),
            &format!("n: {}", round + 2),
        );
        let mut child = project
            .command(&["run"])
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        std::thread::sleep(Duration::from_millis(millis));
        let _ended = child.kill();
        child.wait().expect("it was started");
        let said = project.ok(&["cache", "verify"]);
        assert!(
            said.contains("all as they were stored"),
            "after {millis} ms: {said}"
        );
    }
    project.edit("pipeline.yaml", "n: 10", "n: 1");
    project.ok(&[]);
    let (files, _) = reference();
    assert!(project.files("out") == files, "other results");
    project.verify();
}

/// A folder of results is swapped whole: at every moment it is the old one or the new one.
#[test]
fn results_are_swapped_whole() {
    let project = Project::new(
        r"
name: swap
params: { n: 1 }
stages:
  many:
    run: for i in $(seq 400); do echo ${n} > many/$i; done
    outputs: { it: many/ }
",
    );
    project.ok(&[]);
    for n in 2..12 {
        project.edit(
            "pipeline.yaml",
            &format!("n: {}", n - 1),
            &format!("n: {n}"),
        );
        let mut command = project.command(&["run", "--json"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        // The command itself is over soon after it started; then comes the swap.
        lines.find(|line| {
            line.as_ref()
                .is_ok_and(|line| line.contains("stage-started"))
        });
        std::thread::sleep(Duration::from_millis(5 * n));
        let _ended = child.kill();
        child.wait().expect("it was started");
        let files = project.files("out/default/many");
        assert_eq!(files.len(), 400, "a half-written folder");
        assert!(
            files.iter().all(|(_, bytes)| *bytes == files[0].1),
            "old and new mixed"
        );
    }
    project.ok(&[]);
    assert_eq!(
        project.files("out").len(),
        400,
        "nothing lies beside the results"
    );
    project.verify();
}

#[test]
fn nothing_a_stage_started_outlives_a_killed_run() {
    let project = Project::new(
        r"
name: orphan
stages:
  long:
    run: |
      sleep 1000 & echo $! > DIR/grandchild
      wait
    outputs: { it: it.txt }
",
    );
    let mut child = project
        .command(&["run"])
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    wait_until("the grandchild", || !project.marks("grandchild").is_empty());
    child.kill().expect("it runs");
    child.wait().expect("it was started");
    let process = format!("/proc/{}/stat", project.marks("grandchild")[0]);
    wait_until("its end", || {
        let stat = std::fs::read_to_string(&process).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
}
