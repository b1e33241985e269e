//! Files and folders into the store: hashed, taken, put, adopted.
//!
//! Promises: a digest always belongs to bytes that were read in one piece: a file whose stat
//! changed meanwhile is read again, and given up after a few times. What is copied is hashed on the
//! way, so the stored bytes are those of the digest whatever happens to the original.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::aside::Aside;
use crate::error::Error;
use crate::incoming::Incoming;
use crate::stat::{self, Stat};
use crate::store::{Condition, Kept, Store, Taken, seal};
use crate::tree::{Entry, Tree};
use crate::walk::{Found, Walked, walk};
use crate::{Digest, read};

/// How often a file that changes while it is read is read again.
const TRIES: usize = 3;

/// A file that was read.
struct Read {
    digest: Digest,
    size: u64,
    /// To be brought into its place; nothing where its bytes stand there already, or nobody wants
    /// them to.
    incoming: Option<Incoming>,
}

impl Read {
    fn stands(digest: Digest, size: u64) -> Self {
        Self {
            digest,
            size,
            incoming: None,
        }
    }
}

impl Store {
    /// What `path` holds, by content. Reads only what the stat memo does not know.
    pub fn hash(&self, path: &Path) -> Result<Tree, Error> {
        let path = absolute(path)?;
        tree(&walk(&path)?, |file| self.hash_file(file))
    }

    /// What `path` holds, its bytes kept in the store unless there are more than
    /// [`crate::OUTSIDE_ABOVE`] of them: for local inputs.
    pub fn take(&self, path: &Path) -> Result<Taken, Error> {
        let path = absolute(path)?;
        let walked = walk(&path)?;
        let size: u64 = walked.files.iter().map(|file| file.stat.size).sum();
        if size > self.outside_above {
            return Ok(Taken {
                tree: tree(&walked, |file| self.hash_file(file))?,
                kept: Kept::Outside(path),
            });
        }
        Ok(Taken {
            tree: self.bring_tree(&walked, |file| self.take_file(file))?,
            kept: Kept::Inside,
        })
    }

