//! What one process sees of leases: expiry, beats, and a file that is another's by now.

use std::fs;

use super::*;

const QUICK: Pace = Pace {
    beat: Duration::from_millis(100),
};

fn leases() -> Leases {
    Leases::new(QUICK, Disk::default())
}

/// A lease file of a machine that nothing is known of.
fn foreign(path: &Path, beat: u64) {
    let owner = Owner {
        id: "elsewhere-1".to_owned(),
        table: "another machine".to_owned(),
        start: 1,
    };
    let mut content = Content::first("elsewhere-1-0", &owner);
    for _ in 0..beat {
        content.beat();
    }
    fs::write(path, content.bytes()).unwrap();
}

#[test]
fn a_held_lease_beats_and_is_freed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lease");
    let (one, two) = (leases(), leases());
    let held = one.try_take(&path).unwrap().unwrap();
    assert!(two.try_take(&path).unwrap().is_none() && two.is_held(&path));
    assert!(two.lives(&path).unwrap(), "seen to beat");
    let before = fs::read(&path).unwrap();
    std::thread::sleep(3 * QUICK.beat);
    assert_ne!(fs::read(&path).unwrap(), before);
    held.check().unwrap();
    drop(held);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    drop(two.try_take(&path).unwrap().unwrap());
}

#[test]
fn bytes_that_stand_still_expire_and_a_beat_begins_the_watch_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lease");
    let watcher = leases();
    foreign(&path, 0);
    assert!(watcher.is_held(&path));
    std::thread::sleep(QUICK.patience() / 2);
    foreign(&path, 1);
    assert!(watcher.is_held(&path));
    std::thread::sleep(QUICK.patience() * 3 / 4);
    assert!(watcher.is_held(&path), "it beat meanwhile");
    assert!(watcher.try_take(&path).unwrap().is_none());
    std::thread::sleep(QUICK.patience() / 2);
    assert!(!watcher.is_held(&path));
    let held = watcher.try_take(&path).unwrap().unwrap();
    held.check().unwrap();
}

/// A taker that died between making the file and writing into it.
#[test]
fn an_empty_file_expires_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lease");
    fs::write(&path, "").unwrap();
    let watcher = leases();
    assert!(watcher.try_take(&path).unwrap().is_none());
    std::thread::sleep(QUICK.patience());
    assert!(watcher.try_take(&path).unwrap().is_some());
}

#[test]
fn a_lease_that_another_took_is_lost_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lease");
    let held = leases().try_take(&path).unwrap().unwrap();
    // As a taker does.
    fs::rename(&path, dir.path().join("away")).unwrap();
    fs::remove_file(dir.path().join("away")).unwrap();
    foreign(&path, 0);
    let theirs = fs::read(&path).unwrap();
    std::thread::sleep(2 * QUICK.beat);
    let lost = held.check().unwrap_err();
    assert_eq!(lost.code(), "cache::lease-lost");
    drop(held);
    assert_eq!(
        fs::read(&path).unwrap(),
        theirs,
        "neither beaten nor removed"
    );
}
