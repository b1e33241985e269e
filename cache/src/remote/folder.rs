//! A remote that is a folder: another disk, a network file system, a mounted bucket.
//!
//! Promises: an object is there whole or not at all, and durable before it has its name; what was put
//! there keeps its name over a power cut, with the names of all folders above it; create only is the file system's own (a rename that refuses to replace). Must not know: records.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::objects::{Again, Objects, Refusal, RefusalKind, Sink};
use crate::aside::Aside;
use crate::disk::Disk;
use crate::stat;

/// Bytes handed over at a time.
const PIECE: usize = 1 << 20;
/// What a killed writer left is swept after so long.
const ABANDONED: Duration = Duration::from_hours(24);

/// A folder that holds objects.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    disk: Disk,
    next: AtomicU64,
    /// Folders whose own names are durable, as far as this process saw to it.
    durable: Mutex<BTreeSet<PathBuf>>,
}

impl Folder {
    /// The folder at `root`; it is made at the first writing if the folder above it is there.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            disk: Disk::default(),
            next: AtomicU64::new(0),
            durable: Mutex::default(),
        }
    }

    fn refusal(&self, error: &io::Error) -> Refusal {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => RefusalKind::Nowhere,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                RefusalKind::Denied
            }
            io::ErrorKind::TimedOut => RefusalKind::Slow,
            _ => RefusalKind::Passing,
        };
        Refusal::new(kind, format!("`{}`: {error}", self.root.display()))
    }

    /// What a missing file means: nothing there, or no folder at all.
    fn absent<T>(&self, none: T, error: &io::Error) -> Result<T, Refusal> {
        let missing = matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        );
        if missing && self.root.is_dir() {
            return Ok(none);
        }
        if missing && self.root.parent().is_some_and(Path::is_dir) {
            // Nobody has put anything there yet.
            return Ok(none);
        }
        Err(self.refusal(error))
    }

    fn begin(&self) -> io::Result<()> {
        if self.root.is_dir() {
            return Ok(());
        }
        match self.disk.make_folder(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    /// An empty file aside, and the place it is to have.
    fn aside(&self, path: &str) -> io::Result<(Aside, PathBuf)> {
        self.begin()?;
        let asides = self.root.join("v1/tmp");
        if !asides.is_dir() {
            self.disk.make_folders(&asides)?;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            self.sweep(&asides);
        }
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy().into_owned();
        let name = format!("{host}-{}-{:x}-{number}", std::process::id(), stat::now());
        let aside = Aside::create(asides.join(name), self.disk.clone());
        let aside = aside.map_err(io::Error::other)?;
        let place = self.root.join(path);
        self.disk
            .make_folders(place.parent().expect("a path has folders"))?;
        Ok((aside, place))
    }

    fn sweep(&self, asides: &Path) {
        for entry in fs::read_dir(asides).into_iter().flatten().flatten() {
            let age = entry.metadata().and_then(|meta| meta.modified());
            let age = age
                .ok()
                .and_then(|at| SystemTime::now().duration_since(at).ok());
            if age.is_some_and(|age| age > ABANDONED) {
                let _other_sweeper = self.disk.remove_file(&entry.path());
            }
        }
    }

    fn store(&self, path: &str, bytes: &mut dyn Read, over: bool) -> io::Result<bool> {
        let (aside, place) = self.aside(path)?;
        if !over && place.exists() {
            return Ok(false);
        }
        let mut buffer = vec![0; PIECE];
        loop {
            match bytes.read(&mut buffer)? {
                0 => break,
                read => self.disk.write(&aside.file, &aside.path, &buffer[..read])?,
            }
        }
        let placed = aside.put_new(&place, over)?;
        // A record must not be there without its blobs after a power cut.
        let folder = place.parent().expect("a path has folders");
        self.disk.sync_folder(folder)?;
        self.sync_names_above(folder)?;
        Ok(placed)
    }

    /// Makes durable the names of a folder of this remote and of those above it. At the first use, whoever
    /// made them: another process may not have come to sync them.
    fn sync_names_above(&self, folder: &Path) -> io::Result<()> {
        let unknown = |folder: &&Path| {
            folder.starts_with(&self.root) && !self.durable().contains::<Path>(folder)
        };
        let folders: Vec<&Path> = folder.ancestors().take_while(unknown).collect();
        for folder in &folders {
            let above = folder
                .parent()
                .filter(|above| !above.as_os_str().is_empty());
            self.disk.sync_folder(above.unwrap_or(Path::new(".")))?;
        }
        // Only now: another thread that finds one here relies on all above it.
        let folders = folders.into_iter().map(Path::to_owned);
        self.durable().extend(folders);
        Ok(())
    }

    fn durable(&self) -> std::sync::MutexGuard<'_, BTreeSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Objects for Folder {
    fn get(&self, path: &str, from: u64, sink: &mut Sink<'_>) -> Result<bool, Refusal> {
        let mut file = match File::open(self.root.join(path)) {
            Ok(file) => file,
            Err(error) => return self.absent(false, &error),
        };
        let mut read = || {
            file.seek(SeekFrom::Start(from))?;
            let mut buffer = vec![0; PIECE];
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(true),
                    read => sink(&buffer[..read])?,
                }
            }
        };
        read().map_err(|error| self.refusal(&error))
    }

    fn size(&self, path: &str) -> Result<Option<u64>, Refusal> {
        match fs::metadata(self.root.join(path)) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(error) => self.absent(None, &error),
        }
    }

    fn put(&self, path: &str, mut bytes: &[u8], over: bool) -> Result<bool, Refusal> {
        let stored = self.store(path, &mut bytes, over);
        stored.map_err(|error| self.refusal(&error))
    }

    fn put_parts(
        &self,
        path: &str,
        bytes: &mut dyn Read,
        _size: u64,
        again: &Again<'_>,
    ) -> Result<(), Refusal> {
        // A file is read once, so it is not repeated; `again` counts what goes wrong.
        let mut outcome = Some(self.store(path, bytes, true));
        again(&mut || match outcome.take() {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(Refusal::own(&error)),
            None => unreachable!("an error of this side is not repeated"),
        })
    }

    fn list(&self, folder: &str, each: &mut dyn FnMut(&str, u64)) -> Result<(), Refusal> {
        let mut open = vec![folder.to_owned()];
        while let Some(path) = open.pop() {
            let listing = match fs::read_dir(self.root.join(&path)) {
                Ok(listing) => listing,
                Err(error) => {
                    self.absent((), &error)?;
                    continue;
                }
            };
            for entry in listing.flatten() {
                let name = format!("{path}/{}", entry.file_name().to_string_lossy());
                match entry.metadata() {
                    Ok(meta) if meta.is_dir() => open.push(name),
                    Ok(meta) => each(&name, meta.len()),
                    Err(_) => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::{Change, Witness};

    /// What happened, a line a change that matters here.
    #[derive(Default)]
    struct Trace(Mutex<Vec<String>>);

    impl Witness for Trace {
        fn change(
            &self,
            change: Change<'_>,
            act: &mut dyn FnMut() -> io::Result<()>,
        ) -> io::Result<()> {
            act()?;
            let line = match change {
                Change::Folder(path) => format!("folder {}", path.display()),
                Change::Rename(_, to) => format!("name {}", to.display()),
                Change::SyncFolder(path) => format!("sync {}", path.display()),
                _ => return Ok(()),
            };
            self.0.lock().unwrap().push(line);
            Ok(())
        }
    }

    /// Names that a power cut may take: made, and the folder they stand in not synced since.
    fn loose(trace: &Trace) -> Vec<String> {
        let mut loose: Vec<String> = Vec::new();
        for line in trace.0.lock().unwrap().iter() {
            let (what, path) = line.split_once(' ').unwrap();
            match what {
                "sync" => loose.retain(|name| Path::new(name).parent() != Some(Path::new(path))),
                // What is unfinished may go.
                _ if path.contains("/v1/tmp") => {}
                _ => loose.push(path.to_owned()),
            }
        }
        loose
    }

    fn watched(root: &Path) -> (Folder, Arc<Trace>) {
        let trace = Arc::new(Trace::default());
        let mut folder = Folder::new(root);
        folder.disk = Disk::watched(Arc::clone(&trace) as Arc<dyn Witness>);
        (folder, trace)
    }

    #[test]
    fn after_a_put_no_name_hangs_loose() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("far");
        let (folder, trace) = watched(&root);
        for path in [
            "v1/blobs/ab/abcd",
            "v1/blobs/ab/abef",
            "v1/records/0/1/2.json",
        ] {
            assert!(folder.put(path, b"bytes", false).unwrap());
            assert_eq!(loose(&trace), [""; 0], "after {path}");
        }
        let syncs = |trace: &Trace| {
            let trace = trace.0.lock().unwrap();
            trace.iter().filter(|line| line.starts_with("sync")).count()
        };
        let before = syncs(&trace);
        assert!(folder.put("v1/blobs/ab/abff", b"bytes", false).unwrap());
        assert_eq!(syncs(&trace), before + 1, "a known shard costs one sync");
    }

    /// Who finds the folders there does not know whether their maker came to sync them.
    #[test]
    fn folders_of_others_are_synced_at_their_first_use() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("far");
        fs::create_dir_all(root.join("v1/blobs/ab")).unwrap();
        fs::create_dir_all(root.join("v1/tmp")).unwrap();
        let (folder, trace) = watched(&root);
        assert!(folder.put("v1/blobs/ab/abcd", b"bytes", false).unwrap());
        let trace = trace.0.lock().unwrap();
        for above in [dir.path(), &root, &root.join("v1"), &root.join("v1/blobs")] {
            let line = format!("sync {}", above.display());
            assert!(trace.contains(&line), "{line} is not among {trace:?}");
        }
    }
}
