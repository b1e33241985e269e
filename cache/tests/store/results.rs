//! What goes in is found again, by its key, with others or alone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use cache::Digest;

use super::{Bench, record};

#[test]
fn a_committed_result_is_found_again_by_its_key() {
    let bench = Bench::new();
    let rows = bench.write("rows.jsonl", "{}\n");
    let made = {
        let store = bench.store();
        let made = record(&store, "convert", &[("rows", &rows)]);
        store.commit(&made).unwrap();
        made
    };
    let store = bench.store();
    assert_eq!(
        store.records(&made.key).unwrap(),
        std::slice::from_ref(&made)
    );
    assert!(store.has_record(&made.key, &made.result()));
    assert!(store.present(&made).unwrap());
    assert_eq!(store.records(&Digest::of(b"other")).unwrap(), []);
    assert_eq!(store.verify().unwrap().faults, []);
}

#[test]
fn one_key_owns_several_results() {
    let bench = Bench::new();
    let store = bench.store();
    let cpu = record(&store, "train", &[("adapter", &bench.write("cpu", "1"))]);
    let gpu = record(&store, "train", &[("adapter", &bench.write("gpu", "2"))]);
    assert_eq!(cpu.key, gpu.key);
    store.commit(&cpu).unwrap();
    store.commit(&gpu).unwrap();
    store.commit(&gpu).unwrap();
    let found = store.records(&cpu.key).unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.contains(&cpu) && found.contains(&gpu));
}

#[test]
fn blobs_are_read_only_and_plain_files_are_named_by_their_bytes() {
    let bench = Bench::new();
    let store = bench.store();
    let tree = store.put(&bench.write("x", "bytes")).unwrap();
    assert_eq!(tree.digest(), Digest::of(b"bytes"));
    let blob = store.blob_path(&tree.digest());
    assert_eq!(fs::read(&blob).unwrap(), b"bytes");
    assert_eq!(
        fs::metadata(blob).unwrap().permissions().mode() & 0o777,
        0o444
    );
}

#[test]
fn many_stores_put_and_commit_the_same_things_at_once() {
    let bench = Bench::new();
    for number in 0..40 {
        bench.write(&format!("in/{number}"), format!("{}", number % 7));
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = bench.store();
                for round in 0..5 {
                    let kind = format!("round {round}");
                    let made = record(&store, &kind, &[("out", &bench.path("in"))]);
                    let held = store.lock(&made.key).unwrap();
                    store.commit(&made).unwrap();
                    drop(held);
                    assert!(store.present(&made).unwrap());
                }
            });
        }
    });
    let store = bench.store();
    let found = store.verify().unwrap();
    assert_eq!((found.faults.len(), found.blobs, found.records), (0, 7, 5));
    assert_eq!(
        fs::read_dir(bench.path(".tunesmith/store/tmp"))
            .unwrap()
            .count(),
        0
    );
}
