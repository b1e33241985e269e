//! The entries, their text and the file.

use std::path::Path;

use proptest::prelude::*;

use super::*;

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn faults(text: &str) -> String {
    let faults = Lock::parse(Path::new("pipeline.lock"), text).unwrap_err();
    faults.to_string()
}

#[test]
fn lines_are_sorted_and_quoted_only_where_they_must() {
    let mut lock = Lock::default();
    lock.set_source("hub:o/d@main", "e7f4");
    lock.set_source("plain", "1");
    let outputs = BTreeMap::from([("adapter".to_owned(), digest("a"))]);
    lock.set_results("laptop", "train", outputs);
    insta::assert_snapshot!(lock.text(), @r#"
    # What the last run resolved. Written by tunesmith; commit it.
    result.laptop.train.adapter = "17762fddd969a453925d65717ac3eea21320b66b54342fde15128d6caf21215f"
    source."hub:o/d@main" = "e7f4"
    source.plain = "1"
    "#);
}

#[test]
fn every_fault_has_its_line() {
    let text = "# fine\n\nsource.a = \"1\"\nsource.a = \"2\"\n<<<<<<< ours\nresult.p.s.o = \"xyz\"\n\
                result.p.s = \"1\"\nnonsense\nsource.b = \"1\" tail\n=======\n";
    insta::assert_snapshot!(faults(text), @r"
    pipeline.lock:4:1: lock::duplicate: `source.a` stands here a second time
    pipeline.lock:5:1: lock::conflict: a merge conflict is not resolved
    pipeline.lock:6:1: lock::digest: `xyz` is not a digest (64 lowercase hex digits)
    pipeline.lock:7:1: lock::unknown-entry: unknown entry `result.p.s`
    pipeline.lock:8:1: lock::syntax: this is no line of a lock file
    pipeline.lock:9:1: lock::syntax: this is no line of a lock file
    pipeline.lock:10:1: lock::conflict: a merge conflict is not resolved
    ");
}

#[test]
fn an_update_touches_only_what_was_settled() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE_NAME);
    let mut mine = Lock::default();
    mine.set_source("a", "1");
    mine.set_results("p", "s", BTreeMap::from([("x".to_owned(), digest("x"))]));
    assert!(Lock::update(&file, &mine).unwrap());
    assert!(!Lock::update(&file, &mine).unwrap());

    let mut theirs = Lock::default();
    theirs.set_results("q", "s", BTreeMap::from([("y".to_owned(), digest("y"))]));
    assert!(Lock::update(&file, &theirs).unwrap());
    let both = Lock::load(&file).unwrap();
    assert!(both.contains(&mine) && both.contains(&theirs));

    // An output that was renamed leaves no line behind.
    theirs.set_results("q", "s", BTreeMap::from([("z".to_owned(), digest("y"))]));
    Lock::update(&file, &theirs).unwrap();
    let names = Lock::load(&file).unwrap();
    let names: Vec<_> = names.results("q", "s").unwrap().keys().cloned().collect();
    assert_eq!(names, ["z"]);
}

#[test]
fn runs_that_end_together_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE_NAME);
    std::thread::scope(|scope| {
        for number in 0..16 {
            let file = &file;
            scope.spawn(move || {
                let mut part = Lock::default();
                part.set_source(&format!("s{number}"), "1");
                Lock::update(file, &part).unwrap();
            });
        }
    });
    let lock = Lock::load(&file).unwrap();
    assert!((0..16).all(|number| lock.source(&format!("s{number}")).is_some()));
}

proptest! {
    #[test]
    fn any_lock_survives_its_text(
        sources in prop::collection::btree_map(".*", ".*", 0..4),
        results in prop::collection::btree_map((".*", ".*"), prop::collection::btree_map(".*", ".*", 1..3), 0..4),
    ) {
        let mut lock = Lock::default();
        for (id, pin) in &sources {
            lock.set_source(id, pin);
        }
        for ((profile, stage), outputs) in results {
            let outputs = outputs.into_iter().map(|(name, text)| (name, digest(&text)));
            lock.set_results(&profile, &stage, outputs.collect());
        }
        let text = lock.text();
        prop_assert_eq!(Lock::parse(Path::new("x"), &text), Ok(lock.clone()));
        prop_assert_eq!(lock.text(), text);
    }

    #[test]
    fn any_text_is_a_lock_or_refused_with_lines(text in "[a-z.=\"<# \n\\\\]{0,60}") {
        if let Err(faults) = Lock::parse(Path::new("x"), &text) {
            prop_assert!(faults.items.iter().all(|fault| fault.span.is_some()));
        }
    }
}
