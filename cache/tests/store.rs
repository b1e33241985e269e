//! The store from outside: what goes in comes out, and nothing half-made is ever believed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a test may write where it likes")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cache::{
    Bounds, DifferenceKind, Digest, FaultKind, Kept, KeyParts, LackCause, Made, Record, Store, Tree,
};
use proptest::prelude::*;

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

#[test]
fn a_committed_result_is_found_again_by_its_key() {
    let bench = Bench::new();
    let rows = bench.write("rows.jsonl", "{}\n");
    let made = {
        let store = bench.store();
        let made = record(&store, "convert", &[("rows", &rows)]);
        store.commit(&made).unwrap();
        made
    };
    let store = bench.store();
    assert_eq!(
        store.records(&made.key).unwrap(),
        std::slice::from_ref(&made)
    );
    assert!(store.has_record(&made.key, &made.result()));
    assert!(store.present(&made).unwrap());
    assert_eq!(store.records(&Digest::of(b"other")).unwrap(), []);
    assert_eq!(store.verify().unwrap().faults, []);
}

#[test]
fn one_key_owns_several_results() {
    let bench = Bench::new();
    let store = bench.store();
    let cpu = record(&store, "train", &[("adapter", &bench.write("cpu", "1"))]);
    let gpu = record(&store, "train", &[("adapter", &bench.write("gpu", "2"))]);
    assert_eq!(cpu.key, gpu.key);
    store.commit(&cpu).unwrap();
    store.commit(&gpu).unwrap();
    store.commit(&gpu).unwrap();
    let found = store.records(&cpu.key).unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.contains(&cpu) && found.contains(&gpu));
}

#[test]
fn blobs_are_read_only_and_plain_files_are_named_by_their_bytes() {
    let bench = Bench::new();
    let store = bench.store();
    let tree = store.put(&bench.write("x", "bytes")).unwrap();
    assert_eq!(tree.digest(), Digest::of(b"bytes"));
    let blob = store.blob_path(&tree.digest());
    assert_eq!(fs::read(&blob).unwrap(), b"bytes");
    assert_eq!(
        fs::metadata(blob).unwrap().permissions().mode() & 0o777,
        0o444
    );
}

#[test]
fn a_damaged_blob_is_noticed_even_at_once_and_at_the_same_size() {
    let bench = Bench::new();
    let store = bench.store();
    let made = record(&store, "a", &[("out", &bench.write("x", "bytes"))]);
    store.commit(&made).unwrap();
    damage(&store, &only_blob(&made.outputs["out"]), b"BYTES");

    let lacks = store.lacking(&made).unwrap();
    assert_eq!(lacks.len(), 1);
    assert_eq!(
        (&*lacks[0].product, lacks[0].cause),
        ("out", LackCause::Damaged)
    );
    assert!(!store.present(&made).unwrap());
    assert_eq!(store.lacking(&made).unwrap()[0].cause, LackCause::Missing);
    let quarantined = bench
        .path(".tunesmith/store/quarantine")
        .join(Digest::of(b"bytes").hex());
    assert_eq!(fs::read(quarantined).unwrap(), b"BYTES");

    // Making it anew mends it.
    store.put(&bench.path("x")).unwrap();
    assert!(store.present(&made).unwrap());
}

#[test]
fn putting_over_a_damaged_blob_mends_it() {
    let bench = Bench::new();
    let store = bench.store();
    let path = bench.write("x", "bytes");
    let tree = store.put(&path).unwrap();
    damage(&store, &tree.digest(), b"BYTES");
    assert_eq!(store.put(&path).unwrap(), tree);
    assert_eq!(fs::read(store.blob_path(&tree.digest())).unwrap(), b"bytes");
}

#[test]
fn a_touched_blob_is_rehashed_and_believed_again() {
    let bench = Bench::new();
    let store = bench.store();
    let made = record(&store, "a", &[("out", &bench.write("x", "bytes"))]);
    let blob = store.blob_path(&only_blob(&made.outputs["out"]));
    let file = fs::File::open(&blob).unwrap();
    file.set_modified(SystemTime::now()).unwrap();
    assert!(store.present(&made).unwrap());
}

