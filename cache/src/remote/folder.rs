//! A remote that is a folder: another disk, a network file system, a mounted bucket.
//!
//! Promises: an object is there whole or not at all, and durable before it has its name; create
//! only is the file system's own (a rename that refuses to replace). Must not know: records.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
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
}

impl Folder {
    /// The folder at `root`; it is made at the first writing if the folder above it is there.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            disk: Disk::default(),
            next: AtomicU64::new(0),
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
        Ok(placed)
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
