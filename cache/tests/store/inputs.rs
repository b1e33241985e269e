//! Local inputs: taken, remembered, looked at again.

use std::fs;
use std::time::SystemTime;

use cache::{Digest, Kept};

use super::{Bench, settle};

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
