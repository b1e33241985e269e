//! A disk of this machine: where the index of a store on a network file system lies.
//!
//! The index remembers stats. On a network file system every start would fetch it, and two machines would
//! append to one file. Losing it costs a look at every blob again, so a temporary folder will do.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use cache::is_shared;

/// The variable that names such a folder.
pub(super) const LOCAL: &str = "TUNESMITH_LOCAL";

/// The folder for the index of the store at `base`; `None` where it lies beside the store, as on a local
/// disk, or where this machine has no folder that is this user's own. `home` is the checkout's.
pub(super) fn index_folder(
    base: &Path,
    home: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Option<PathBuf> {
    if !base
        .ancestors()
        .find(|folder| folder.exists())
        .is_some_and(is_shared)
    {
        return None;
    }
    let set = |name: &str| {
        env(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let user = rustix::process::geteuid().as_raw();
    let mine = [
        set(LOCAL),
        (!home.starts_with(base)).then(|| home.to_owned()),
        cache.map(|cache| cache.join("tunesmith")),
        Some(std::env::temp_dir().join(format!("tunesmith-{user}"))),
    ];
    let mut mine = mine.into_iter().flatten();
    mine.find(|folder| fits(folder, user))
}

/// Whether a folder is there (made if need be), this user's alone to write, and on a local disk.
fn fits(folder: &Path, user: u32) -> bool {
    // What cannot be made is not there below.
    let _made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    let meta = fs::symlink_metadata(folder);
    meta.is_ok_and(|meta| meta.is_dir() && meta.uid() == user && meta.mode() & 0o022 == 0)
        && !is_shared(folder)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_a_local_folder_of_ones_own_fits() {
        let dir = tempfile::tempdir().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let new = dir.path().join("a/b");
        assert!(fits(&new, user) && new.is_dir());
        assert!(!fits(&new, user + 1), "another's");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(!fits(&new, user), "anybody's");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(!fits(&link, user), "a link may lead anywhere");
    }

    #[test]
    fn beside_a_local_store_nothing_is_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("not/yet");
        let env = |_: &str| Some(dir.path().display().to_string());
        assert_eq!(index_folder(&base, dir.path(), &env), None);
    }
}
