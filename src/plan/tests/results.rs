//! Which result of a key counts, and what follows when one is lost.

use std::collections::BTreeMap;
use std::fs;

use cache::{Digest, Record};

use super::{CHAIN, Happened, Project, ran, sentences, with};
use crate::lock::Lock;
use crate::plan::{Last, Options};

#[test]
fn a_lost_or_damaged_result_runs_again() {
    let project = Project::new(CHAIN);
    project.run(&Options::default());
    let (pipeline, _) = project.open();
    let blob = {
        let store = project.store();
        let last = Last::load(store.home(), &pipeline.profile);
        store.blob_path(&last.get("train").unwrap().outputs["rows"].digest())
    };
    fs::remove_file(&blob).unwrap();
    let told = project.run(&Options::default());
    assert_eq!(
        ran(&told),
        ["train"],
        "the same bytes come back, so nothing below runs"
    );
    assert_eq!(sentences(&told, "train"), ["its output `rows` is missing"]);

    let mut bytes = fs::read(&blob).unwrap();
    bytes[0] ^= 1;
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, bytes).unwrap();
    let told = project.run(&Options::default());
    assert_eq!(sentences(&told, "train"), ["its output `rows` is damaged"]);

    fs::remove_dir_all(project.dir.path().join(".tunesmith/store/records")).unwrap();
    let told = project.run(&Options::default());
    assert_eq!(ran(&told).len(), 3);
    assert_eq!(
        sentences(&told, "eval"),
        ["its last result is no longer in the store"]
    );
}

#[test]
fn without_memory_results_are_found_again() {
    let project = Project::new(CHAIN);
    project.run(&Options::default());
    for name in ["index", "last"] {
        let path = project.dir.path().join(".tunesmith").join(name);
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }
    let told = project.run(&Options::default());
    assert_eq!(with(&told, &Happened::Restored).len(), 3, "{told:?}");
}

#[test]
fn the_lock_chooses_among_the_results_of_a_key() {
    let mut project =
        Project::new("name: x\nstages:\n  t:\n    uses: toy\n    inputs: { rows: data/a.jsonl }\n");
    project.run(&Options::default());
    // Another machine made other bytes from the same key.
    let store = project.store();
    let parts = project.parts("t");
    let made = &store.records(&parts.digest()).unwrap()[0];
    project.write("other", "other bytes");
    let tree = store.put(&project.dir.path().join("other")).unwrap();
    let other = Record {
        outputs: BTreeMap::from([("rows".to_owned(), tree)]),
        ..made.clone()
    };
    store.commit(&other).unwrap();
    let digests = |record: &Record| {
        let outputs = record.outputs.iter();
        outputs
            .map(|(name, tree)| (name.clone(), tree.digest()))
            .collect::<BTreeMap<_, _>>()
    };
    let told = project.run(&Options::default());
    assert_eq!(told[0].1, Happened::Fresh, "the last one");
    project.lock.set_results("default", "t", digests(&other));
    assert_eq!(
        project.run(&Options::default())[0].1,
        Happened::Restored,
        "the lock's"
    );
    assert_eq!(project.run(&Options::default())[0].1, Happened::Fresh);
    let locked = Options {
        locked: true,
        ..Options::default()
    };
    assert_eq!(project.run(&locked)[0].1, Happened::Fresh);

    let gone = BTreeMap::from([("rows".to_owned(), Digest::of(b"gone"))]);
    project.lock.set_results("default", "t", gone);
    assert_eq!(
        project.run(&Options::default())[0].1,
        Happened::Fresh,
        "the local one"
    );
    let error = project.try_run(&locked).unwrap_err();
    assert_eq!(
        (error.code(), error.is_locked()),
        ("locked::not-in-store", true)
    );
    project.lock = Lock::default();
    assert_eq!(
        project.try_run(&locked).unwrap_err().code(),
        "locked::no-result"
    );
    let recompute = Options {
        recompute: true,
        ..locked
    };
    assert_eq!(ran(&project.run(&recompute)), ["t"]);
}
