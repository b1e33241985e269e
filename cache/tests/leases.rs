//! Leases between processes: holders that die, freeze, wake and collect. The tests start themselves again
//! as a child with `LEASE_HOME` set: that child is the other process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a test may write where it likes")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cache::{Bounds, Digest, Error, Locking, Opening, Pace, Store};

const HOME: &str = "LEASE_HOME";

/// Fast enough for a test, slow enough for a busy machine: eight beats are 1.6 s.
const PACE: Pace = Pace {
    beat: Duration::from_millis(200),
};

fn open(home: &Path) -> Store {
    let opening = Opening {
        locking: Some(Locking::Leases(PACE)),
        ..Opening::default()
    };
    Store::open_with(home, opening).unwrap()
}

fn key() -> Digest {
    Digest::of(b"a key")
}

fn lease(home: &Path) -> PathBuf {
    home.join("store/locks").join(key().hex())
}

fn child_home() -> Option<PathBuf> {
    env::var_os(HOME).map(PathBuf::from)
}

/// Starts a test of this program again as another process.
fn other(test: &str, home: &Path) -> Other {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(HOME, home);
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    Other(child)
}

/// Another process; gone when dropped, also if it is frozen.
struct Other(Child);

impl Other {
    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let sent = Command::new("kill").args([name, &id]).status().unwrap();
        assert!(sent.success());
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.kill();
    }
}

