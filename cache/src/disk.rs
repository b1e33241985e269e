//! The door to the disk: every change that this crate makes there goes through it, one method a
//! kind of change.
//!
//! Promises: nothing is changed elsewhere (`cache/clippy.toml` refuses the calls of `std::fs`
//! outside of this file), so a [`Witness`] that stands in the door sees all of it, in order, and
//! can make any of it fail. The tests of power loss and of full disks are such witnesses; without
//! one, a method is the call below it. Must not know: what is stored.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the one place where the disk is changed"
)]

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// One change of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A new folder.
    Folder(&'a Path),
    /// A new empty file, or an old one opened to be written.
    File(&'a Path),
    /// Bytes into a file.
    Write(&'a Path),
    /// Mode and times of a file.
    Touch(&'a Path),
    /// A new symbolic link.
    Link(&'a Path),
    /// The bytes of a file are made durable.
    SyncFile(&'a Path),
    /// The names in a folder are made durable.
    SyncFolder(&'a Path),
    /// Everything on the file system that holds a folder is made durable, bytes and names.
    SyncAll(&'a Path),
    /// A file or folder gets another name, over whatever has it.
    Rename(&'a Path, &'a Path),
    /// Two files or folders swap their names.
    Exchange(&'a Path, &'a Path),
    /// A file or an empty folder goes.
    Remove(&'a Path),
    /// A folder goes with all it holds.
    RemoveAll(&'a Path),
}

/// Sees every change and decides whether it is made.
pub trait Witness: Send + Sync {
    /// Called instead of the change; `act` makes it, and may be called once.
    fn change(&self, change: Change<'_>, act: &mut dyn FnMut() -> io::Result<()>)
    -> io::Result<()>;
}

/// The door.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    witness: Option<Arc<dyn Witness>>,
    /// How many syncs went through.
    syncs: Arc<AtomicU64>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.witness.is_some() {
            "Disk(watched)"
        } else {
            "Disk"
        })
    }
}

impl Disk {
    pub(crate) fn watched(witness: Arc<dyn Witness>) -> Self {
        Self {
            witness: Some(witness),
            ..Self::default()
        }
    }

    /// How many syncs were made through this door and its copies.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    fn sync(&self, change: Change<'_>, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.make(change, act)
    }

    fn make<T>(&self, change: Change<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some(witness) = &self.witness else {
            return act();
        };
        let mut act = Some(act);
        let mut made = None;
        witness.change(change, &mut || {
            let act = act.take().expect("a change is made once");
            made = Some(act()?);
            Ok(())
        })?;
        Ok(made.expect("a witness that reports success has made the change"))
    }

    pub(crate) fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.make(Change::Folder(path), || fs::create_dir(path))
    }

    /// A folder and those above it, as far as they are missing.
    pub(crate) fn make_folders(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.make_folders(above)?;
        }
        match self.make_folder(path) {
            // Another thread or process was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    /// A new empty file to read and write, where nothing may stand.
    pub(crate) fn new_file(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        self.make(Change::File(path), || options.open(path))
    }

    /// A file to read and write, made if need be, not cut short.
    pub(crate) fn open(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                options.create(true).truncate(false);
                self.make(Change::File(path), || options.open(path))
            }
            other => other,
        }
    }

    /// A file that is there, to read and write.
    pub(crate) fn reopen(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(path)
    }

    /// Bytes into an open file, at its place.
    pub(crate) fn write(&self, mut file: &File, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.make(Change::Write(path), || file.write_all(bytes))
    }

    /// All of an open file's bytes.
    pub(crate) fn rewrite(&self, mut file: &File, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.make(Change::Write(path), || {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(bytes)
        })
    }

    /// As many bytes as an open file has, in place of them, in one write.
    pub(crate) fn overwrite(&self, file: &File, path: &Path, bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        self.make(Change::Write(path), || file.write_all_at(bytes, 0))
    }

    /// Bytes behind those that a file has, in one write; the file is made if need be.
    pub(crate) fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        let mut file = if path.exists() {
            options.open(path)?
        } else {
            self.make(Change::File(path), || options.open(path))?
        };
        self.make(Change::Write(path), || file.write_all(bytes))
    }

    /// A small file, anew.
    pub(crate) fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let mut file = self.make(Change::File(path), || options.open(path))?;
        self.make(Change::Write(path), || file.write_all(bytes))
    }

    /// The bytes of an open file into another one, without copying; an error where the file
    /// system cannot.
    pub(crate) fn reflink_file(&self, from: &File, to: &File, path: &Path) -> io::Result<()> {
        self.make(Change::Write(path), || reflink_copy::reflink_file(from, to))
    }

    /// A file's bytes into a new one, without copying where the file system can.
    /// Nothing may stand there.
    pub(crate) fn copy(&self, from: &Path, to: &Path) -> io::Result<File> {
        self.make(Change::File(to), || {
            let mut source = File::open(from)?;
            let mut copy = OpenOptions::new().write(true).create_new(true).open(to)?;
            if reflink_copy::reflink_file(&source, &copy).is_err() {
                io::copy(&mut source, &mut copy)?;
            }
            Ok(copy)
        })
    }

    /// The mode of an open file.
    pub(crate) fn set_mode(&self, file: &File, path: &Path, mode: u32) -> io::Result<()> {
        self.make(Change::Touch(path), || {
            file.set_permissions(Permissions::from_mode(mode))
        })
    }

    /// The mtime of an open file.
    pub(crate) fn set_time(&self, file: &File, path: &Path, time: SystemTime) -> io::Result<()> {
        self.make(Change::Touch(path), || file.set_modified(time))
    }

    pub(crate) fn link(&self, target: &Path, path: &Path) -> io::Result<()> {
        self.make(Change::Link(path), || symlink(target, path))
    }

    /// The bytes of a file that is closed.
    pub(crate) fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.sync(Change::SyncFile(path), || File::open(path)?.sync_all())
    }

    /// The bytes of an open file.
    pub(crate) fn sync_open(&self, file: &File, path: &Path) -> io::Result<()> {
        self.sync(Change::SyncFile(path), || file.sync_all())
    }

    pub(crate) fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.sync(Change::SyncFolder(path), || {
            File::open(path).and_then(|folder| folder.sync_all())
        })
    }

    /// Everything on the file system of `folder`; `Unsupported` where the system cannot.
    pub(crate) fn sync_all(&self, folder: &Path) -> io::Result<()> {
        self.sync(Change::SyncAll(folder), || sync_file_system(folder))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.make(Change::Rename(from, to), || fs::rename(from, to))
    }

    /// Another name for a file where nothing stands; `false` where something does.
    pub(crate) fn rename_new(&self, from: &Path, to: &Path) -> io::Result<bool> {
        use rustix::io::Errno;
        let mut taken = false;
        self.make(Change::Rename(from, to), || {
            match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => taken = true,
                // A file system without it (some network ones): a second name refuses as well.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match fs::hard_link(from, to) {
                    Ok(()) => fs::remove_file(from)?,
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = true,
                    Err(error) => return Err(error),
                },
                other => other?,
            }
            Ok(())
        })?;
        Ok(!taken)
    }

    /// Swaps two names in one step; `Unsupported` where the file system cannot.
    pub(crate) fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        use rustix::io::Errno;
        self.make(Change::Exchange(one, other), || {
            let done = renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
            done.map_err(|error| match error {
                Errno::INVAL | Errno::NOSYS | Errno::NOTSUP => io::ErrorKind::Unsupported.into(),
                error => error.into(),
            })
        })
    }

    pub(crate) fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.make(Change::Remove(path), || fs::remove_file(path))
    }

    /// A folder that must be empty.
    pub(crate) fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.make(Change::Remove(path), || fs::remove_dir(path))
    }

    /// A folder with all it holds, even where a stage left folders that nobody may write.
    pub(crate) fn remove_all(&self, path: &Path) -> io::Result<()> {
        self.make(Change::RemoveAll(path), || match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                open_up(path);
                fs::remove_dir_all(path)
            }
            other => other,
        })
    }
}

#[cfg(target_os = "linux")]
fn sync_file_system(folder: &Path) -> io::Result<()> {
    use rustix::io::Errno;
    let folder = File::open(folder)?;
    rustix::fs::syncfs(&folder).map_err(|error| match error {
        Errno::INVAL | Errno::NOSYS | Errno::NOTSUP => io::ErrorKind::Unsupported.into(),
        error => error.into(),
    })
}

#[cfg(not(target_os = "linux"))]
fn sync_file_system(_folder: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn open_up(folder: &Path) {
    let _ = fs::set_permissions(folder, Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
