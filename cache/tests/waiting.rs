//! Records that wait for their places: seen by their own process at once, by others when they are
//! there; told apart when the disk refuses; nothing lost by whoever asks for them to be settled.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a test may write where it likes")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cache::{Change, Digest, KeyParts, Made, Opening, Record, Store, Syncing, Witness};

fn record(store: &Store, number: usize) -> Record {
    let scratch = store.scratch().unwrap();
    let out = scratch.path().join("out");
    fs::create_dir(&out).unwrap();
    for at in 0..5 {
        fs::write(out.join(at.to_string()), format!("{number} {at}")).unwrap();
    }
    let mut parts = KeyParts::new();
    parts.push("number", number.to_string());
    Record {
        key: parts.digest(),
        parts,
        outputs: BTreeMap::from([("out".to_owned(), store.adopt(&out).unwrap())]),
        outcome: serde_json::Value::Null,
        made: Made::default(),
    }
}

fn open(home: &Path, syncing: Syncing) -> Store {
    let opening = Opening {
        syncing,
        ..Opening::default()
    };
    Store::open_with(home, opening).unwrap()
}

#[test]
fn what_waits_counts_here_at_once_and_elsewhere_when_it_is_placed() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (
        Store::open(dir.path()).unwrap(),
        Store::open(dir.path()).unwrap(),
    );
    let record = record(&here, 1);
    let lock = here.lock(&record.key).unwrap();
    let ticket = here.commit_soon(&record, &mut Some(lock)).unwrap();

    assert_eq!(here.waiting(), 1);
    assert_eq!(
        here.records(&record.key).unwrap(),
        std::slice::from_ref(&record)
    );
    assert!(here.present(&record).unwrap());
    assert_eq!(there.records(&record.key).unwrap(), []);
    assert!(!there.has_record(&record.key, &record.result()));
    assert!(
        there.try_lock(&record.key).unwrap().is_none(),
        "still being made"
    );

    here.place();
    assert_eq!(here.waiting(), 0);
    assert!(ticket.failure().is_none());
    assert_eq!(
        there.records(&record.key).unwrap(),
        std::slice::from_ref(&record)
    );
    assert_eq!(
        here.records(&record.key).unwrap(),
        std::slice::from_ref(&record)
    );
    assert!(there.try_lock(&record.key).unwrap().is_some());
    assert_eq!(there.verify().unwrap().faults, []);
}

#[test]
fn a_store_that_is_closed_settles_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let record = record(&store, 1);
    store.commit_soon(&record, &mut None).unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.records(&record.key).unwrap(), [record]);
    assert_eq!(
        fs::read_dir(dir.path().join("store/tmp")).unwrap().count(),
        0
    );
}

#[test]
fn a_store_that_is_left_settles_what_waits_and_remembers_what_it_hashed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let record = record(&store, 1);
    store.commit_soon(&record, &mut None).unwrap();
    store.leave();
    let index = fs::read_to_string(dir.path().join("index")).unwrap();
    assert_eq!(index.matches("\nb ").count(), 5, "{index}");
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.records(&record.key).unwrap(), [record]);
    assert_eq!(
        fs::read_dir(dir.path().join("store/tmp")).unwrap().count(),
        0
    );
}

#[test]
fn who_changes_nothing_waits_for_no_disk() {
    let dir = tempfile::tempdir().unwrap();
    let record = record(&Store::open(dir.path()).unwrap(), 1);
    let store = open(dir.path(), Syncing::Each);
    assert!(store.present(&record).unwrap());
    store.settle().unwrap();
    assert_eq!(store.syncs(), 0);
    store.commit(&record).unwrap();
    assert!(store.syncs() > 3, "the store's own folders are among them");
}

/// Many records together cost a few syncs where the whole file system is synced, and about one a file
/// and folder elsewhere.
#[test]
fn records_that_wait_together_share_syncs() {
    let count = |syncing: Syncing| {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), syncing);
        for number in 0..20 {
            let record = record(&store, number);
            store.commit_soon(&record, &mut None).unwrap();
        }
        store.settle().unwrap();
        assert_eq!(store.verify().unwrap().records, 20);
        store.syncs()
    };
    // One for the blobs of each adoption, one for all records, one for their names.
    assert_eq!(count(Syncing::Together), 20 + 2);
    assert!(count(Syncing::Each) > 100 + 20);
}

/// Refuses syncs while it is told to.
#[derive(Default)]
struct Refusing(AtomicBool);

impl Witness for Refusing {
    fn change(
        &self,
        change: Change<'_>,
        act: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let sync = matches!(
            change,
            Change::SyncFile(_) | Change::SyncFolder(_) | Change::SyncAll(_)
        );
        if sync && self.0.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        act()
    }
}

#[test]
fn what_cannot_be_placed_is_told_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let refusing = Arc::new(Refusing::default());
    let opening = Opening {
        witness: Some(Arc::clone(&refusing) as Arc<dyn Witness>),
        ..Opening::default()
    };
    let store = Store::open_with(dir.path(), opening).unwrap();
    let made = [1, 2].map(|number| {
        let record = record(&store, number);
        let lock = store.lock(&record.key).unwrap();
        (
            record.key,
            store.commit_soon(&record, &mut Some(lock)).unwrap(),
        )
    });
    refusing.0.store(true, Ordering::SeqCst);
    store.place();
    for (key, ticket) in &made {
        assert_eq!(ticket.failure().unwrap().code(), "cache::disk-full");
        assert_eq!(store.records(key).unwrap(), []);
        assert!(
            store.try_lock(key).unwrap().is_some(),
            "free for the next try"
        );
    }
    // With room again the same work ends well.
    refusing.0.store(false, Ordering::SeqCst);
    for number in [1, 2] {
        store.commit(&record(&store, number)).unwrap();
    }
    assert_eq!(store.verify().unwrap().faults, []);
}

/// Written to between its hash and its place: refused, and nothing stands under its name.
#[test]
fn a_file_that_is_written_to_on_its_way_is_refused() {
    struct Late;
    impl Witness for Late {
        fn change(
            &self,
            change: Change<'_>,
            act: &mut dyn FnMut() -> io::Result<()>,
        ) -> io::Result<()> {
            // A process left over from the stage, through a descriptor that it still holds.
            if let Change::SyncFile(path) = change
                && path.parent().is_some_and(|folder| folder.ends_with("out"))
            {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
                fs::set_permissions(path, mode)?;
                fs::write(path, "other")?;
            }
            act()
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let opening = Opening {
        witness: Some(Arc::new(Late)),
        ..Opening::default()
    };
    let store = Store::open_with(dir.path(), opening).unwrap();
    let scratch = store.scratch().unwrap();
    let out = scratch.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("it"), "bytes").unwrap();
    let error = store.adopt(&out).unwrap_err();
    assert_eq!(error.code(), "cache::moving", "{error}");
    assert!(!store.blob_path(&Digest::of(b"bytes")).exists());
    assert_eq!(store.verify().unwrap().faults, []);
}
