//! What breaks a store or a remote from below: flipped bits, a push that was killed half-way.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a test may write where it likes")]

use std::fs;
use std::path::PathBuf;

use cache::{FaultKind, Folder, KeyParts, Made, Record, Remote, Store};

/// A folder with two files and metrics: all that a record can hold.
fn made(store: &Store, dir: &std::path::Path) -> Record {
    let folder = dir.join("many");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a"), "one").unwrap();
    fs::write(folder.join("b"), "two").unwrap();
    let mut parts = KeyParts::new();
    parts.push("kind", "eval");
    parts.push("with.lr", "0.0001");
    let record = Record {
        key: parts.digest(),
        parts,
        outputs: [("many".to_owned(), store.put(&folder).unwrap())].into(),
        outcome: serde_json::json!({"metrics": {"loss": 0.1 + 0.2, "score": 0.9}}),
        made: Made {
            started: "2026-11-22T10:00:00Z".to_owned(),
            host: "here".to_owned(),
            ..Made::default()
        },
    };
    store.commit(&record).unwrap();
    record
}

fn file_of(store: &Store, record: &Record) -> PathBuf {
    let key = record.key.hex();
    let folder = store.base().join("store/records").join(&key[..2]).join(key);
    folder.join(format!("{}.json", record.result()))
}

#[test]
fn no_flipped_bit_of_a_record_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("home")).unwrap();
    let record = made(&store, dir.path());
    let place = file_of(&store, &record);
    let whole = fs::read(&place).unwrap();
    let mut refused = 0;
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&place, &bytes).unwrap();
        let found = store.records(&record.key).unwrap();
        refused += usize::from(found.is_empty());
        // In the name of the sum itself, where it says nothing of the rest.
        let same = found.is_empty() || found == std::slice::from_ref(&record);
        assert!(same, "bit {bit}: {}", String::from_utf8_lossy(&bytes));
    }
    assert!(refused > whole.len() * 8 - 8 * 8, "{refused}");
}

#[test]
fn a_record_from_before_sums_counts() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("home")).unwrap();
    let record = made(&store, dir.path());
    fs::write(
        file_of(&store, &record),
        serde_json::to_vec(&record).unwrap(),
    )
    .unwrap();
    assert_eq!(store.records(&record.key).unwrap(), [record]);
    assert_eq!(store.verify().unwrap().faults, []);
}

#[test]
fn verify_finds_a_record_under_a_name_that_is_not_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("home")).unwrap();
    let record = made(&store, dir.path());
    let place = file_of(&store, &record);
    let other = place.with_file_name(format!("{}.json", record.key));
    fs::rename(&place, &other).unwrap();
    let faults = store.verify().unwrap().faults;
    assert_eq!(faults.len(), 1);
    assert_eq!(
        (&faults[0].path, &faults[0].kind),
        (&other, &FaultKind::BadRecord)
    );
    assert_eq!(store.records(&record.key).unwrap(), []);
}

#[test]
fn verify_finds_every_flipped_bit_of_a_blob_whatever_its_stat_says() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("home")).unwrap();
    let record = made(&store, dir.path());
    let (_, _, digest, size) = record.outputs["many"].files().next().unwrap();
    let path = store.blob_path(&digest);
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.len() as u64, size);
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if path.exists() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        fs::write(&path, &bytes).unwrap();
        let faults = store.verify().unwrap().faults;
        assert!(
            faults.iter().any(|fault| fault.kind == FaultKind::BadBlob),
            "bit {bit}"
        );
        assert!(!path.exists(), "in quarantine");
        fs::write(&path, &whole).unwrap();
        assert_eq!(store.verify().unwrap().faults, []);
    }
}

/// A push that is killed between the record and the key's name leaves a result that nobody finds
/// who does not know it; the next push names it.
#[test]
fn a_push_that_left_no_name_is_finished_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("home")).unwrap();
    let record = made(&store, dir.path());
    let far = dir.path().join("far");
    let remote = || Remote::new(Box::new(Folder::new(&far)), Vec::new(), None);
    remote().push(&store, &record, &|_| {}).unwrap();
    fs::remove_dir_all(far.join("v1/keys")).unwrap();
    assert_eq!(remote().find(&record.key, None), None);
    let moved = remote().push(&store, &record, &|_| {}).unwrap();
    assert_eq!(moved.blobs, 0, "its bytes were there");
    assert_eq!(remote().find(&record.key, None).as_ref(), Some(&record));
}
