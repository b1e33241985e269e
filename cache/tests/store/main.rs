//! The store from outside: what goes in comes out, and nothing half-made is ever believed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a test may write where it likes")]

mod collecting;
mod damage;
mod inputs;
mod outputs;
mod results;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cache::{Digest, KeyParts, Made, Record, Store, Tree};

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn store(&self) -> Store {
        Store::open(&self.path(".tunesmith")).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file and the folders above it.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// Rests until the clock of the file system has surely ticked past the last write.
fn settle() {
    std::thread::sleep(Duration::from_millis(150));
}

fn record(store: &Store, kind: &str, paths: &[(&str, &Path)]) -> Record {
    let mut parts = KeyParts::new();
    parts.push("kind", kind);
    let put = |(name, path): &(&str, &Path)| ((*name).to_owned(), store.put(path).unwrap());
    Record {
        key: parts.digest(),
        parts,
        outputs: paths.iter().map(put).collect(),
        outcome: serde_json::json!({"metrics": {"loss": 0.5}}),
        made: Made::default(),
    }
}

fn only_blob(tree: &Tree) -> Digest {
    tree.files().next().unwrap().2
}

/// Overwrites a blob in place, as root or a broken disk would.
fn damage(store: &Store, digest: &Digest, bytes: &[u8]) {
    let path = store.blob_path(digest);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, bytes).unwrap();
}

fn everything_below(folder: &Path) -> BTreeMap<String, (bool, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::metadata(&path).unwrap();
            if meta.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap();
            let executable = meta.permissions().mode() & 0o100 != 0;
            found.insert(name.to_owned(), (executable, fs::read(&path).unwrap()));
        }
    }
    found
}
