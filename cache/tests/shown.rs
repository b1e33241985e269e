//! What is laid out is looked at by stat, and no change hides behind what is remembered of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a test may write where it likes")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use cache::{DifferenceKind, Store};

/// Rests until the clock of the file system has surely ticked past the last write.
fn settle() {
    std::thread::sleep(Duration::from_millis(150));
}

#[test]
fn a_folder_that_is_remembered_hides_no_change() {
    use DifferenceKind::{Added, Missing, Modified};
    /// What somebody does to a folder, and what must be said of it.
    type Deed = (&'static str, fn(&Path), &'static str, DifferenceKind);
    let deeds: [Deed; 7] = [
        (
            "add",
            |out| fs::write(out.join("new"), "n").unwrap(),
            "new",
            Added,
        ),
        (
            "add below",
            |out| fs::write(out.join("a/new"), "n").unwrap(),
            "a/new",
            Added,
        ),
        (
            "add deep",
            |out| fs::write(out.join("a/b/new"), "n").unwrap(),
            "a/b/new",
            Added,
        ),
        (
            "delete",
            |out| fs::remove_file(out.join("a/y")).unwrap(),
            "a/y",
            Missing,
        ),
        (
            "edit",
            |out| fs::write(out.join("a/b/z"), "Z").unwrap(),
            "a/b/z",
            Modified,
        ),
        (
            "permit",
            |out| {
                let mode = fs::Permissions::from_mode(0o755);
                fs::set_permissions(out.join("x"), mode).unwrap();
            },
            "x",
            Modified,
        ),
        (
            "fill an empty folder",
            |out| {
                fs::create_dir(out.join("empty")).unwrap();
                settle();
                let dir = out.parent().unwrap();
                let store = Store::open(&dir.join(".tunesmith")).unwrap();
                let tree = store.hash(&dir.join("source")).unwrap();
                // An empty folder is no difference, and is not to be remembered either.
                assert_eq!(store.compare(&tree, out).unwrap(), []);
                drop(store);
                fs::write(out.join("empty/new"), "n").unwrap();
            },
            "empty/new",
            Added,
        ),
    ];
    for (name, deed, path, kind) in deeds {
        let dir = tempfile::tempdir().unwrap();
        let (source, out) = (dir.path().join("source"), dir.path().join("out"));
        fs::create_dir_all(source.join("a/b")).unwrap();
        for (path, text) in [("x", "x"), ("a/y", "y"), ("a/b/z", "z")] {
            fs::write(source.join(path), text).unwrap();
        }
        let store = Store::open(&dir.path().join(".tunesmith")).unwrap();
        let tree = store.put(&source).unwrap();
        store
            .materialise(&tree, &out, &dir.path().join("asides"))
            .unwrap();
        settle();
        // Walked and remembered, then believed, also by the next process.
        assert_eq!(store.compare(&tree, &out).unwrap(), []);
        assert_eq!(store.compare(&tree, &out).unwrap(), []);
        drop(store);
        deed(&out);
        let store = Store::open(&dir.path().join(".tunesmith")).unwrap();
        let found = store.compare(&tree, &out).unwrap();
        let found: Vec<_> = found.iter().map(|one| (&*one.path, one.kind)).collect();
        assert_eq!(found, [(path, kind)], "{name}");
        assert_eq!(
            store.compare(&tree, &out).unwrap().len(),
            1,
            "{name}, asked again"
        );
    }
}
