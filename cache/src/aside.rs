//! A file written aside: whole in its place, or not there at all.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// A file that is removed again unless it is put in place.
pub(crate) struct Aside {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

impl Aside {
    /// A new empty file at `path`, where nothing may stand.
    pub(crate) fn create(path: PathBuf) -> Result<Self, Error> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(Error::io("create", &path))?;
        Ok(Self { path, file })
    }

    /// Makes the bytes durable and puts the file at `place`, over whatever stands there.
    pub(crate) fn put(self, place: &Path) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::io("write", place))?;
        fs::rename(&self.path, place).map_err(Error::io("write", place))
    }

    /// Writes `bytes` and puts the file at `place`.
    pub(crate) fn write(mut self, bytes: &[u8], place: &Path) -> Result<(), Error> {
        let written = self.file.write_all(bytes);
        written.map_err(Error::io("write", place))?;
        self.put(place)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // After a rename there is nothing left under this name.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), Error> {
    let opened = File::open(folder).and_then(|file| file.sync_all());
    opened.map_err(Error::io("write", folder))
}