#[test]
fn verify_names_every_fault_and_quarantines_it() {
    let bench = Bench::new();
    let store = bench.store();
    let good = record(&store, "good", &[("out", &bench.write("good", "good"))]);
    let bad = record(&store, "bad", &[("out", &bench.write("bad", "bad"))]);
    for record in [&good, &bad] {
        store.commit(record).unwrap();
    }
    damage(&store, &Digest::of(b"bad"), b"BAD");
    let stray = bench.write(".tunesmith/store/blobs/ab/stray", "?");
    let forged = bench
        .path(".tunesmith/store/records")
        .join(&good.key.hex()[..2])
        .join(good.key.hex())
        .join("forged.json");
    fs::write(&forged, serde_json::to_vec(&bad).unwrap()).unwrap();

    let found = store.verify().unwrap();
    assert_eq!((found.blobs, found.records), (3, 3));
    let kinds: Vec<_> = found.faults.iter().map(|fault| &fault.kind).collect();
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| ***kind == FaultKind::BadBlob)
            .count(),
        2
    );
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| ***kind == FaultKind::BadRecord)
            .count(),
        1
    );
    let missing = Digest::of(b"bad");
    assert!(kinds.contains(&&FaultKind::Incomplete { missing }));
    assert!(!stray.exists() && !forged.exists());
    assert!(store.present(&good).unwrap());
    assert_eq!(
        store.verify().unwrap().faults.len(),
        1,
        "the incomplete record stays"
    );
}

#[test]
fn what_a_killed_process_leaves_is_swept_and_never_believed() {
    let bench = Bench::new();
    drop(bench.store());
    let key = Digest::of(b"key");
    let folder = format!(".tunesmith/store/records/{}/{key}", &key.hex()[..2]);
    bench.write(&format!("{folder}/half.json"), "{\"key\": \"");
    bench.write(".tunesmith/store/tmp/123-abc/0", "half a blob");
    bench.write(".tunesmith/store/locks/dead", "123 host");
    bench.write(".tunesmith/index", "b 12");

    let store = bench.store();
    assert!(!bench.path(".tunesmith/store/tmp/123-abc").exists());
    assert_eq!(store.records(&key).unwrap(), []);
    let made = record(&store, "a", &[("out", &bench.write("x", "x"))]);
    store.commit(&made).unwrap();
    assert!(store.try_lock(&key).unwrap().is_some());
    assert_eq!(store.verify().unwrap().faults.len(), 1);
    assert_eq!(store.verify().unwrap().faults, []);
}

#[test]
fn a_taken_input_is_read_from_the_store_after_an_edit() {
    let bench = Bench::new();
    let store = bench.store();
    let path = bench.write("data/rows.jsonl", "old");
    let taken = store.take(&path).unwrap();
    assert_eq!(taken.kept, Kept::Inside);
    bench.write("data/rows.jsonl", "new");
    assert_eq!(
        fs::read(store.blob_path(&taken.tree.digest())).unwrap(),
        b"old"
    );
    assert!(!store.unchanged(&path, &taken.tree).unwrap());
    assert_ne!(store.take(&path).unwrap().tree, taken.tree);
    fs::remove_file(&path).unwrap();
    assert!(!store.unchanged(&path, &taken.tree).unwrap());
}

#[test]
fn an_edit_within_the_same_clock_tick_and_size_is_seen() {
    let bench = Bench::new();
    let store = bench.store();
    for round in 0..200 {
        let one = store
            .hash(&bench.write("x", format!("a{round:03}")))
            .unwrap();
        let two = store
            .hash(&bench.write("x", format!("b{round:03}")))
            .unwrap();
        assert_ne!(one, two);
    }
}

#[test]
fn a_settled_file_is_not_read_twice() {
    let bench = Bench::new();
    let path = bench.write("x", "bytes");
    settle();
    bench.store().hash(&path).unwrap();
    // Forge what is remembered: only a store that does not read the file believes it.
    let index = bench.path(".tunesmith/index");
    let text = fs::read_to_string(&index).unwrap();
    let (honest, forged) = (Digest::of(b"bytes"), Digest::of(b"forged"));
    fs::write(&index, text.replace(&honest.hex(), &forged.hex())).unwrap();
    assert_eq!(bench.store().hash(&path).unwrap().digest(), forged);

    fs::File::open(&path)
        .unwrap()
        .set_modified(SystemTime::now())
        .unwrap();
    assert_eq!(bench.store().hash(&path).unwrap().digest(), honest);
}

