//! A witness that writes down every change of the disk, with the bytes that files had.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cache::{Change, Witness};

/// A step of the log. Paths are relative to the recorder's root; bytes are whole files.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Folder(PathBuf),
    /// A new file, or one that the store did not make and looks at for the first time.
    File(PathBuf, Arc<Vec<u8>>),
    Write(PathBuf, Arc<Vec<u8>>),
    Link(PathBuf, PathBuf),
    SyncFile(PathBuf),
    SyncFolder(PathBuf),
    SyncAll,
    Rename(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
    Remove(PathBuf),
    RemoveAll(PathBuf),
    /// Not of the disk: a result was promised, by its number.
    Promised(usize),
    /// Not of the disk: the store may drop this result from now on.
    Released(usize),
}

impl Step {
    pub(crate) fn is_sync(&self) -> bool {
        matches!(
            self,
            Self::SyncFile(_) | Self::SyncFolder(_) | Self::SyncAll
        )
    }
}

/// Writes down what happens below `root`.
pub(crate) struct Recorder {
    root: PathBuf,
    log: Mutex<Vec<Step>>,
}

impl Recorder {
    pub(crate) fn new(root: &Path) -> Arc<Self> {
        Arc::new(Self {
            root: root.to_owned(),
            log: Mutex::new(Vec::new()),
        })
    }

    pub(crate) fn note(&self, step: Step) {
        self.log.lock().unwrap().push(step);
    }

    pub(crate) fn log(&self) -> Vec<Step> {
        self.log.lock().unwrap().clone()
    }

    fn relative(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.root).ok().map(Path::to_owned)
    }

    fn step(&self, change: Change<'_>) -> Option<Step> {
        let bytes = |path: &Path| Arc::new(fs::read(path).unwrap_or_default());
        let short = |path: &Path| self.relative(path);
        Some(match change {
            Change::Folder(path) => Step::Folder(short(path)?),
            Change::File(path) | Change::Touch(path) if path.is_dir() => Step::Folder(short(path)?),
            Change::File(path) | Change::Touch(path) => Step::File(short(path)?, bytes(path)),
            Change::Write(path) => Step::Write(short(path)?, bytes(path)),
            Change::Link(path) => Step::Link(short(path)?, fs::read_link(path).ok()?),
            Change::SyncFile(path) => Step::SyncFile(short(path)?),
            Change::SyncFolder(path) => Step::SyncFolder(short(path)?),
            Change::SyncAll(path) => short(path).map(|_| Step::SyncAll)?,
            Change::Rename(from, to) => Step::Rename(short(from)?, short(to)?),
            Change::Exchange(one, other) => Step::Exchange(short(one)?, short(other)?),
            Change::Remove(path) => Step::Remove(short(path)?),
            Change::RemoveAll(path) => Step::RemoveAll(short(path)?),
        })
    }
}

impl Witness for Recorder {
    /// One change at a time, so that the log has the order in which they were made.
    fn change(
        &self,
        change: Change<'_>,
        act: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut log = self.log.lock().unwrap();
        act()?;
        log.extend(self.step(change));
        Ok(())
    }
}
