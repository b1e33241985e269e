//! What has to be on the disk before something else may be: bytes of files, names in folders.
//!
//! Promises: names that changed are remembered until they are durable, and whoever asks for that
//! returns when they are, whichever thread did it. A few are synced one by one. Many are synced
//! together by one sync of the whole file system, which costs about as much as one of theirs; not
//! where this machine has much else to write, for that would be waited for, too: then several
//! at a time, so that they share the flushes of the disk.
//!
//! Must not know: what lies in the files.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Digest;
use crate::error::Error;
use crate::store::Store;

/// So many are synced one by one.
const FEW: usize = 2;

/// Syncs of single files and folders that are under way at the same time.
const AT_A_TIME: usize = 8;

/// What the whole machine may have to write so that a sync of the file system is no wait (64 MiB:
/// a tenth of a second on a slow disk).
const LITTLE: u64 = 64 << 20;

/// How many things are made durable at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Syncing {
    /// Together where they are many and the machine has little else to write.
    #[default]
    Fitting,
    /// Always one by one.
    Each,
    /// Always together, where the system can.
    Together,
}

/// What is known of the durability of names.
#[derive(Debug)]
pub(crate) struct Names {
    /// Folders whose names changed since they were last synced.
    unsynced: BTreeSet<PathBuf>,
    /// The store's own folders, until something changes: whoever made them may not have come to sync their
    /// names. A process that changes nothing need not wait for the disk.
    own: Vec<PathBuf>,
    /// Shard folders that this process put something in: their own names are cared for.
    used: BTreeSet<PathBuf>,
    /// Blobs that stood there and whose folder was noted for it, or is synced already.
    stood: BTreeSet<Digest>,
}

impl Names {
    pub(crate) fn of(base: &Path, root: &Path) -> Self {
        let above = base.parent().into_iter();
        let own = above.chain([base, root]).map(Path::to_owned);
        Self {
            unsynced: BTreeSet::new(),
            own: own.collect(),
            used: BTreeSet::new(),
            stood: BTreeSet::new(),
        }
    }

    /// Notes a folder whose names are not known to be durable.
    fn note(&mut self, folder: &Path) {
        self.unsynced.extend(self.own.drain(..));
        self.unsynced.insert(folder.to_owned());
    }
}

/// Something to be made durable.
struct One<'a> {
    path: &'a Path,
    folder: bool,
}

/// The file system that a path lies on.
fn device(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).ok().map(|meta| meta.dev())
}

/// The right to make names durable. Held meanwhile, so that whoever finds nothing to sync knows
/// that it is done: commits that come together share the syncs of the first.
pub(crate) type Alone<'a> = MutexGuard<'a, ()>;

impl Store {
    /// How many syncs this store has asked the disk for.
    pub fn syncs(&self) -> u64 {
        self.disk.syncs()
    }

    pub(crate) fn alone(&self) -> Alone<'_> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shard folder of a blob or record, made if need be. Its own name is noted as not yet
    /// durable at the first use, whoever made it: another process may not have come to sync it.
    pub(crate) fn make_folder(&self, folder: &Path) -> Result<(), Error> {
        let mut names = self.names();
        if names.used.contains(folder) && folder.is_dir() {
            return Ok(());
        }
        let made = self.disk.make_folders(folder);
        made.map_err(Error::io("create", folder))?;
        names.used.insert(folder.to_owned());
        let above = folder.parent().expect("a shard lies in a folder");
        names.note(above);
        Ok(())
    }

    /// Notes a folder whose names changed and may not be durable yet. Called after the change:
    /// noted before it, the note could be synced away by another thread in between.
    pub(crate) fn changed_folder(&self, folder: &Path) {
        self.names().note(folder);
    }

    /// Notes the folder of a blob that stood there: whoever put it there may have been killed
    /// before the sync. Once a blob is enough, for none is put there without being noted.
    pub(crate) fn stood(&self, digest: Digest, shard: &Path) {
        let mut names = self.names();
        if names.stood.insert(digest) {
            names.note(shard);
        }
    }

    /// Makes durable the bytes of `files`, and every name noted since the last time.
    pub(crate) fn sync_names(&self, files: &[&Path], _alone: &Alone<'_>) -> Result<(), Error> {
        // Taken out first: a change during the sync notes its folder again.
        let folders = std::mem::take(&mut self.names().unsynced);
        let synced = self.make_durable(files, &folders);
        if synced.is_err() {
            self.names().unsynced.extend(folders);
        }
        synced
    }

    /// Makes durable the bytes of `files`, which are closed, and the names in `folders`.
    pub(crate) fn make_durable(
        &self,
        files: &[&Path],
        folders: &BTreeSet<PathBuf>,
    ) -> Result<(), Error> {
        let files = files.iter().map(|path| One {
            path,
            folder: false,
        });
        let folders = folders.iter().map(|path| One { path, folder: true });
        let mut all: Vec<One<'_>> = files.chain(folders).collect();
        if self.worth_a_sync_of_all(all.len()) {
            match self.disk.sync_all(&self.root) {
                // What lies on another file system is left.
                Ok(()) => {
                    let here = device(&self.root);
                    all.retain(|one| device(one.path) != here);
                }
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(error) => return Err(Error::io("write", &self.root)(error)),
            }
        }
        side_by_side(&all, |one| {
            let synced = if one.folder {
                self.disk.sync_folder(one.path)
            } else {
                self.disk.sync_file(one.path)
            };
            match synced {
                // An empty key folder that was collected.
                Err(error) if one.folder && error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other.map_err(Error::io("write", one.path)),
            }
        })
    }

    fn worth_a_sync_of_all(&self, many: usize) -> bool {
        many > FEW
            && match self.syncing {
                Syncing::Fitting => unwritten().is_some_and(|bytes| bytes <= LITTLE),
                Syncing::Each => false,
                Syncing::Together => true,
            }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does `work` for all, several at a time; the first failure, when all have ended.
fn side_by_side<T: Sync>(
    all: &[T],
    work: impl Fn(&T) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    if all.len() <= FEW {
        return all.iter().try_for_each(work);
    }
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME.min(all.len()) {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = work(one) {
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.get_or_insert(error);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), Err)
}

/// Bytes that the whole machine has still to write, as far as the system says.
fn unwritten() -> Option<u64> {
    sum_of_unwritten(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn sum_of_unwritten(text: &str) -> Option<u64> {
    let of = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    Some((of("Dirty:")? + of("Writeback:")?) << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_has_to_write_is_read_in_bytes() {
        let text = "MemTotal:  100 kB\nDirty:     12 kB\nWriteback:  3 kB\nWritebackTmp: 9 kB\n";
        assert_eq!(sum_of_unwritten(text), Some(15 << 10));
        assert_eq!(sum_of_unwritten("Dirty: 1 kB\n"), None);
    }

    #[test]
    fn all_are_done_and_a_failure_is_told() {
        let done = AtomicUsize::new(0);
        let work = |number: &usize| {
            done.fetch_add(1, Ordering::Relaxed);
            let path = Path::new("/x");
            let refused = io::Error::from(io::ErrorKind::StorageFull);
            (*number != 7)
                .then_some(())
                .ok_or_else(|| Error::io("write", path)(refused))
        };
        let numbers: Vec<usize> = (0..20).collect();
        assert!(side_by_side(&numbers, work).is_err());
        assert_eq!(done.load(Ordering::Relaxed), 20);
        assert!(side_by_side(&numbers[..7], work).is_ok());
    }
}