#[test]
fn one_changed_file_of_many_is_the_only_one_read() {
    let bench = Bench::new();
    for at in 0..1000 {
        bench.write(&format!("many/{at}"), "bytes");
    }
    settle();
    let many = bench.path("many");
    bench.store().hash(&many).unwrap();
    // Forged as above: what is read shows its own digest, what is not shows the forged one.
    let index = bench.path(".tunesmith/index");
    let text = fs::read_to_string(&index).unwrap();
    let (honest, forged) = (Digest::of(b"bytes"), Digest::of(b"forged"));
    fs::write(&index, text.replace(&honest.hex(), &forged.hex())).unwrap();
    bench.write("many/777", "other");
    let tree = bench.store().hash(&many).unwrap();
    let read = tree.files().filter(|(_, _, digest, _)| *digest != forged);
    let read: Vec<_> = read.map(|(path, _, digest, _)| (path, digest)).collect();
    assert_eq!(read, [("777", Digest::of(b"other"))]);
}

#[test]
fn a_taken_input_whose_blob_is_gone_is_taken_again() {
    let bench = Bench::new();
    let path = bench.write("x", "bytes");
    settle();
    let store = bench.store();
    let taken = store.take(&path).unwrap();
    fs::remove_file(store.blob_path(&taken.tree.digest())).unwrap();
    assert_eq!(store.take(&path).unwrap(), taken);
    assert!(store.blob_path(&taken.tree.digest()).exists());
}

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

#[test]
fn collecting_keeps_what_is_wanted_and_runs_alone() {
    let bench = Bench::new();
    let store = bench.store();
    let keep = record(&store, "keep", &[("out", &bench.write("a", "shared"))]);
    let same = record(&store, "drop", &[("out", &bench.write("b", "shared"))]);
    let lone = record(&store, "drop2", &[("out", &bench.write("c", "lone"))]);
    for record in [&keep, &same, &lone] {
        store.commit(record).unwrap();
    }
    store.take(&bench.write("local", "local")).unwrap();
    let usage = store.usage().unwrap();
    let counts = (usage.blobs.count, usage.loose.count, usage.records.len());
    assert_eq!(counts, (3, 1, 3));

    let other = bench.store();
    let refused = store.collect(Bounds::NOTHING, |_| true).unwrap_err();
    assert_eq!(refused.code(), "cache::in-use");
    drop(other);

    let needed = |record: &Record| record.key == keep.key;
    let would = store.would_collect(Bounds::NOTHING, needed).unwrap();
    assert!(store.present(&lone).unwrap(), "a dry run drops nothing");
    let collected = store.collect(Bounds::NOTHING, needed).unwrap();
    assert_eq!(collected, would);
    assert_eq!(
        (collected.records, collected.blobs, collected.bytes),
        (2, 2, 9)
    );
    assert!(store.present(&keep).unwrap());
    assert!(!store.present(&lone).unwrap());
    assert_eq!(store.verify().unwrap().faults, []);
    let nothing = store.collect(Bounds::NOTHING, |_| true).unwrap();
    assert_eq!((nothing.records, nothing.blobs, nothing.bytes), (0, 0, 0));
    assert_eq!((nothing.needed, nothing.left), (1, 6));
}

/// Makes a record look as if it was used so many days ago.
fn unused_for(store: &Store, record: &Record, days: u64) {
    let name = format!("{}.json", record.result());
    let key = record.key.hex();
    let path = store.base().join("store/records").join(&key[..2]);
    let file = fs::File::open(path.join(&key).join(name)).unwrap();
    let then = SystemTime::now() - Duration::from_hours(24 * days);
    file.set_modified(then).unwrap();
}

#[test]
fn collecting_goes_by_age_and_then_by_size_the_longest_unused_first() {
    let bench = Bench::new();
    let store = bench.store();
    let made: Vec<_> = (1..=5)
        .map(|days| {
            let kind = days.to_string();
            let made = record(&store, &kind, &[("out", &bench.write(&kind, [days; 100]))]);
            store.commit(&made).unwrap();
            unused_for(&store, &made, u64::from(days));
            made
        })
        .collect();
    let there = |store: &Store| {
        let there = made.iter().map(|record| store.present(record).unwrap());
        there.collect::<Vec<_>>()
    };
    let days = |days: u64| Duration::from_hours(24 * days);

    // The one of five days is too old, that of four is too old and needed.
    let by_age = Bounds {
        age: days(4),
        bytes: u64::MAX,
    };
    let needed = |record: &Record| record.key == made[3].key;
    let collected = store.collect(by_age, needed).unwrap();
    assert_eq!((collected.bytes, collected.left), (100, 400));
    assert_eq!(there(&store), [true, true, true, true, false]);

    // Room for two: the longest unused goes first, but one that is used counts as new.
    store.used(&made[2]);
    let by_size = Bounds {
        age: days(1000),
        bytes: 250,
    };
    let collected = store.collect(by_size, needed).unwrap();
    assert_eq!((collected.bytes, collected.left), (200, 200));
    assert_eq!(there(&store), [false, false, true, true, false]);
    assert_eq!(store.verify().unwrap().faults, []);
}

