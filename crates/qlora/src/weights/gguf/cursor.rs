//! A little-endian reader over mapped bytes that says where a file ends too early.

use std::path::Path;

use crate::error::{Error, Result};

/// Reads forward; every failure names the file.
pub(super) struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self { path, bytes, at: 0 }
    }

    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn broken(&self, what: impl Into<String>) -> Error {
        Error::format(
            self.path,
            what,
            "the file is not a well-formed GGUF: fetch it again",
        )
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.saturating_add(count);
        let slice = self
            .bytes
            .get(self.at..end)
            .ok_or_else(|| Error::Truncated {
                path: self.path.to_path_buf(),
                expected: end as u64,
                actual: self.bytes.len() as u64,
            })?;
        self.at = end;
        Ok(slice)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self
            .bytes(N)?
            .try_into()
            .expect("`bytes` returns as many as asked"))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length-prefixed string; bytes that are not UTF-8 are an error.
    pub(super) fn text(&mut self) -> Result<String> {
        let length = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        let bytes = self.bytes(length)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_string()),
            Err(_) => Err(self.broken(format!("a string before byte {} is not UTF-8", self.at))),
        }
    }
}
