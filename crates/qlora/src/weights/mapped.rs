//! A file mapped into memory: opening costs nothing, pages are read when touched.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use super::stretch::Stretch;
use crate::error::{Error, Result};

/// The bytes of a read-only file and where they came from.
#[derive(Debug)]
pub(crate) struct Mapped {
    path: Arc<Path>,
    file: Arc<File>,
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
            path: path.into(),
            file: Arc::new(file),
            bytes,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where `part`, a slice of these bytes, lies in the file: read from there, no page is mapped for it.
    pub(super) fn stretch(&self, part: &[u8]) -> Stretch {
        let at = part
            .as_ptr()
            .addr()
            .wrapping_sub(self.bytes.as_ptr().addr());
        assert!(at + part.len() <= self.bytes.len(), "a slice of this file");
        Stretch {
            file: Arc::clone(&self.file),
            path: Arc::clone(&self.path),
            at: at as u64,
            bytes: part.len(),
        }
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}
