//! Outputs: adopted into the store, and laid out of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use cache::{DifferenceKind, KeyParts, Made, Record};
use proptest::prelude::*;

use super::{Bench, everything_below};

#[test]
fn adopting_moves_the_bytes_and_gives_the_tree_that_putting_gives() {
    let bench = Bench::new();
    let store = bench.store();
    let scratch = store.scratch().unwrap();
    let folder = scratch.path().join("adapter");
    fs::create_dir(&folder).unwrap();
    for (name, mode) in [("weights", 0o644), ("run.sh", 0o755), ("again", 0o600)] {
        let bytes = if name == "again" { "weights" } else { name };
        fs::write(folder.join(name), bytes).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let wanted = store.hash(&folder).unwrap();
    let tree = store.adopt(&folder).unwrap();
    assert_eq!(tree, wanted);
    assert!(!folder.join("run.sh").exists(), "moved, not copied");
    store
        .materialise(&tree, &bench.path("out"), &bench.path("asides"))
        .unwrap();
    assert_eq!(store.hash(&bench.path("out")).unwrap(), tree);
    assert_eq!(store.verify().unwrap().faults, []);
}

#[test]
fn adopting_never_shares_a_file_with_the_outside() {
    let bench = Bench::new();
    let store = bench.store();
    let mine = bench.write("mine", "precious");
    let scratch = store.scratch().unwrap();
    fs::hard_link(&mine, scratch.path().join("out")).unwrap();
    let tree = store.adopt(&scratch.path().join("out")).unwrap();
    fs::write(&mine, "scribble").unwrap();
    assert_eq!(
        fs::read(store.blob_path(&tree.digest())).unwrap(),
        b"precious"
    );
    assert_eq!(store.verify().unwrap().faults, []);
}

#[test]
fn a_late_writer_to_an_adopted_file_is_noticed() {
    use std::io::Write as _;
    let bench = Bench::new();
    let store = bench.store();
    let scratch = store.scratch().unwrap();
    let path = scratch.path().join("out");
    let mut writer = fs::File::create(&path).unwrap();
    writer.write_all(b"whole").unwrap();
    let mut parts = KeyParts::new();
    parts.push("kind", "late");
    let made = Record {
        key: parts.digest(),
        parts,
        outputs: BTreeMap::from([("out".to_owned(), store.adopt(&path).unwrap())]),
        outcome: serde_json::Value::Null,
        made: Made::default(),
    };
    assert!(store.present(&made).unwrap());
    writer.write_all(b" and more").unwrap();
    assert!(!store.present(&made).unwrap());
}

#[test]
fn a_link_that_leaves_is_refused_with_its_name() {
    let bench = Bench::new();
    let store = bench.store();
    bench.write("secret", "s");
    fs::create_dir(bench.path("folder")).unwrap();
    std::os::unix::fs::symlink("../secret", bench.path("folder/link")).unwrap();
    let error = store.put(&bench.path("folder")).unwrap_err();
    assert_eq!(error.code(), "cache::link-leaves");
    assert!(error.to_string().contains("folder/link"), "{error}");
}

#[test]
fn views_are_links_to_blobs() {
    let bench = Bench::new();
    let store = bench.store();
    bench.write("in/a/x", "x");
    let tool = bench.write("in/tool", "#!/bin/sh\n");
    fs::set_permissions(tool, fs::Permissions::from_mode(0o755)).unwrap();
    let tree = store.put(&bench.path("in")).unwrap();
    store.view(&tree, &bench.path("view")).unwrap();
    assert_eq!(
        everything_below(&bench.path("view")),
        everything_below(&bench.path("in"))
    );
    assert!(bench.path("view/a/x").is_symlink());
    let file = store.put(&bench.path("in/a/x")).unwrap();
    store.view(&file, &bench.path("one.txt")).unwrap();
    assert_eq!(fs::read(bench.path("one.txt")).unwrap(), b"x");
}

#[test]
fn materialising_swaps_the_whole_and_edits_show() {
    let bench = Bench::new();
    let store = bench.store();
    bench.write("v1/a", "1");
    bench.write("v1/b", "2");
    bench.write("v2/a", "3");
    let old = store.put(&bench.path("v1")).unwrap();
    let new = store.put(&bench.path("v2")).unwrap();
    let out = bench.path("out/laptop/stage");
    store
        .materialise(&old, &out, &bench.path("asides"))
        .unwrap();
    assert_eq!(store.compare(&old, &out).unwrap(), []);

    fs::write(out.join("a"), "!").unwrap();
    fs::remove_file(out.join("b")).unwrap();
    fs::write(out.join("notes"), "mine").unwrap();
    let kinds: Vec<_> = store
        .compare(&old, &out)
        .unwrap()
        .into_iter()
        .map(|difference| (difference.path, difference.kind))
        .collect();
    assert_eq!(
        kinds,
        [
            ("a".to_owned(), DifferenceKind::Modified),
            ("b".to_owned(), DifferenceKind::Missing),
            ("notes".to_owned(), DifferenceKind::Added),
        ]
    );

    // What a process killed in the swap left.
    bench.write("asides/999999999-0/a", "half");
    store.sweep_asides(&bench.path("asides"));
    assert_eq!(everything_below(&bench.path("asides")).len(), 0);
    store
        .materialise(&new, &out, &bench.path("asides"))
        .unwrap();
    assert_eq!(everything_below(&bench.path("out/laptop")).len(), 1);
    assert_eq!(store.compare(&new, &out).unwrap(), []);

    // A file in the place of a folder, and back.
    let file = store.put(&bench.path("v2/a")).unwrap();
    store
        .materialise(&file, &out, &bench.path("asides"))
        .unwrap();
    assert_eq!(fs::read(&out).unwrap(), b"3");
    store
        .materialise(&old, &out, &bench.path("asides"))
        .unwrap();
    assert_eq!(store.compare(&old, &out).unwrap(), []);
    fs::remove_dir_all(&out).unwrap();
    let gone = store.compare(&old, &out).unwrap();
    assert!(gone.iter().all(|one| one.kind == DifferenceKind::Missing));
    assert_eq!(gone.len(), 2);
}

#[test]
fn writing_to_a_materialised_file_harms_no_blob() {
    let bench = Bench::new();
    let store = bench.store();
    let tree = store.put(&bench.write("x", "bytes")).unwrap();
    store
        .materialise(&tree, &bench.path("out.txt"), &bench.path("asides"))
        .unwrap();
    fs::write(bench.path("out.txt"), "BYTES").unwrap();
    assert_eq!(store.verify().unwrap().faults, []);
    let differences = store.compare(&tree, &bench.path("out.txt")).unwrap();
    assert_eq!(differences[0].kind, DifferenceKind::Modified);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any folder comes back as it was, by copying and by adopting, and the digest is that of
    /// hashing it in place.
    #[test]
    fn what_goes_in_comes_out(
        files in prop::collection::btree_map(
            "[a-c.]{1,2}x(/[a-c ]{1,3}y)?",
            (any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)),
            0..8,
        ),
    ) {
        let bench = Bench::new();
        let store = bench.store();
        let scratch = store.scratch().unwrap();
        let folder = scratch.path().join("in");
        fs::create_dir(&folder).unwrap();
        for (name, (executable, bytes)) in &files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).ok();
            if fs::write(&path, bytes).is_ok() && *executable {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        let given = everything_below(&folder);
        let tree = store.put(&folder).unwrap();
        prop_assert_eq!(&store.hash(&folder).unwrap(), &tree);
        prop_assert_eq!(&store.adopt(&folder).unwrap(), &tree);
        store.materialise(&tree, &bench.path("out"), &bench.path("asides")).unwrap();
        store.view(&tree, &bench.path("view")).unwrap();
        prop_assert_eq!(&everything_below(&bench.path("out")), &given);
        prop_assert_eq!(&everything_below(&bench.path("view")), &given);
        prop_assert_eq!(store.compare(&tree, &bench.path("out")).unwrap(), vec![]);
    }
}
