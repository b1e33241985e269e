//! Half-done work: a folder for each key, kept when a stage is killed or fails.
//!
//! Promises: it goes with the result (unless the file says `keep`), when nothing in it changed
//! for too long, or, oldest first, when all together is too large; never while its key is being
//! made, by whatever process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// Empty folders that keys left. Most stages keep nothing, and giving a folder another name costs
/// a fraction of making one.
static SPARE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// How the names of spare folders begin.
const SPARES: &str = ".spare-";

fn spares() -> MutexGuard<'static, Vec<PathBuf>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This key's folder, made if it is not there; or which folder could not be, and why.
pub(crate) fn open(job: &Job) -> Result<PathBuf, (PathBuf, io::Error)> {
    let folder = folder_of(job);
    if folder.is_dir() {
        return Ok(folder);
    }
    let spare = spares().pop();
    // Somebody may have swept it away.
    let taken = spare.is_some_and(|spare| fs::rename(spare, &folder).is_ok());
    match if taken {
        Ok(())
    } else {
        fs::create_dir_all(&folder)
    } {
        Ok(()) => Ok(folder),
        Err(error) => Err((folder, error)),
    }
}

/// Whether there is half-done work of this key.
pub(crate) fn hold_something(job: &Job) -> bool {
    fs::read_dir(folder_of(job)).is_ok_and(|mut listing| listing.next().is_some())
}

/// Drops this key's checkpoints: the result is there.
pub(crate) fn drop_of(job: &Job) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let folder = folder_of(job);
    let empty = fs::read_dir(&folder).is_ok_and(|mut listing| listing.next().is_none());
    if empty {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{SPARES}{}-{number}", std::process::id());
        let spare = all(job.store.base()).join(name);
        if fs::rename(&folder, &spare).is_ok() {
            return spares().push(spare);
        }
    }
    let _absent = fs::remove_dir_all(&folder);
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

/// Drops what is too old or too much, and every spare folder: those of other processes, too, which
/// then make new ones.
pub(crate) fn tidy(store: &Store, bounds: Checkpoints, now: SystemTime) -> Dropped {
    let listing = fs::read_dir(all(store.base())).into_iter();
    let (spare, others): (Vec<_>, Vec<_>) = listing
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .partition(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(SPARES))
        });
    for path in spare {
        let _taken = fs::remove_dir(path);
    }
    let mut kept: Vec<Kept> = others.into_iter().map(look).collect();
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
