//! Answers that were paid for, kept by the bytes of their request and the attempt.
//!
//! Promises: an answer is there whole or not at all (written aside, then renamed); a
//! request whose bytes differ never finds another's answer. Must not know: what is in
//! them.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::contract::StageError;

/// The folder of kept answers.
pub(super) struct Kept {
    folder: PathBuf,
}

impl Kept {
    pub(super) fn open(keep: &Path) -> Result<Self, StageError> {
        let folder = keep.join("answers");
        std::fs::create_dir_all(&folder).map_err(|error| StageError::io(&folder, &error))?;
        Ok(Self { folder })
    }

    fn path(&self, body: &Value, attempt: u32) -> PathBuf {
        let bytes = serde_json::to_vec(body).expect("a request is JSON");
        let digest = Sha256::digest(&bytes);
        let name = digest
            .iter()
            .fold(String::new(), |name, byte| name + &format!("{byte:02x}"));
        self.folder.join(format!("{name}-{attempt}.json"))
    }

    pub(super) fn has(&self, body: &Value, attempt: u32) -> bool {
        self.path(body, attempt).exists()
    }

    /// The kept answer; a file that is no JSON counts as none.
    pub(super) fn get(&self, body: &Value, attempt: u32) -> Result<Option<Value>, StageError> {
        let path = self.path(body, attempt);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StageError::io(&path, &error)),
        }
    }

    pub(super) fn put(&self, body: &Value, attempt: u32, answer: &Value) -> Result<(), StageError> {
        let path = self.path(body, attempt);
        let failed = |error: &std::io::Error| StageError::io(&path, error);
        let mut file = tempfile::NamedTempFile::new_in(&self.folder).map_err(|e| failed(&e))?;
        serde_json::to_writer(&mut file, answer).map_err(|error| failed(&error.into()))?;
        file.as_file().sync_all().map_err(|e| failed(&e))?;
        file.persist(&path).map_err(|error| failed(&error.error))?;
        Ok(())
    }
}
