//! What runs again, what does not, and the reason that is given.

use std::collections::BTreeSet;

use super::{CHAIN, Happened, Project, ran, sentences, with};
use crate::lock::Lock;
use crate::plan::{Decision, Options, Planner, preview};

#[test]
fn a_second_run_does_nothing() {
    let project = Project::new(CHAIN);
    let first = project.run(&Options::default());
    assert_eq!(ran(&first), ["rows", "train", "eval"]);
    assert_eq!(sentences(&first, "train"), ["it has no result yet"]);
    let second = project.run(&Options::default());
    assert_eq!(with(&second, &Happened::Fresh).len(), 3, "{second:?}");
}

#[test]
fn a_changed_parameter_reruns_what_is_below_and_changing_back_restores() {
    let project = Project::new(CHAIN);
    project.run(&Options::default());
    project.write("pipeline.yaml", &CHAIN.replace("0.2", "0.3"));
    let told = project.run(&Options::default());
    assert_eq!(ran(&told), ["train", "eval"]);
    assert_eq!(sentences(&told, "train"), ["`with.lr` changed: 0.2 -> 0.3"]);
    let eval = sentences(&told, "eval");
    assert!(eval[0].starts_with("input `rows` changed: "), "{eval:?}");

    project.write("pipeline.yaml", CHAIN);
    let told = project.run(&Options::default());
    assert_eq!(with(&told, &Happened::Fresh), ["rows"]);
    assert_eq!(with(&told, &Happened::Restored), ["train", "eval"]);
    let told = project.run(&Options::default());
    assert_eq!(with(&told, &Happened::Fresh).len(), 3);
}

#[test]
fn same_bytes_do_not_ripple() {
    let mut project = Project::new(CHAIN);
    project.constant.insert("train".to_owned());
    project.run(&Options::default());
    project.write("pipeline.yaml", &CHAIN.replace("0.2", "0.3"));
    let told = project.run(&Options::default());
    assert_eq!(ran(&told), ["train"]);
    assert_eq!(with(&told, &Happened::Fresh), ["rows", "eval"]);
}

#[test]
fn an_edited_file_reruns_its_branch() {
    let project = Project::new(CHAIN);
    project.run(&Options::default());
    project.write("data/b.jsonl", "B");
    let told = project.run(&Options::default());
    assert_eq!(ran(&told), ["train", "eval"]);
    let why = sentences(&told, "train");
    assert_eq!(why.len(), 1);
    assert!(why[0].starts_with("input `rows.1` changed: "), "{why:?}");
}

#[test]
fn forcing_runs_only_what_is_forced() {
    let project = Project::new(CHAIN);
    project.run(&Options::default());
    let forced = Options {
        forced: BTreeSet::from(["train".to_owned()]),
        ..Options::default()
    };
    let told = project.run(&forced);
    assert_eq!(ran(&told), ["train"]);
    assert_eq!(sentences(&told, "train"), ["it is forced"]);
}

#[test]
fn a_preview_takes_nothing_in_and_names_who_is_waited_for() {
    let project = Project::new(CHAIN);
    let options = Options {
        preview: true,
        ..Options::default()
    };
    let (pipeline, graph) = project.open();
    let (store, lock) = (project.store(), Lock::default());
    let mut planner = Planner::new(&pipeline, &store, &lock, options);
    let told = preview(&mut planner, graph.order()).unwrap();
    assert!(matches!(told[0].1, Decision::Run { .. }));
    assert_eq!(told[1].1, Decision::Waiting { on: vec![0] });
    assert_eq!(told[2].1, Decision::Waiting { on: vec![0] });
    assert_eq!(store.usage().unwrap().blobs.count, 0);
}

#[test]
fn a_stage_that_acts_outside_waits_to_be_named() {
    let project = Project::new(
        "name: x\nstages:\n  push:\n    run: touch ${outputs.o}\n    outputs: { o: o }\n    effect: external\n",
    );
    let told = project.run(&Options::default());
    assert_eq!(told[0].1, Happened::Ready(false));
    let named = Options {
        named: BTreeSet::from(["push".to_owned()]),
        ..Options::default()
    };
    for _ in 0..2 {
        let told = project.run(&named);
        assert_eq!(
            sentences(&told, "push"),
            ["it is named, and acts on the outside"]
        );
    }
    assert_eq!(project.run(&Options::default())[0].1, Happened::Ready(true));
}
