//! Dropping what nobody needs, and who needs what.

use std::fs;
use std::time::{Duration, SystemTime};

use cache::{Bounds, Digest, Record, Store};

use super::{Bench, record};

#[test]
fn collecting_keeps_what_is_wanted_and_runs_alone() {
    let bench = Bench::new();
    let store = bench.store();
    let keep = record(&store, "keep", &[("out", &bench.write("a", "shared"))]);
    let same = record(&store, "drop", &[("out", &bench.write("b", "shared"))]);
    let lone = record(&store, "drop2", &[("out", &bench.write("c", "lone"))]);
    for record in [&keep, &same, &lone] {
        store.commit(record).unwrap();
    }
    store.take(&bench.write("local", "local")).unwrap();
    let usage = store.usage().unwrap();
    let counts = (usage.blobs.count, usage.loose.count, usage.records.len());
    assert_eq!(counts, (3, 1, 3));

    let other = bench.store();
    let refused = store.collect(Bounds::NOTHING, |_| true).unwrap_err();
    assert_eq!(refused.code(), "cache::in-use");
    drop(other);

    let needed = |record: &Record| record.key == keep.key;
    let would = store.would_collect(Bounds::NOTHING, needed).unwrap();
    assert!(store.present(&lone).unwrap(), "a dry run drops nothing");
    let collected = store.collect(Bounds::NOTHING, needed).unwrap();
    assert_eq!(collected, would);
    assert_eq!(
        (collected.records, collected.blobs, collected.bytes),
        (2, 2, 9)
    );
    assert!(store.present(&keep).unwrap());
    assert!(!store.present(&lone).unwrap());
    assert_eq!(store.verify().unwrap().faults, []);
    let nothing = store.collect(Bounds::NOTHING, |_| true).unwrap();
    assert_eq!((nothing.records, nothing.blobs, nothing.bytes), (0, 0, 0));
    assert_eq!((nothing.needed, nothing.left), (1, 6));
}

/// Makes a record look as if it was used so many days ago.
fn unused_for(store: &Store, record: &Record, days: u64) {
    let name = format!("{}.json", record.result());
    let key = record.key.hex();
    let path = store.base().join("store/records").join(&key[..2]);
    let file = fs::File::open(path.join(&key).join(name)).unwrap();
    let then = SystemTime::now() - Duration::from_hours(24 * days);
    file.set_modified(then).unwrap();
}

#[test]
fn collecting_goes_by_age_and_then_by_size_the_longest_unused_first() {
    let bench = Bench::new();
    let store = bench.store();
    let made: Vec<_> = (1..=5)
        .map(|days| {
            let kind = days.to_string();
            let made = record(&store, &kind, &[("out", &bench.write(&kind, [days; 100]))]);
            store.commit(&made).unwrap();
            unused_for(&store, &made, u64::from(days));
            made
        })
        .collect();
    let there = |store: &Store| {
        let there = made.iter().map(|record| store.present(record).unwrap());
        there.collect::<Vec<_>>()
    };
    let days = |days: u64| Duration::from_hours(24 * days);

    // The one of five days is too old, that of four is too old and needed.
    let by_age = Bounds {
        age: days(4),
        bytes: u64::MAX,
    };
    let needed = |record: &Record| record.key == made[3].key;
    let collected = store.collect(by_age, needed).unwrap();
    assert_eq!((collected.bytes, collected.left), (100, 400));
    assert_eq!(there(&store), [true, true, true, true, false]);

    // Room for two: the longest unused goes first, but one that is used counts as new.
    store.used(&made[2]);
    let by_size = Bounds {
        age: days(1000),
        bytes: 250,
    };
    let collected = store.collect(by_size, needed).unwrap();
    assert_eq!((collected.bytes, collected.left), (200, 200));
    assert_eq!(there(&store), [false, false, true, true, false]);
    assert_eq!(store.verify().unwrap().faults, []);
}

#[test]
fn checkpoints_go_by_age_and_paid_answers_never() {
    let bench = Bench::new();
    let store = bench.store();
    let (old, held) = (Digest::of(b"old"), Digest::of(b"held"));
    for key in [old, held] {
        let path = bench.write(&format!(".tunesmith/checkpoints/{key}/step"), [0; 50]);
        let then = SystemTime::now() - Duration::from_hours(24 * 40);
        let file = fs::File::open(&path).unwrap();
        file.set_modified(then).unwrap();
        let folder = fs::File::open(path.parent().unwrap()).unwrap();
        folder.set_modified(then).unwrap();
    }
    bench.write(".tunesmith/checkpoints/new/step", [0; 50]);
    bench.write(".tunesmith/kept/synthesize/answer", [0; 50]);
    let _at_work = store.lock(&held).unwrap();
    let usage = store.usage().unwrap();
    assert_eq!((usage.checkpoints.count, usage.kept.bytes), (2, 50));

    let bounds = Bounds {
        age: Duration::from_hours(24 * 30),
        bytes: 0,
    };
    let collected = store.collect(bounds, |_| true).unwrap();
    assert_eq!((collected.checkpoints, collected.bytes), (1, 50));
    let left = |path: String| bench.path(&path).exists();
    assert!(!left(format!(".tunesmith/checkpoints/{old}")));
    assert!(left(format!(".tunesmith/checkpoints/{held}")), "in use");
    assert!(left(".tunesmith/checkpoints/new".into()), "may be resumed");
    assert!(left(".tunesmith/kept/synthesize/answer".into()));
}

#[test]
fn a_shared_store_knows_its_checkouts() {
    let bench = Bench::new();
    let open = |checkout: &str| {
        let opening = cache::Opening {
            shared: Some(bench.path("shared")),
            ..cache::Opening::default()
        };
        let store = Store::open_with(&bench.path(checkout).join(".tunesmith"), opening).unwrap();
        store.register(&bench.path(checkout)).unwrap();
        store
    };
    let (one, two) = (open("one"), open("two"));
    let made = record(&one, "x", &[("out", &bench.write("a", "bytes"))]);
    one.commit(&made).unwrap();
    assert!(two.present(&two.records(&made.key).unwrap()[0]).unwrap());
    let results = [(made.key, made.result())].into();
    one.remember_root(&bench.path("one"), results).unwrap();
    let roots = two.roots();
    let known: Vec<_> = roots.iter().map(|root| root.results.len()).collect();
    assert_eq!(roots[0].checkout, bench.path("one"));
    assert_eq!(known, [1, 0]);
    // Registering again forgets nothing.
    open("one");
    assert_eq!(two.roots()[0].results.len(), 1);
    two.forget_root(&bench.path("one")).unwrap();
    assert_eq!(two.roots().len(), 1);
}
