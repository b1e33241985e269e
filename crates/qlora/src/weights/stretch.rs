//! Bytes of a file that are read when they are wanted, straight to where they are wanted.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};

/// A part of an open file.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub(super) file: Arc<File>,
    pub(super) path: Arc<Path>,
    pub(super) at: u64,
    pub(crate) bytes: usize,
}

impl Stretch {
    /// Fills `into` with the bytes from `offset` on.
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) -> Result<()> {
        assert!(offset + into.len() <= self.bytes, "a part of the stretch");
        self.file
            .read_exact_at(into, self.at + offset as u64)
            .map_err(Error::io(&self.path))
    }
}
