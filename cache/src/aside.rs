//! A file written aside: whole in its place, or not there at all.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::error::Error;

/// A file that is removed again unless it is put in place.
pub(crate) struct Aside {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) disk: Disk,
    placed: bool,
}

impl Aside {
    /// A new empty file at `path`, where nothing may stand.
    pub(crate) fn create(path: PathBuf, disk: Disk) -> Result<Self, Error> {
        let file = disk.new_file(&path).map_err(Error::io("create", &path))?;
        Ok(Self {
            path,
            file,
            disk,
            placed: false,
        })
    }

    /// Makes the bytes durable and puts the file at `place`, over whatever stands there.
    pub(crate) fn put(mut self, place: &Path) -> Result<(), Error> {
        let synced = self.disk.sync_open(&self.file, &self.path);
        synced.map_err(Error::io("write", place))?;
        let moved = self.disk.rename(&self.path, place);
        moved.map_err(Error::io("write", place))?;
        self.placed = true;
        Ok(())
    }

    /// [`Aside::put`] that leaves what stands at `place`, unless `over`: `false`.
    pub(crate) fn put_new(mut self, place: &Path, over: bool) -> std::io::Result<bool> {
        self.disk.sync_open(&self.file, &self.path)?;
        if over {
            self.disk.rename(&self.path, place)?;
        } else if !self.disk.rename_new(&self.path, place)? {
            return Ok(false);
        }
        self.placed = true;
        Ok(true)
    }

    /// The same file, whole and closed: many may wait for their places at a time.
    pub(crate) fn close(mut self) -> Whole {
        self.placed = true;
        Whole::at(std::mem::take(&mut self.path), self.disk.clone())
    }

    /// Writes `bytes` and puts the file at `place`.
    pub(crate) fn write(self, bytes: &[u8], place: &Path) -> Result<(), Error> {
        let written = self.disk.write(&self.file, &self.path, bytes);
        written.map_err(Error::io("write", place))?;
        self.put(place)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.placed {
            let _ = self.disk.remove_file(&self.path);
        }
    }
}

/// A whole file whose bytes are still to be made durable before it is put in its place; removed
/// again unless it is.
pub(crate) struct Whole {
    path: PathBuf,
    disk: Disk,
}

impl Whole {
    pub(crate) fn at(path: PathBuf, disk: Disk) -> Self {
        Self { path, disk }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the file, whose bytes are durable, at `place`, over whatever stands there.
    pub(crate) fn put(&mut self, place: &Path) -> std::io::Result<()> {
        self.disk.rename(&self.path, place)?;
        self.path = PathBuf::new();
        Ok(())
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = self.disk.remove_file(&self.path);
        }
    }
}
