//! Half-done work: a folder for each key, kept when a stage is killed or fails.
//!
//! Promises: it goes with the result (unless the file says `keep`), when nothing in it changed
//! for too long, or, oldest first, when all together is too large; never while its key is being
//! made, by whatever process.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cache::{Digest, Store};

use super::job::Job;
use crate::config::Checkpoints;

/// The folder of all of them.
fn all(home: &Path) -> PathBuf {
    home.join("checkpoints")
}

/// Where this key's checkpoints lie.
pub(crate) fn folder_of(job: &Job) -> PathBuf {
    all(job.store.base()).join(job.key.to_string())
}

/// Drops this key's checkpoints: the result is there.
pub(crate) fn drop_of(job: &Job) {
    let folder = folder_of(job);
    // Most stages keep nothing: one call then.
    if fs::remove_dir(&folder).is_err() {
        let _absent = fs::remove_dir_all(&folder);
    }
}

/// One key's checkpoints.
#[derive(Debug)]
struct Kept {
    folder: PathBuf,
    key: Option<Digest>,
    bytes: u64,
    changed: SystemTime,
}

/// What was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) keys: usize,
    pub(crate) bytes: u64,
}

/// Drops what is too old or too much.
pub(crate) fn tidy(store: &Store, bounds: Checkpoints, now: SystemTime) -> Dropped {
    let mut kept: Vec<Kept> = fs::read_dir(all(store.base()))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| look(entry.path()))
        .collect();
    kept.sort_by_key(|kept| kept.changed);
    let mut left: u64 = kept.iter().map(|kept| kept.bytes).sum();
    let mut dropped = Dropped::default();
    for kept in kept {
        let age = now.duration_since(kept.changed).unwrap_or(Duration::ZERO);
        if age <= bounds.age && left <= bounds.size {
            continue;
        }
        // Whoever makes the key holds its lock.
        let lock = kept.key.and_then(|key| store.try_lock(&key).ok().flatten());
        if kept.key.is_some() && lock.is_none() {
            continue;
        }
        if fs::remove_dir_all(&kept.folder).is_ok() {
            left -= kept.bytes;
            dropped.keys += 1;
            dropped.bytes += kept.bytes;
        }
    }
    dropped
}

/// Sizes and times of one folder; the folder's own time counts for an empty one.
fn look(folder: PathBuf) -> Kept {
    let mut bytes = 0;
    let mut changed = SystemTime::UNIX_EPOCH;
    for entry in walkdir::WalkDir::new(&folder).into_iter().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_file() {
            bytes += meta.len();
        }
        changed = changed.max(meta.modified().unwrap_or(SystemTime::UNIX_EPOCH));
    }
    let name = folder.file_name().and_then(|name| name.to_str());
    Kept {
        key: name.and_then(|name| name.parse().ok()),
        folder,
        bytes,
        changed,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use cache::{Digest, Store};

    use super::{Dropped, tidy};
    use crate::config::Checkpoints;

    #[test]
    fn the_old_and_the_oldest_go_but_not_what_is_being_made() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let keys: Vec<Digest> = (0..4_u8).map(|n| Digest::of(&[n])).collect();
        let folder = |n: usize| dir.path().join("checkpoints").join(keys[n].to_string());
        let now = SystemTime::now();
        let day = Duration::from_hours(24);
        for (n, days) in [(0, 40), (1, 30), (2, 5), (3, 1)] {
            fs::create_dir_all(folder(n)).unwrap();
            let path = folder(n).join("state");
            fs::write(&path, [0; 100]).unwrap();
            for path in [path, folder(n)] {
                let file = fs::File::open(path).unwrap();
                file.set_modified(now - day * days).unwrap();
            }
        }
        let held = store.lock(&keys[0]).unwrap();
        let mut bounds = Checkpoints {
            age: day * 14,
            size: 1000,
            keep: false,
        };
        let one = Dropped {
            keys: 1,
            bytes: 100,
        };
        assert_eq!(tidy(&store, bounds, now), one);
        assert!(folder(0).exists() && !folder(1).exists());
        drop(held);
        assert_eq!(tidy(&store, bounds, now), one);
        bounds.size = 150;
        assert_eq!(tidy(&store, bounds, now), one);
        assert!(!folder(2).exists() && folder(3).exists());
        assert_eq!(tidy(&store, bounds, now), Dropped::default());
    }
}
