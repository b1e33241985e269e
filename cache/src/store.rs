//! The store: where things lie, and whether a blob can be believed.
//!
//! ```text
//! BASE/CACHEDIR.TAG  .gitignore  index  roots
//! BASE/store/blobs/ab/<blake3>            read-only, mtime 1970-01-01T00:00:01Z
//! BASE/store/records/ab/<key>/<result>.json
//! BASE/store/tmp  locks  quarantine  in-use
//! ```
//!
//! BASE is the checkout's own folder, HOME, or one that several checkouts share.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::aside::Aside;
use crate::commit::Waiting;
use crate::disk::{Disk, Witness};
use crate::durable::{Names, Syncing};
use crate::error::Error;
use crate::lease::{Leases, Pace};
use crate::lock::{Holder, KeyLock, Locks};
use crate::memo::{Index, Memo};
use crate::network;
use crate::presence::Presence;
use crate::session::{Scratch, Session, sweep};
use crate::stat::{Stat, blob_time};
use crate::tree::Tree;
use crate::{Digest, read};

/// Local inputs above this many bytes are not copied into the store (256 MiB).
pub const OUTSIDE_ABOVE: u64 = 256 << 20;

/// A store, open for reading and writing. Share it between threads behind an `Arc`.
#[derive(Debug)]
pub struct Store {
    home: PathBuf,
    pub(crate) base: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) disk: Disk,
    memo: Mutex<Memo>,
    session: Mutex<Option<Arc<Session>>>,
    pub(crate) names: Mutex<Names>,
    pub(crate) alone: Mutex<()>,
    pub(crate) syncing: Syncing,
    /// Records that are not in their places yet.
    pub(crate) waiting: Mutex<Vec<Arc<Waiting>>>,
    pub(crate) locks: Locks,
    /// Among everybody who has the store open; collecting wants it alone.
    pub(crate) presence: Presence,
    pub(crate) outside_above: u64,
}

/// How a store is opened.
#[derive(Clone, Default)]
pub struct Opening {
    /// The folder that several checkouts share; else the store lies in the checkout's own.
    pub shared: Option<PathBuf>,
    /// Who stands in the door to the disk.
    pub witness: Option<Arc<dyn Witness>>,
    /// What the index says, if it was read before; that of another store is left aside.
    pub index: Option<Index>,
    /// How bytes and names are made durable.
    pub syncing: Syncing,
    /// How processes keep out of each other's way; where it is not said, leases on a network file system
    /// and in a store that is marked so, else the kernel's locks.
    pub locking: Option<Locking>,
    /// A folder on a disk of this machine, for the index of a store on a network file system.
    pub local: Option<PathBuf>,
}

/// How processes keep out of each other's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locking {
    /// `flock`: right where one machine alone uses the store.
    Kernel,
    /// Leases: right where several do.
    Leases(Pace),
}

/// Whether several machines may see `folder`: it lies on a network file system.
pub fn is_shared(folder: &Path) -> bool {
    network::shared(folder).is_some()
}

/// The file that marks a store as locked by leases, for everybody who opens it.
const LEASES: &str = "leases";

/// How to lock in the store at `root`. A store that was opened with leases once stays so: the machine
/// that exports it sees a local disk.
fn locks(root: &Path, wanted: Option<Locking>, disk: &Disk) -> Result<Locks, Error> {
    let marker = root.join(LEASES);
    let marked = marker.exists();
    let pace = match wanted {
        Some(Locking::Leases(pace)) => Some(pace),
        Some(Locking::Kernel) if !marked => None,
        _ => (marked || is_shared(root)).then(Pace::default),
    };
    let Some(pace) = pace else {
        return Ok(Locks::Files(disk.clone()));
    };
    if !marked {
        let text = "Several machines use this store: it is locked by leases.\n";
        let marked = disk.put(&marker, text.as_bytes());
        marked.map_err(Error::io("write", &marker))?;
    }
    Ok(Locks::Leases(Leases::new(pace, disk.clone())))
}

/// A local input, looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What it holds.
    pub tree: Tree,
    /// Where its bytes can be read from now on.
    pub kept: Kept,
}

/// Where the bytes of a local input are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In the store: nobody changes them.
    Inside,
    /// Too big to copy: read in place at this absolute path, and looked at again afterwards
    /// ([`Store::unchanged`]).
    Outside(PathBuf),
}

