//! A file mapped into memory: opening costs nothing, pages are read when touched.

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, Result};

/// The bytes of a read-only file and where they came from.
#[derive(Debug)]
pub(crate) struct Mapped {
    path: PathBuf,
    bytes: Mmap,
}

impl Mapped {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        #[expect(
            unsafe_code,
            reason = "a 14 GB model must not be copied into memory to be read"
        )]
        // SAFETY: the map is read-only and lives as long as this value. Model files are never changed in
        // place: the fetch stage renames them whole, and the store's blobs are read-only.
        let bytes = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            bytes,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}