    /// Whether `path` still holds `tree`: asked after a stage has read it in place.
    pub fn unchanged(&self, path: &Path, tree: &Tree) -> Result<bool, Error> {
        match self.hash(path) {
            Ok(now) => Ok(now == *tree),
            Err(error) if error.code() == "cache::not-found" => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Copies a file or folder into the store (by reflink where the file system can).
    pub fn put(&self, path: &Path) -> Result<Tree, Error> {
        let path = absolute(path)?;
        self.bring_tree(&walk(&path)?, |file| self.copy_in(file))
    }

    /// Moves a file or folder below a [`Store::scratch`] into the store: no byte is copied. What
    /// is left at `path` is of no use afterwards. Files with other names (hard links) and trees
    /// with links inside are copied.
    pub fn adopt(&self, path: &Path) -> Result<Tree, Error> {
        let path = absolute(path)?;
        let walked = walk(&path)?;
        if walked.links {
            return self.bring_tree(&walked, |file| self.copy_in(file));
        }
        self.bring_tree(&walked, |file| self.move_in(file))
    }

    /// The tree of what was walked, `one` getting each file ready for its place; all of them come
    /// there together.
    fn bring_tree(
        &self,
        walked: &Walked,
        one: impl Fn(&Found) -> Result<Read, Error> + Sync,
    ) -> Result<Tree, Error> {
        let incoming = Mutex::new(Vec::new());
        let tree = tree(walked, |file| {
            let read = one(file)?;
            if let Some(file) = read.incoming {
                let mut all = incoming.lock().unwrap_or_else(PoisonError::into_inner);
                all.push(file);
            }
            Ok((read.digest, read.size))
        })?;
        self.bring_in(
            incoming
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner),
        )?;
        Ok(tree)
    }

    pub(crate) fn hash_file(&self, file: &Found) -> Result<(Digest, u64), Error> {
        if let Some(digest) = self.memo().path(&file.path, &file.stat) {
            return Ok((digest, file.stat.size));
        }
        let read = self.steadily(file, |open, size| {
            let (digest, size) = read::hash(open, size).map_err(Error::io("read", &file.path))?;
            Ok(Read::stands(digest, size))
        })?;
        Ok((read.digest, read.size))
    }

    fn take_file(&self, file: &Found) -> Result<Read, Error> {
        let known = self.memo().path(&file.path, &file.stat);
        if let Some(digest) = known
            && self.condition(&digest)? == Condition::Sound
        {
            return Ok(Read::stands(digest, file.stat.size));
        }
        self.copy_in(file)
    }

    fn copy_in(&self, file: &Found) -> Result<Read, Error> {
        self.steadily(file, |open, size| {
            let aside = self.aside()?;
            let copied = copy(open, size, &aside).map_err(Error::io("copy", &file.path))?;
            let (digest, size) = copied;
            let incoming = self.incoming(aside, digest)?;
            Ok(Read {
                digest,
                size,
                incoming,
            })
        })
    }

    /// Reads a file until it holds still from before to after, and remembers its digest.
    fn steadily(
        &self,
        file: &Found,
        mut read: impl FnMut(&File, u64) -> Result<Read, Error>,
    ) -> Result<Read, Error> {
        for _ in 0..TRIES {
            let began = stat::now();
            let open = File::open(&file.path).map_err(Error::io("read", &file.path))?;
            let meta = open.metadata().map_err(Error::io("read", &file.path))?;
            let before = Stat::of(&meta);
            let read = read(&open, before.size)?;
            // By name: a file that was replaced meanwhile has changed, too.
            let after = fs::metadata(&file.path).map_err(Error::io("read", &file.path))?;
            if Stat::of(&after) == before && read.size == before.size {
                if !before.racy(began) {
                    self.memo().remember_path(&file.path, before, read.digest);
                }
                return Ok(read);
            }
        }
        Err(Error::Moving {
            path: file.path.clone(),
        })
    }

    fn move_in(&self, file: &Found) -> Result<Read, Error> {
        let path = &file.path;
        let open = File::open(path).map_err(Error::io("read", path))?;
        let meta = open.metadata().map_err(Error::io("read", path))?;
        if meta.nlink() != 1 {
            return self.copy_in(file);
        }
        // Sealed before it is read: from here on every write, even one through a descriptor that
        // some left-over process still holds, moves the mtime away from that of a blob.
        seal(&open, path, &self.disk).map_err(Error::io("write", path))?;
        let sealed = |doing| {
            let meta = open.metadata().map_err(Error::io(doing, path))?;
            Ok::<_, Error>(Stat::of(&meta))
        };
        let before = sealed("read")?;
        let (digest, size) = read::hash(&open, before.size).map_err(Error::io("read", path))?;
        if sealed("read")? != before || size != before.size {
            return Err(Error::Moving { path: path.clone() });
        }
        Ok(Read {
            digest,
            size,
            incoming: self.incoming_move(path, digest, before)?,
        })
    }
}

/// The tree of what was walked, `one` giving digest and size of each file; files side by side.
fn tree(
    walked: &Walked,
    one: impl Fn(&Found) -> Result<(Digest, u64), Error> + Sync,
) -> Result<Tree, Error> {
    if let ([file], false) = (&*walked.files, walked.folder) {
        let (digest, size) = one(file)?;
        return Ok(Tree::File {
            executable: file.executable,
            digest,
            size,
        });
    }
    let entry = |file: &Found| {
        let (digest, size) = one(file)?;
        Ok(Entry {
            path: file.relative.clone(),
            executable: file.executable,
            digest,
            size,
        })
    };
    let entries: Result<_, Error> = walked.files.par_iter().map(entry).collect();
    entries.map(Tree::Folder)
}

/// Copies by reflink and hashes the copy, or hashes the bytes on their way.
fn copy(open: &File, size: u64, aside: &Aside) -> std::io::Result<(Digest, u64)> {
    let Aside {
        file, path, disk, ..
    } = aside;
    if disk.reflink_file(open, file, path).is_ok() {
        return read::hash(file, size);
    }
    read::pump(open, size, |piece| disk.write(file, path, piece))
}

fn absolute(path: &Path) -> Result<std::path::PathBuf, Error> {
    std::path::absolute(path).map_err(Error::io("read", path))
}