fn wait_for(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_mins(1), "nothing comes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Takes the lock, says so, and publishes when told to: if the lock is still its own.
fn hold_and_publish(home: &Path) {
    let store = open(home);
    let mut held = store.lock(&key()).unwrap();
    fs::write(home.join("holds"), "").unwrap();
    wait_for(|| home.join("publish").exists());
    let said = match store.still_mine(&key(), &mut held) {
        Ok(true) => "mine".to_owned(),
        Ok(false) => "mine again".to_owned(),
        Err(error) => error.code().to_owned(),
    };
    fs::write(home.join("said.part"), said).unwrap();
    fs::rename(home.join("said.part"), home.join("said")).unwrap();
}

fn said(home: &Path) -> String {
    fs::write(home.join("publish"), "").unwrap();
    wait_for(|| home.join("said").exists());
    fs::read_to_string(home.join("said")).unwrap()
}

#[test]
fn a_living_holder_is_waited_for_however_long_it_takes() {
    if let Some(home) = child_home() {
        return hold_and_publish(&home);
    }
    let dir = tempfile::tempdir().unwrap();
    let _child = other(
        "a_living_holder_is_waited_for_however_long_it_takes",
        dir.path(),
    );
    wait_for(|| dir.path().join("holds").exists());
    let store = open(dir.path());
    let holder = store.lock_holder(&key()).unwrap();
    assert_ne!(holder.pid, std::process::id());
    let began = Instant::now();
    while began.elapsed() < 2 * PACE.patience() {
        assert!(store.try_lock(&key()).unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(said(dir.path()), "mine");
    store.lock(&key()).unwrap();
}

#[test]
fn a_killed_holder_on_this_machine_is_known_at_once() {
    if let Some(home) = child_home() {
        return hold_and_publish(&home);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = other(
        "a_killed_holder_on_this_machine_is_known_at_once",
        dir.path(),
    );
    wait_for(|| dir.path().join("holds").exists());
    child.kill();
    let store = open(dir.path());
    let held = store.try_lock(&key()).unwrap();
    assert_eq!(held.is_some(), cfg!(target_os = "linux"));
    // What it left open is swept, too.
    let left = fs::read_dir(dir.path().join("store/tmp")).unwrap().count();
    assert_eq!(left, 0);
}

/// As if it had run on another machine: nobody can look for its process there.
fn move_elsewhere(lease: &Path) {
    let text = fs::read_to_string(lease).unwrap();
    let mut content: serde_json::Value = serde_json::from_str(&text).unwrap();
    content["table"] = "another machine".into();
    fs::write(lease, content.to_string()).unwrap();
}

#[test]
fn a_dead_holder_elsewhere_is_watched_standing_still() {
    if let Some(home) = child_home() {
        return hold_and_publish(&home);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = other(
        "a_dead_holder_elsewhere_is_watched_standing_still",
        dir.path(),
    );
    wait_for(|| dir.path().join("holds").exists());
    child.kill();
    move_elsewhere(&lease(dir.path()));
    let store = open(dir.path());
    let began = Instant::now();
    let _held = store.lock(&key()).unwrap();
    let took = began.elapsed();
    assert!(took >= PACE.patience(), "{took:?}");
    assert!(took < 4 * PACE.patience(), "{took:?}");
}

#[test]
fn a_frozen_holder_that_comes_back_finds_its_lock_lost() {
    if let Some(home) = child_home() {
        return hold_and_publish(&home);
    }
    let dir = tempfile::tempdir().unwrap();
    let child = other(
        "a_frozen_holder_that_comes_back_finds_its_lock_lost",
        dir.path(),
    );
    wait_for(|| dir.path().join("holds").exists());
    child.signal("-STOP");
    let store = open(dir.path());
    let mut held = store.lock(&key()).unwrap();
    child.signal("-CONT");
    // Time for a few of its beats: they go into a file that has no name any more.
    std::thread::sleep(3 * PACE.beat);
    assert_eq!(said(dir.path()), "cache::lease-lost");
    assert!(store.still_mine(&key(), &mut held).unwrap());
}

#[test]
fn a_frozen_holder_whose_lock_nobody_took_takes_it_again() {
    if let Some(home) = child_home() {
        return hold_and_publish(&home);
    }
    let dir = tempfile::tempdir().unwrap();
    let child = other(
        "a_frozen_holder_whose_lock_nobody_took_takes_it_again",
        dir.path(),
    );
    wait_for(|| dir.path().join("holds").exists());
    child.signal("-STOP");
    std::thread::sleep(PACE.patience());
    child.signal("-CONT");
    assert_eq!(said(dir.path()), "mine again");
}

#[test]
fn processes_take_turns() {
    const TURNS: u32 = 15;
    if let Some(home) = child_home() {
        let store = open(&home);
        for _ in 0..TURNS {
            let _held = store.lock(&key()).unwrap();
            let count: u32 = fs::read_to_string(home.join("count"))
                .unwrap()
                .parse()
                .unwrap();
            std::thread::sleep(Duration::from_millis(1));
            fs::write(home.join("count"), (count + 1).to_string()).unwrap();
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("count"), "0").unwrap();
    let mut children: Vec<_> = (0..4)
        .map(|_| other("processes_take_turns", dir.path()))
        .collect();
    for child in &mut children {
        assert!(child.0.wait().unwrap().success());
    }
    let count = fs::read_to_string(dir.path().join("count")).unwrap();
    assert_eq!(count, (4 * TURNS).to_string());
    let left = fs::read_dir(dir.path().join("store/locks"))
        .unwrap()
        .count();
    assert_eq!(left, 0, "every lease was freed");
}

#[test]
fn collecting_gives_way_to_the_living_and_passes_the_dead() {
    if let Some(home) = child_home() {
        return hold_and_publish(&home);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = other(
        "collecting_gives_way_to_the_living_and_passes_the_dead",
        dir.path(),
    );
    wait_for(|| dir.path().join("holds").exists());
    let store = open(dir.path());
    let collected = store.collect(Bounds::NOTHING, |_| true);
    assert!(
        matches!(collected, Err(Error::InUse { .. })),
        "{collected:?}"
    );
    child.kill();
    // What it left, as another machine's would be.
    let users = fs::read_dir(dir.path().join("store/users")).unwrap();
    let text = |path: &PathBuf| fs::read_to_string(path).unwrap();
    let this = format!("\"pid\":{},", std::process::id());
    let users = users.map(|entry| entry.unwrap().path());
    let dead: Vec<_> = users.filter(|path| !text(path).contains(&this)).collect();
    assert_eq!(dead.len(), 1);
    move_elsewhere(&dead[0]);
    let began = Instant::now();
    store.collect(Bounds::NOTHING, |_| true).unwrap();
    assert!(began.elapsed() >= PACE.patience());
    assert!(!dead[0].exists());
    // Nobody collects any more: others may come.
    drop(open(dir.path()));
}

#[test]
fn a_store_that_was_locked_by_leases_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    // Who opens it next was told nothing, or otherwise: the machine that exports it sees a local disk.
    for locking in [None, Some(Locking::Kernel)] {
        let opening = Opening {
            locking,
            ..Opening::default()
        };
        let store = Store::open_with(dir.path(), opening).unwrap();
        let _held = store.lock(&key()).unwrap();
        assert!(
            fs::read_to_string(lease(dir.path()))
                .unwrap()
                .contains("\"beat\"")
        );
    }
    let local = tempfile::tempdir().unwrap();
    drop(Store::open(local.path()).unwrap());
    assert!(!local.path().join("store/leases").exists());
}

#[test]
fn the_index_lies_where_it_is_told() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let opening = || Opening {
        local: Some(disk.path().to_owned()),
        ..Opening::default()
    };
    let file = dir.path().join("file");
    fs::write(&file, "bytes").unwrap();
    let home = dir.path().join("home");
    Store::open_with(&home, opening())
        .unwrap()
        .put(&file)
        .unwrap();
    assert!(!home.join("index").exists());
    let names: Vec<_> = fs::read_dir(disk.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(names.len(), 1);
    assert!(!fs::read(&names[0]).unwrap().is_empty());
}
