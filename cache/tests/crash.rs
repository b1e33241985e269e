//! A killed writer and a full disk leave a whole store. The tests start themselves again as a
//! child with `CRASH_HOME` set: that child does the writing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a test may write where it likes")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cache::{Bounds, KeyParts, Made, Record, Store};

const HOME: &str = "CRASH_HOME";

/// The folder to work in, in the child.
fn child_home() -> Option<PathBuf> {
    env::var_os(HOME).map(PathBuf::from)
}

/// This test, to be started as a child.
fn again(test: &str, home: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(HOME, home);
    command
}

/// Makes and commits result `number`: a folder of some files, one of them large.
fn make(store: &Store, number: u32) -> Result<Record, cache::Error> {
    let scratch = store.scratch()?;
    let folder = scratch.path().join("out");
    fs::create_dir(&folder).unwrap();
    for (name, size) in [("small", 10), ("large", 300_000)] {
        let bytes: Vec<u8> = (0..size).map(|at: u32| (at * (number + 3)) as u8).collect();
        // A stage would tell of the full disk itself; here only the store is of interest.
        fs::write(folder.join(name), bytes).map_err(|source| cache::Error::Io {
            doing: "write",
            path: folder.join(name),
            source,
        })?;
    }
    let tree = if number.is_multiple_of(2) {
        store.adopt(&folder)?
    } else {
        store.put(&folder)?
    };
    let mut parts = KeyParts::new();
    parts.push("number", number.to_string());
    let record = Record {
        key: parts.digest(),
        parts,
        outputs: BTreeMap::from([("out".to_owned(), tree)]),
        outcome: serde_json::Value::Null,
        made: Made::default(),
    };
    store.commit(&record)?;
    Ok(record)
}

/// Every record of the store is whole; returns how many there are.
fn all_whole(store: &Store) -> usize {
    let found = store.verify().unwrap();
    assert_eq!(found.faults, []);
    found.records
}

#[test]
fn a_writer_killed_at_any_time_leaves_a_whole_store() {
    if let Some(home) = child_home() {
        let store = Store::open(&home).unwrap();
        for number in 0.. {
            let _held = store.lock(&cache::Digest::of(b"lock")).unwrap();
            make(&store, number).unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut records = 0;
    for round in 0..25 {
        let mut child = again(
            "a_writer_killed_at_any_time_leaves_a_whole_store",
            dir.path(),
        )
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
        std::thread::sleep(Duration::from_millis(5 + 3 * round));
        child.kill().unwrap();
        child.wait().unwrap();

        let store = Store::open(dir.path()).unwrap();
        let now = all_whole(&store);
        assert!(now >= records, "a committed result is never lost");
        records = now;
        let lock = store.try_lock(&cache::Digest::of(b"lock")).unwrap();
        assert!(lock.is_some(), "a dead holder's lock is free");
        let left = fs::read_dir(dir.path().join("store/tmp")).unwrap().count();
        assert_eq!(left, 0, "what the dead left is swept");
    }
    assert!(records > 0, "the child came to write");
}

#[test]
fn a_full_disk_is_named_and_leaves_a_whole_store() {
    if let Some(home) = child_home() {
        let store = Store::open(&home).unwrap();
        let first = make(&store, 0).unwrap();
        let error = (1..100)
            .find_map(|number| make(&store, number).err())
            .unwrap();
        assert_eq!(error.code(), "cache::disk-full", "{error}");
        assert!(store.present(&first).unwrap());
        drop(store);
        let store = Store::open(&home).unwrap();
        assert!(all_whole(&store) >= 1);
        assert_eq!(fs::read_dir(home.join("store/tmp")).unwrap().count(), 0);
        // Room again: the store goes on.
        let needed = |record: &Record| record.key == first.key;
        store.collect(Bounds::NOTHING, needed).unwrap();
        make(&store, 1).unwrap();
        println!("the full disk was met");
        return;
    }
    // A small disk of our own, in a name space of our own.
    let dir = tempfile::tempdir().unwrap();
    let test = again("a_full_disk_is_named_and_leaves_a_whole_store", dir.path());
    let script = "mount -t tmpfs -o size=2m small \"$CRASH_HOME\" && exec \"$0\" \"$@\"";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(test.get_program())
        .args(test.get_args())
        .env(HOME, dir.path())
        .output();
    let Ok(output) = output else {
        println!("skipped: no `unshare` here");
        return;
    };
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
    if wrong.starts_with("unshare:") || wrong.starts_with("mount:") {
        println!("skipped: this user may not mount a small disk: {wrong}");
        return;
    }
    assert!(output.status.success(), "{told}\n{wrong}");
    assert!(told.contains("the full disk was met"), "{told}\n{wrong}");
}