/// Whether the bytes under a blob's name are those of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Sound,
    Missing,
    /// Something else stood there; it is in quarantine now.
    Damaged,
}

impl Store {
    /// Opens the store below `home` (`.tunesmith`), making what is not there and sweeping what
    /// killed processes left.
    pub fn open(home: &Path) -> Result<Self, Error> {
        Self::open_with(home, Opening::default())
    }

    /// [`Store::open`], perhaps shared with other checkouts, perhaps watched.
    pub fn open_with(home: &Path, opening: Opening) -> Result<Self, Error> {
        let home = std::path::absolute(home).map_err(Error::io("open", home))?;
        let base = match &opening.shared {
            Some(shared) => std::path::absolute(shared).map_err(Error::io("open", shared))?,
            None => home.clone(),
        };
        let disk = opening.witness.map_or_else(Disk::default, Disk::watched);
        let root = base.join("store");
        for name in ["blobs", "records", "tmp", "locks"] {
            let folder = root.join(name);
            let made = disk.make_folders(&folder);
            made.map_err(Error::io("create", &folder))?;
        }
        mark(&home, &disk)?;
        if base != home {
            mark(&base, &disk)?;
        }
        let locks = locks(&root, opening.locking, &disk)?;
        let presence = Presence::enter(&root, &disk, &locks)?;
        sweep(&root.join("tmp"), &disk, &locks)?;
        let place = Index::place(&base, opening.local.as_deref());
        let index = opening.index.filter(|index| index.is_at(&place));
        let index = index.unwrap_or_else(|| Index::read(&place));
        Ok(Self {
            memo: Mutex::new(Memo::of(index, disk.clone())),
            session: Mutex::new(None),
            names: Mutex::new(Names::of(&base, &root)),
            alone: Mutex::default(),
            syncing: opening.syncing,
            waiting: Mutex::default(),
            outside_above: OUTSIDE_ABOVE,
            locks,
            presence,
            home,
            base,
            root,
            disk,
        })
    }

