//! Answers that were paid for, kept by the bytes of their request and the attempt.
//!
//! Promises: an answer is there whole or not at all (written aside, then renamed); a
//! request whose bytes differ never finds another's answer; one whose bytes changed on the
//! disk counts as none. Must not know: what is in them.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::contract::StageError;
use crate::sha256;

/// How a file begins: then comes the sha256 of the answer's bytes, then [`ANSWER`], the answer, `}`.
const SUM: &[u8] = b"{\"sum\":\"";
const ANSWER: &[u8] = b"\",\"answer\":";

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
        self.folder
            .join(format!("{}-{attempt}.json", sha256::of(&bytes)))
    }

    pub(super) fn has(&self, body: &Value, attempt: u32) -> bool {
        self.get(body, attempt).is_ok_and(|answer| answer.is_some())
    }

    /// The kept answer; a file that was damaged or is no JSON counts as none.
    pub(super) fn get(&self, body: &Value, attempt: u32) -> Result<Option<Value>, StageError> {
        let path = self.path(body, attempt);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(answer(&bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StageError::io(&path, &error)),
        }
    }

    pub(super) fn put(&self, body: &Value, attempt: u32, answer: &Value) -> Result<(), StageError> {
        let path = self.path(body, attempt);
        let failed = |error: &std::io::Error| StageError::io(&path, error);
        let mut file = tempfile::NamedTempFile::new_in(&self.folder).map_err(|e| failed(&e))?;
        let answer = serde_json::to_vec(answer).expect("an answer is JSON");
        let text = [SUM, sha256::of(&answer).as_bytes(), ANSWER, &answer, b"}"].concat();
        file.write_all(&text).map_err(|e| failed(&e))?;
        file.as_file().sync_all().map_err(|e| failed(&e))?;
        file.persist(&path).map_err(|error| failed(&error.error))?;
        Ok(())
    }
}

/// The answer in a file, if it is that of its sum. A file without a sum is older than sums are:
/// it was paid for, too.
fn answer(bytes: &[u8]) -> Option<Value> {
    let Some(bytes) = bytes.strip_prefix(SUM) else {
        let old: Value = serde_json::from_slice(bytes).ok()?;
        // Else the flipped bit is in the word `sum` itself.
        return old.get("answer").is_none().then_some(old);
    };
    let (sum, bytes) = bytes.split_at_checked(64)?;
    let answer = bytes.strip_prefix(ANSWER)?.strip_suffix(b"}")?;
    let sound = sha256::of(answer).as_bytes() == sum;
    sound.then(|| serde_json::from_slice(answer).ok())?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_with_a_flipped_bit_counts_as_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::open(folder.path()).expect("it opens");
        let (body, said) = (json!({"q": 1}), json!({"content": "eleven"}));
        kept.put(&body, 0, &said).expect("it is kept");
        let path = kept.path(&body, 0);
        let whole = std::fs::read(&path).expect("it is there");
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bytes).expect("written");
            assert_eq!(
                kept.get(&body, 0).expect("it can be read"),
                None,
                "bit {bit}"
            );
        }
    }

    #[test]
    fn an_answer_from_before_sums_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::open(folder.path()).expect("it opens");
        let (body, said) = (json!({"q": 1}), json!({"content": "eleven"}));
        std::fs::write(kept.path(&body, 0), said.to_string()).expect("written");
        assert_eq!(kept.get(&body, 0).expect("read"), Some(said));
    }
}
