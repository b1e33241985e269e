//! What a path holds, by content: one file, or a folder's files sorted by path.
//!
//! Promises: the digest of a plain file is the blake3 of its bytes (`b3sum` agrees); that of a
//! folder covers sorted relative paths, executable bits and blob digests, and nothing else: no
//! times, owners, or hidden ignore rules. Empty folders inside a folder leave no trace (as in git).

use serde::{Deserialize, Serialize};

use crate::Digest;

/// A file or a folder, by content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tree {
    /// One file; its name is not part of it.
    File {
        /// Whether its owner may execute it.
        executable: bool,
        /// blake3 of its bytes.
        digest: Digest,
        /// Bytes.
        size: u64,
    },
    /// The files below a folder, sorted by path.
    Folder(Vec<Entry>),
}

/// One file below a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Path relative to the folder, with `/`.
    pub path: String,
    /// Whether its owner may execute it.
    pub executable: bool,
    /// blake3 of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

impl Tree {
    /// The digest that keys and the lock file take.
    pub fn digest(&self) -> Digest {
        match self {
            Self::File {
                executable: false,
                digest,
                ..
            } => *digest,
            Self::File { digest, .. } => {
                let mut hasher = blake3::Hasher::new_derive_key("tunesmith 2026 executable file");
                hasher.update(digest.as_bytes());
                Digest::from_hasher(&hasher)
            }
            Self::Folder(entries) => {
                let mut hasher = blake3::Hasher::new_derive_key("tunesmith 2026 folder");
                for entry in entries {
                    hasher.update(&(entry.path.len() as u64).to_le_bytes());
                    hasher.update(entry.path.as_bytes());
                    hasher.update(&[u8::from(entry.executable)]);
                    hasher.update(entry.digest.as_bytes());
                }
                Digest::from_hasher(&hasher)
            }
        }
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        match self {
            Self::File { size, .. } => *size,
            Self::Folder(entries) => entries.iter().map(|entry| entry.size).sum(),
        }
    }

    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        matches!(self, Self::Folder(_))
    }

    /// Its files: path (empty for a single file), executable bit, digest, size.
    pub fn files(&self) -> impl Iterator<Item = (&str, bool, Digest, u64)> {
        let (one, many) = match self {
            Self::File {
                executable,
                digest,
                size,
            } => (Some(("", *executable, *digest, *size)), &[][..]),
            Self::Folder(entries) => (None, entries.as_slice()),
        };
        let rest = many
            .iter()
            .map(|entry| (&*entry.path, entry.executable, entry.digest, entry.size));
        one.into_iter().chain(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(executable: bool, bytes: &[u8]) -> Tree {
        Tree::File {
            executable,
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
        }
    }

    fn folder(paths: &[(&str, &[u8])]) -> Tree {
        let entry = |(path, bytes): &(&str, &[u8])| Entry {
            path: (*path).to_owned(),
            executable: false,
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
        };
        Tree::Folder(paths.iter().map(entry).collect())
    }

    #[test]
    fn a_plain_file_has_the_digest_of_its_bytes() {
        assert_eq!(file(false, b"x").digest(), Digest::of(b"x"));
        assert_ne!(file(true, b"x").digest(), Digest::of(b"x"));
    }

    #[test]
    fn names_bits_and_bytes_all_count_in_a_folder() {
        let plain = folder(&[("a", b"1"), ("b", b"2")]);
        assert_ne!(plain.digest(), folder(&[("a", b"1"), ("c", b"2")]).digest());
        assert_ne!(plain.digest(), folder(&[("a", b"2"), ("b", b"1")]).digest());
        assert_ne!(plain.digest(), folder(&[("a", b"1")]).digest());
        assert_ne!(folder(&[]).digest(), file(false, b"").digest());
        assert_eq!(plain.size(), 2);
    }
}
