//! `run --watch`, with files that are really edited while it runs.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::project::Project;

/// A watch and what it tells.
struct Watch {
    child: Child,
    events: Receiver<Value>,
}

impl Watch {
    fn start(project: &Project, args: &[&str]) -> Self {
        let mut words = vec!["run", "--watch", "--json"];
        words.extend(args);
        let mut command = project.command(&words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (to, events) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).expect("JSON lines");
                if to.send(event).is_err() {
                    return;
                }
            }
        });
        Self { child, events }
    }

    /// Waits for an event; gives everything told up to it, by type and stage.
    fn until(&self, kind: &str) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let event = self
                .events
                .recv_timeout(Duration::from_mins(1))
                .unwrap_or_else(|_| panic!("no `{kind}` after {told:?}"));
            let name = event["type"].as_str().expect("a type").to_owned();
            let of = event["stage"].as_str().or(event["status"].as_str());
            told.push(of.map_or_else(|| name.clone(), |of| format!("{name} {of}")));
            if name == kind {
                return told;
            }
        }
    }

    fn ends(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it runs");
        let status = self.child.wait().expect("it was started");
        assert_eq!(status.code(), Some(130));
    }
}

fn holds(told: &[String], event: &str) -> bool {
    told.iter().any(|one| one == event)
}

const TWO: &str = r#"
name: watched
params: { n: 2 }
stages:
  head: { run: "head -n ${n} ${inputs.text} > ${outputs.it}", inputs: { text: ./words.txt }, outputs: { it: it.txt } }
  many: { run: "ls ${inputs.files} > ${outputs.it}", inputs: { files: ./data/ }, outputs: { it: it.txt } }
  send: { run: "echo sent >> DIR/sent; touch ${outputs.it}", inputs: { x: head }, outputs: { it: it.txt }, effect: external }
"#;

fn two() -> Project {
    let project = Project::new(TWO);
    project.write("words.txt", "one\ntwo\nthree\n");
    project.write("data/a.txt", "a");
    project
}

#[test]
fn an_edit_runs_what_it_touches() {
    let project = two();
    let watch = Watch::start(&project, &[]);
    let told = watch.until("watching");
    assert!(
        holds(&told, "stage-done head") && holds(&told, "stage-done many"),
        "{told:?}"
    );

    project.write("words.txt", "eins\nzwei\n");
    let told = watch.until("watching");
    assert!(
        holds(&told, "stage-done head") && holds(&told, "stage-fresh many"),
        "{told:?}"
    );
    assert_eq!(project.read("out/default/head/it.txt"), "eins\nzwei\n");

    project.write("data/b.txt", "b");
    let told = watch.until("watching");
    assert!(
        holds(&told, "stage-fresh head") && holds(&told, "stage-done many"),
        "{told:?}"
    );

    project.edit("pipeline.yaml", "n: 2", "n: 1");
    let told = watch.until("watching");
    assert!(holds(&told, "stage-done head"), "{told:?}");
    assert_eq!(project.read("out/default/head/it.txt"), "eins\n");

    // A pipeline at fault is told, and waited for.
    project.edit("pipeline.yaml", "stages:", "stagse:");
    watch.until("watching");
    project.edit("pipeline.yaml", "stagse:", "stages:");
    let told = watch.until("watching");
    assert!(holds(&told, "run-finished ok"), "{told:?}");

    watch.ends();
    assert!(
        !project.at("pipeline.lock").exists(),
        "a watch locks nothing"
    );
    assert!(!project.at("sent").exists(), "nothing acts outside");
    project.verify();
}

#[test]
fn a_named_stage_that_acts_outside_stays_ready() {
    let project = two();
    let watch = Watch::start(&project, &["send"]);
    let told = watch.until("watching");
    assert!(holds(&told, "stage-ready send"), "{told:?}");
    watch.ends();
    assert!(!project.at("sent").exists());
    assert_eq!(
        project.output(&["deploy", "--watch"]).status.code(),
        Some(2)
    );
}

/// Two long stages; the input of one is edited while both run.
const LONG: &str = r"
name: long
stages:
  stale:
    run: |
      trap 'echo asked >> DIR/told; exit 1' TERM
      cp ${inputs.text} ${outputs.it}
      touch DIR/stale-begun
      while test ! -e DIR/go-stale; do sleep 0.02; done
    inputs: { text: ./words.txt }
    outputs: { it: it.txt }
  valid:
    run: |
      trap 'echo valid >> DIR/told; exit 1' TERM
      touch DIR/valid-begun
      while test ! -e DIR/go-valid; do sleep 0.02; done
      cp ${inputs.text} ${outputs.it}
    inputs: { text: ./other.txt }
    outputs: { it: it.txt }
";

#[test]
fn a_stage_that_became_stale_is_ended_and_a_valid_one_ends_in_peace() {
    let project = Project::new(LONG);
    project.write("words.txt", "old");
    project.write("other.txt", "other");
    let watch = Watch::start(&project, &["--jobs", "2"]);
    project.wait_for("stale-begun");
    project.wait_for("valid-begun");
    // A comment changes no key, so it ends nothing.
    project.edit("pipeline.yaml", "name: long", "name: long # a comment");
    let told = watch.until("inputs-changed");
    assert!(!holds(&told, "stage-skipped stale"), "{told:?}");
    project.write("words.txt", "new");
    let told = watch.until("stage-skipped");
    assert!(holds(&told, "stage-skipped stale"), "{told:?}");
    assert_eq!(project.marks("told"), ["asked"]);
    project.write("go-stale", "");
    project.write("go-valid", "");
    let told = watch.until("run-finished");
    assert!(holds(&told, "stage-done valid"), "{told:?}");
    let told = watch.until("watching");
    assert!(
        holds(&told, "stage-done stale") && holds(&told, "stage-fresh valid"),
        "{told:?}"
    );
    assert_eq!(project.read("out/default/stale/it.txt"), "new");
    assert_eq!(project.marks("told"), ["asked"]);
    watch.ends();
    project.verify();
}

#[test]
fn an_edit_that_is_made_while_it_runs_is_not_missed() {
    let project = Project::new(
        r#"
name: late
stages:
  slow: { run: "cp ${inputs.text} ${outputs.it}; touch DIR/begun; sleep 0.3", inputs: { text: ./words.txt }, outputs: { it: it.txt } }
"#,
    );
    project.write("words.txt", "0");
    let watch = Watch::start(&project, &[]);
    for round in 1..4 {
        project.wait_for("begun");
        std::fs::remove_file(project.at("begun")).expect("it is there");
        project.write("words.txt", &round.to_string());
    }
    super::project::wait_until("the last edit", || {
        let text = std::fs::read_to_string(project.at("out/default/slow/it.txt"));
        text.is_ok_and(|text| text == "3")
    });
    watch.until("watching");
    watch.ends();
    project.verify();
}