#[test]
fn checkpoints_go_by_age_and_paid_answers_never() {
    let bench = Bench::new();
    let store = bench.store();
    let (old, held) = (Digest::of(b"old"), Digest::of(b"held"));
    for key in [old, held] {
        let path = bench.write(&format!(".tunesmith/checkpoints/{key}/step"), [0; 50]);
        let then = SystemTime::now() - Duration::from_hours(24 * 40);
        let file = fs::File::open(&path).unwrap();
        file.set_modified(then).unwrap();
        let folder = fs::File::open(path.parent().unwrap()).unwrap();
        folder.set_modified(then).unwrap();
    }
    bench.write(".tunesmith/checkpoints/new/step", [0; 50]);
    bench.write(".tunesmith/kept/synthesize/answer", [0; 50]);
    let _at_work = store.lock(&held).unwrap();
    let usage = store.usage().unwrap();
    assert_eq!((usage.checkpoints.count, usage.kept.bytes), (2, 50));

    let bounds = Bounds {
        age: Duration::from_hours(24 * 30),
        bytes: 0,
    };
    let collected = store.collect(bounds, |_| true).unwrap();
    assert_eq!((collected.checkpoints, collected.bytes), (1, 50));
    let left = |path: String| bench.path(&path).exists();
    assert!(!left(format!(".tunesmith/checkpoints/{old}")));
    assert!(left(format!(".tunesmith/checkpoints/{held}")), "in use");
    assert!(left(".tunesmith/checkpoints/new".into()), "may be resumed");
    assert!(left(".tunesmith/kept/synthesize/answer".into()));
}

#[test]
fn a_shared_store_knows_its_checkouts() {
    let bench = Bench::new();
    let open = |checkout: &str| {
        let opening = cache::Opening {
            shared: Some(bench.path("shared")),
            ..cache::Opening::default()
        };
        let store = Store::open_with(&bench.path(checkout).join(".tunesmith"), opening).unwrap();
        store.register(&bench.path(checkout)).unwrap();
        store
    };
    let (one, two) = (open("one"), open("two"));
    let made = record(&one, "x", &[("out", &bench.write("a", "bytes"))]);
    one.commit(&made).unwrap();
    assert!(two.present(&two.records(&made.key).unwrap()[0]).unwrap());
    let results = [(made.key, made.result())].into();
    one.remember_root(&bench.path("one"), results).unwrap();
    let roots = two.roots();
    let known: Vec<_> = roots.iter().map(|root| root.results.len()).collect();
    assert_eq!(roots[0].checkout, bench.path("one"));
    assert_eq!(known, [1, 0]);
    // Registering again forgets nothing.
    open("one");
    assert_eq!(two.roots()[0].results.len(), 1);
    two.forget_root(&bench.path("one")).unwrap();
    assert_eq!(two.roots().len(), 1);
}

#[test]
fn many_stores_put_and_commit_the_same_things_at_once() {
    let bench = Bench::new();
    for number in 0..40 {
        bench.write(&format!("in/{number}"), format!("{}", number % 7));
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = bench.store();
                for round in 0..5 {
                    let kind = format!("round {round}");
                    let made = record(&store, &kind, &[("out", &bench.path("in"))]);
                    let held = store.lock(&made.key).unwrap();
                    store.commit(&made).unwrap();
                    drop(held);
                    assert!(store.present(&made).unwrap());
                }
            });
        }
    });
    let store = bench.store();
    let found = store.verify().unwrap();
    assert_eq!((found.faults.len(), found.blobs, found.records), (0, 7, 5));
    assert_eq!(
        fs::read_dir(bench.path(".tunesmith/store/tmp"))
            .unwrap()
            .count(),
        0
    );
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
