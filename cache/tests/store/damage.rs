//! What is damaged or half-made is noticed and never believed.

use std::fs;
use std::time::SystemTime;

use cache::{Digest, FaultKind, LackCause};

use super::{Bench, damage, only_blob, record};

#[test]
fn a_damaged_blob_is_noticed_even_at_once_and_at_the_same_size() {
    let bench = Bench::new();
    let store = bench.store();
    let made = record(&store, "a", &[("out", &bench.write("x", "bytes"))]);
    store.commit(&made).unwrap();
    damage(&store, &only_blob(&made.outputs["out"]), b"BYTES");

    let lacks = store.lacking(&made.outputs).unwrap();
    assert_eq!(lacks.len(), 1);
    assert_eq!(
        (&*lacks[0].product, lacks[0].cause),
        ("out", LackCause::Damaged)
    );
    assert!(!store.present(&made).unwrap());
    assert_eq!(
        store.lacking(&made.outputs).unwrap()[0].cause,
        LackCause::Missing
    );
    let quarantined = bench
        .path(".tunesmith/store/quarantine")
        .join(Digest::of(b"bytes").hex());
    assert_eq!(fs::read(quarantined).unwrap(), b"BYTES");

    // Making it anew mends it.
    store.put(&bench.path("x")).unwrap();
    assert!(store.present(&made).unwrap());
}

#[test]
fn putting_over_a_damaged_blob_mends_it() {
    let bench = Bench::new();
    let store = bench.store();
    let path = bench.write("x", "bytes");
    let tree = store.put(&path).unwrap();
    damage(&store, &tree.digest(), b"BYTES");
    assert_eq!(store.put(&path).unwrap(), tree);
    assert_eq!(fs::read(store.blob_path(&tree.digest())).unwrap(), b"bytes");
}

#[test]
fn a_touched_blob_is_rehashed_and_believed_again() {
    let bench = Bench::new();
    let store = bench.store();
    let made = record(&store, "a", &[("out", &bench.write("x", "bytes"))]);
    let blob = store.blob_path(&only_blob(&made.outputs["out"]));
    let file = fs::File::open(&blob).unwrap();
    file.set_modified(SystemTime::now()).unwrap();
    assert!(store.present(&made).unwrap());
}

#[test]
fn verify_names_every_fault_and_quarantines_it() {
    let bench = Bench::new();
    let store = bench.store();
    let good = record(&store, "good", &[("out", &bench.write("good", "good"))]);
    let bad = record(&store, "bad", &[("out", &bench.write("bad", "bad"))]);
    for record in [&good, &bad] {
        store.commit(record).unwrap();
    }
    damage(&store, &Digest::of(b"bad"), b"BAD");
    let stray = bench.write(".tunesmith/store/blobs/ab/stray", "?");
    let forged = bench
        .path(".tunesmith/store/records")
        .join(&good.key.hex()[..2])
        .join(good.key.hex())
        .join("forged.json");
    fs::write(&forged, serde_json::to_vec(&bad).unwrap()).unwrap();

    let found = store.verify().unwrap();
    assert_eq!((found.blobs, found.records), (3, 3));
    let kinds: Vec<_> = found.faults.iter().map(|fault| &fault.kind).collect();
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| ***kind == FaultKind::BadBlob)
            .count(),
        2
    );
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| ***kind == FaultKind::BadRecord)
            .count(),
        1
    );
    let missing = Digest::of(b"bad");
    assert!(kinds.contains(&&FaultKind::Incomplete { missing }));
    assert!(!stray.exists() && !forged.exists());
    assert!(store.present(&good).unwrap());
    assert_eq!(
        store.verify().unwrap().faults.len(),
        1,
        "the incomplete record stays"
    );
}

#[test]
fn what_a_killed_process_leaves_is_swept_and_never_believed() {
    let bench = Bench::new();
    drop(bench.store());
    let key = Digest::of(b"key");
    let folder = format!(".tunesmith/store/records/{}/{key}", &key.hex()[..2]);
    bench.write(&format!("{folder}/half.json"), "{\"key\": \"");
    bench.write(".tunesmith/store/tmp/123-abc/0", "half a blob");
    bench.write(".tunesmith/store/locks/dead", "123 host");
    bench.write(".tunesmith/index", "b 12");

    let store = bench.store();
    assert!(!bench.path(".tunesmith/store/tmp/123-abc").exists());
    assert_eq!(store.records(&key).unwrap(), []);
    let made = record(&store, "a", &[("out", &bench.write("x", "x"))]);
    store.commit(&made).unwrap();
    assert!(store.try_lock(&key).unwrap().is_some());
    assert_eq!(store.verify().unwrap().faults.len(), 1);
    assert_eq!(store.verify().unwrap().faults, []);
}
