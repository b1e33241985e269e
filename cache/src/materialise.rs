//! Trees out of the store: as links for programs that only read, or as files of their own.
//!
//! Promises: `materialise` builds aside and swaps the whole in, so a reader of the place sees the
//! old tree or the new one, and a killed process leaves one of the two. The files are the
//! reader's own (reflink or copy, never a hard link): writing to them harms no blob.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::Digest;
use crate::disk::Disk;
use crate::error::Error;
use crate::stat::Stat;
use crate::store::{Condition, Store};
use crate::tree::Tree;

impl Store {
    /// Lays `tree` out at `dest` as links to blobs: a file named `dest`, or a folder. Nothing may
    /// stand there. Executable files are copied, for blobs carry no such bit.
    pub fn view(&self, tree: &Tree, dest: &Path) -> Result<(), Error> {
        self.lay_out(tree, dest, |executable, digest, place| {
            if executable {
                return self.copy_out(digest, place, 0o555);
            }
            let linked = self.disk.link(&self.blob_path(digest), place);
            linked.map_err(Error::io("link", place))
        })
    }

    /// Lays `tree` out at `dest` as files of their own, in place of whatever stands there. It is
    /// built below `asides`, a folder on the same file system.
    pub fn materialise(&self, tree: &Tree, dest: &Path, asides: &Path) -> Result<(), Error> {
        let dest = std::path::absolute(dest).map_err(Error::io("write", dest))?;
        let folder = dest
            .parent()
            .ok_or_else(|| Error::Special { path: dest.clone() })?;
        for folder in [folder, asides] {
            let made = self.disk.make_folders(folder);
            made.map_err(Error::io("create", folder))?;
        }
        let aside = aside_path(asides);
        let laid = self.lay_out(tree, &aside, |executable, digest, place| {
            self.copy_out(digest, place, if executable { 0o755 } else { 0o644 })
        });
        let swapped = laid.and_then(|()| swap(&aside, &dest, &self.disk));
        remove(&aside, &self.disk);
        swapped?;
        self.remember_laid_out(tree, &dest);
        Ok(())
    }

    /// Removes what killed processes left below `asides`. Costs one look where there is nothing.
    pub fn sweep_asides(&self, asides: &Path) {
        for entry in fs::read_dir(asides).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.split('-').next());
            if !pid.and_then(|pid| pid.parse().ok()).is_some_and(alive) {
                remove(&entry.path(), &self.disk);
            }
        }
    }

    /// Lays `tree` out at `dest` as files of their own, for a program that may write to them.
    /// Nothing may stand there, and nothing is remembered of it.
    pub fn lay_out_copy(&self, tree: &Tree, dest: &Path) -> Result<(), Error> {
        self.lay_out(tree, dest, |executable, digest, place| {
            self.copy_out(digest, place, if executable { 0o755 } else { 0o644 })
        })
    }

    fn lay_out(
        &self,
        tree: &Tree,
        dest: &Path,
        place_one: impl Fn(bool, &Digest, &Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if tree.is_folder() {
            self.disk
                .make_folders(dest)
                .map_err(Error::io("create", dest))?;
        }
        for (path, executable, digest, _) in tree.files() {
            let condition = self.condition(&digest)?;
            if condition != Condition::Sound {
                let damaged = condition == Condition::Damaged;
                return Err(Error::Lacking { digest, damaged });
            }
            let place = place_of(dest, path);
            let folder = place.parent().expect("a file lies in a folder");
            let made = self.disk.make_folders(folder);
            made.map_err(Error::io("create", folder))?;
            place_one(executable, &digest, &place)?;
        }
        Ok(())
    }

    fn copy_out(&self, digest: &Digest, place: &Path, mode: u32) -> Result<(), Error> {
        let blob = self.blob_path(digest);
        let copied = self.disk.copy(&blob, place);
        let file = copied.map_err(Error::io("write", place))?;
        // A moment ago, so that any write from now on moves the stamp, even within one clock tick,
        // and the file can be remembered by its stat at once.
        let stamp = SystemTime::now() - Duration::from_secs(2);
        let stamped = self.disk.set_time(&file, place, stamp);
        stamped.map_err(Error::io("write", place))?;
        let permit = self.disk.set_mode(&file, place, mode);
        permit.map_err(Error::io("write", place))
    }

    fn remember_laid_out(&self, tree: &Tree, dest: &Path) {
        for (path, _, digest, _) in tree.files() {
            let place = place_of(dest, path);
            if let Ok(meta) = fs::symlink_metadata(&place) {
                self.memo().remember_path(&place, Stat::of(&meta), digest);
            }
        }
    }
}

/// Where the file `path` of a tree lies; a single file has the empty path.
pub(crate) fn place_of(dest: &Path, path: &str) -> PathBuf {
    if path.is_empty() {
        dest.to_owned()
    } else {
        dest.join(path)
    }
}

/// A path below `asides` that nobody else has.
fn aside_path(asides: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    asides.join(format!("{}-{number}", std::process::id()))
}

fn alive(pid: i32) -> bool {
    pid != std::process::id() as i32
        && rustix::process::Pid::from_raw(pid).is_some_and(|pid| {
            // Somebody else's process may not be signalled, but it is there.
            rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
        })
}

/// Puts `aside` at `dest` in one step; what stood there is at `aside` afterwards, or gone.
fn swap(aside: &Path, dest: &Path, disk: &Disk) -> Result<(), Error> {
    if dest.symlink_metadata().is_err() {
        return disk.rename(aside, dest).map_err(Error::io("write", dest));
    }
    match disk.exchange(aside, dest) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
            // A file system without the exchange: two steps, and the next run mends the middle.
            remove(dest, disk);
            disk.rename(aside, dest).map_err(Error::io("write", dest))
        }
        Err(error) => Err(Error::io("write", dest)(error)),
    }
}

fn remove(path: &Path, disk: &Disk) {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => drop(disk.remove_all(path)),
        Ok(_) => drop(disk.remove_file(path)),
        Err(_) => {}
    }
}