    /// The checkout's own folder of state, as given to [`Store::open`], absolute.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The folder that holds the store, and what belongs to keys and not to a checkout:
    /// [`Store::home`], unless the store is shared.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Where the blob `digest` lies, if it is there.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.digits();
        self.below(&["/blobs/", &hex[..2], "/", &hex])
    }

    /// A path in the store's folder. In one piece: a plan looks at three such paths a stage.
    pub(crate) fn below(&self, steps: &[&str]) -> PathBuf {
        let root = self.root.as_os_str();
        let more = steps.iter().map(|step| step.len()).sum::<usize>();
        let mut path = OsString::with_capacity(root.len() + more);
        path.push(root);
        for step in steps {
            path.push(step);
        }
        path.into()
    }

    /// An empty folder on the store's file system: [`Store::adopt`] takes its files without
    /// copying.
    pub fn scratch(&self) -> Result<Scratch, Error> {
        self.session()?.scratch()
    }

    /// Takes the lock of `key`, waiting for another holder. Blocks the thread.
    pub fn lock(&self, key: &Digest) -> Result<KeyLock, Error> {
        let held = self.locks.acquire(&self.lock_path(key), true)?;
        Ok(held.expect("waiting ends with the lock"))
    }

    /// Takes the lock of `key` if nobody holds it.
    pub fn try_lock(&self, key: &Digest) -> Result<Option<KeyLock>, Error> {
        self.locks.acquire(&self.lock_path(key), false)
    }

    /// Before something is published under `held`: whether it still may be. A process that was frozen for
    /// too long has lost its leases; it takes them again where nobody else did, and what nothing names yet
    /// may have been dropped meanwhile: `true` says that nothing can have happened.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] where another holds the lock by now.
    pub fn still_mine(&self, key: &Digest, held: &mut KeyLock) -> Result<bool, Error> {
        let stayed = self.presence.renew()?;
        if held.check().is_ok() {
            return Ok(stayed);
        }
        if let Err(lost) = held.renew() {
            // Free again, perhaps: another had it and is done.
            *held = self.try_lock(key)?.ok_or(lost)?;
        }
        Ok(false)
    }

    /// Who holds the lock of `key`, for telling people; may be out of date.
    pub fn lock_holder(&self, key: &Digest) -> Option<Holder> {
        KeyLock::holder(&self.lock_path(key))
    }

    /// Remembers on disk what was hashed. Called by [`Store::commit`] and on drop; a loss costs a
    /// rehash.
    pub fn flush(&self) -> Result<(), Error> {
        let mut memo = self.memo();
        let flushed = memo.flush();
        flushed.map_err(Error::io("write", memo.place()))
    }

    pub(crate) fn lock_path(&self, key: &Digest) -> PathBuf {
        self.root.join("locks").join(key.hex())
    }

    pub(crate) fn memo(&self) -> MutexGuard<'_, Memo> {
        self.memo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self) -> Result<Arc<Session>, Error> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = session.as_ref().filter(|session| session.stands()) {
            return Ok(Arc::clone(session));
        }
        let tmp = self.root.join("tmp");
        let opened = Arc::new(Session::open(&tmp, &self.disk, &self.locks)?);
        *session = Some(Arc::clone(&opened));
        Ok(opened)
    }

    pub(crate) fn aside(&self) -> Result<Aside, Error> {
        Aside::create(self.session()?.fresh_path(), self.disk.clone())
    }

    /// Looks at a blob: by its stat where that is known, else by its bytes.
    pub(crate) fn condition(&self, digest: &Digest) -> Result<Condition, Error> {
        let path = self.blob_path(digest);
        let stat = match fs::symlink_metadata(&path) {
            Ok(meta) => Stat::of(&meta),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.memo().forget_blob(digest);
                return Ok(Condition::Missing);
            }
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        if self.memo().blob(digest) == Some(stat) {
            return Ok(Condition::Sound);
        }
        self.rehash(digest)
    }

    /// Reads a blob's bytes and puts it in quarantine if they are not those of its name.
    pub(crate) fn rehash(&self, digest: &Digest) -> Result<Condition, Error> {
        let path = self.blob_path(digest);
        let file = File::open(&path).map_err(Error::io("read", &path))?;
        let hint = file.metadata().map_or(0, |meta| meta.len());
        let (found, _) = read::hash(&file, hint).map_err(Error::io("read", &path))?;
        if found != *digest {
            self.quarantine(&path)?;
            self.memo().forget_blob(digest);
            return Ok(Condition::Damaged);
        }
        // A store owned by somebody else can be read all the same.
        let _ = seal(&file, &path, &self.disk);
        self.remember_blob(*digest)?;
        Ok(Condition::Sound)
    }

    pub(crate) fn remember_blob(&self, digest: Digest) -> Result<(), Error> {
        let path = self.blob_path(&digest);
        let meta = fs::symlink_metadata(&path).map_err(Error::io("read", &path))?;
        self.memo().remember_blob(digest, Stat::of(&meta));
        Ok(())
    }

    /// Moves a bad file out of the way, for people to look at.
    pub(crate) fn quarantine(&self, path: &Path) -> Result<(), Error> {
        let folder = self.root.join("quarantine");
        let made = self.disk.make_folders(&folder);
        made.map_err(Error::io("create", &folder))?;
        let name = path.file_name().expect("a stored file has a name");
        let place = folder.join(name);
        match self.disk.rename(path, &place) {
            // Another process was quicker.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(Error::io("move", path)),
        }
    }
}

impl Store {
    /// Closes the store as dropping it does, for a process that ends: what was hashed is on disk, and its
    /// memory is left to the system.
    pub fn leave(self) {
        // Nobody waits for what failed now.
        let _ = self.settle();
        self.memo().leave();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Nobody waits for what failed now.
        let _ = self.settle();
        let _ = self.flush();
    }
}

/// Makes a file read-only and gives it the mtime of blobs.
pub(crate) fn seal(file: &File, path: &Path, disk: &Disk) -> std::io::Result<()> {
    disk.set_mode(file, path, 0o444)?;
    disk.set_time(file, path, blob_time())
}

/// Tells backup programs and git to pass by.
fn mark(home: &Path, disk: &Disk) -> Result<(), Error> {
    disk.make_folders(home).map_err(Error::io("create", home))?;
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n\
               # This folder is a cache made by tunesmith: it can be deleted and will be made anew.\n\
               # See https://bford.info/cachedir/\n";
    for (name, text) in [("CACHEDIR.TAG", tag), (".gitignore", "*\n")] {
        let path = home.join(name);
        if !path.exists() {
            let written = disk.put(&path, text.as_bytes());
            written.map_err(Error::io("write", &path))?;
        }
    }
    Ok(())
}
