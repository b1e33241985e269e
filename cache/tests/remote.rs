//! The remote's protocol against a store in memory that lies, breaks and forgets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests write what they like")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};

use cache::{
    Again, Digest, KeyParts, Made, Objects, Record, Refusal, RefusalKind, Remote, Sink, Store,
    Unmoved,
};

/// Objects in memory; every so many requests breaks, some of them after they were done.
#[derive(Clone, Default)]
struct Memory {
    held: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    chance: Arc<Mutex<u64>>,
    /// Of a hundred.
    breaks: u64,
    puts: Arc<Mutex<Vec<String>>>,
}

impl Memory {
    fn roll(&self) -> u64 {
        let mut x = self.chance.lock().unwrap();
        *x = x
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*x >> 33) % 100
    }

    fn broken(&self) -> Result<(), Refusal> {
        if self.roll() < self.breaks {
            return Err(Refusal::new(RefusalKind::Passing, "it broke"));
        }
        Ok(())
    }

    fn edit(&self, wanted: &str, edit: impl Fn(&mut Vec<u8>)) {
        let mut held = self.held.lock().unwrap();
        let mut any = false;
        for (path, bytes) in held.iter_mut() {
            if path.starts_with(wanted) {
                edit(bytes);
                any = true;
            }
        }
        assert!(any, "nothing is called {wanted}");
    }
}

impl Objects for Memory {
    fn get(&self, path: &str, from: u64, sink: &mut Sink<'_>) -> Result<bool, Refusal> {
        self.broken()?;
        let held = self.held.lock().unwrap().get(path).cloned();
        let Some(bytes) = held else { return Ok(false) };
        let rest = bytes.get(from as usize..).unwrap_or_default();
        // It breaks in the middle, too, or just ends.
        let (first, second) = rest.split_at(rest.len() / 2);
        sink(first).map_err(|error| Refusal::own(&error))?;
        self.broken()?;
        if self.roll() < self.breaks / 5 {
            return Ok(true);
        }
        sink(second).map_err(|error| Refusal::own(&error))?;
        Ok(true)
    }

    fn size(&self, path: &str) -> Result<Option<u64>, Refusal> {
        self.broken()?;
        Ok(self
            .held
            .lock()
            .unwrap()
            .get(path)
            .map(|bytes| bytes.len() as u64))
    }

    fn put(&self, path: &str, bytes: &[u8], over: bool) -> Result<bool, Refusal> {
        self.broken()?;
        self.puts.lock().unwrap().push(path.to_owned());
        let mut held = self.held.lock().unwrap();
        let new = over || !held.contains_key(path);
        if new {
            held.insert(path.to_owned(), bytes.to_vec());
        }
        drop(held);
        self.broken()?;
        Ok(new)
    }

    fn put_parts(
        &self,
        path: &str,
        bytes: &mut dyn Read,
        _: u64,
        again: &Again<'_>,
    ) -> Result<(), Refusal> {
        let mut all = Vec::new();
        bytes
            .read_to_end(&mut all)
            .map_err(|error| Refusal::own(&error))?;
        again(&mut || self.put(path, &all, true).map(drop))
    }

    fn list(&self, folder: &str, each: &mut dyn FnMut(&str, u64)) -> Result<(), Refusal> {
        for (path, bytes) in self.held.lock().unwrap().iter() {
            if path.starts_with(folder) {
                each(path, bytes.len() as u64);
            }
        }
        Ok(())
    }
}

fn remote(memory: &Memory) -> Remote {
    Remote::new(Box::new(memory.clone()), Vec::new(), None)
}

fn store(dir: &Path) -> Store {
    Store::open(dir).unwrap()
}

/// A result of a file, a folder and an empty file.
fn result(store: &Store, name: &str) -> Record {
    let scratch = store.scratch().unwrap();
    let folder = scratch.path().join("folder");
    fs::create_dir_all(folder.join("below")).unwrap();
    for at in 0..20 {
        fs::write(folder.join(format!("below/{at}")), format!("{name} {at}")).unwrap();
    }
    let file = scratch.path().join("file");
    fs::write(&file, name.repeat(50_000)).unwrap();
    let empty = scratch.path().join("empty");
    fs::write(&empty, "").unwrap();
    let mut parts = KeyParts::new();
    parts.push("name", name);
    let outputs = [("folder", folder), ("file", file), ("empty", empty)];
    let outputs = outputs.map(|(name, path)| (name.to_owned(), store.put(&path).unwrap()));
    let record = Record {
        key: parts.digest(),
        parts,
        outputs: BTreeMap::from(outputs),
        outcome: serde_json::Value::Null,
        made: Made::default(),
    };
    store.commit(&record).unwrap();
    record
}

#[test]
fn what_was_pushed_is_found_and_pulled_though_half_of_all_requests_break() {
    for seed in 0..8 {
        // A put or get has two places to break at: three in ten each is half of all requests.
        let memory = Memory {
            breaks: 30,
            ..Memory::default()
        };
        *memory.chance.lock().unwrap() = seed;
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let (one, two) = (store(dirs[0].path()), store(dirs[1].path()));
        let record = result(&one, "x");
        let there = remote(&memory);
        let moved = there.push(&one, &record, &|_| {}).unwrap();
        assert_eq!(moved.blobs, 22);
        let found = there.find(&record.key, None).expect("it is there");
        assert_eq!(found, record);
        assert_eq!(
            there.find(&record.key, Some(&record.result())),
            Some(record.clone())
        );
        let moved = there.pull(&two, &found, &|_| {}).unwrap();
        assert_eq!(
            (moved.blobs, moved.bytes),
            (22, record.outputs.values().map(cache::Tree::size).sum())
        );
        assert_eq!(two.records(&record.key).unwrap(), [record]);
        assert_eq!(two.verify().unwrap().faults, []);
        assert!(
            there
                .faults()
                .iter()
                .any(|fault| fault.code == "remote::busy")
        );
        assert!(!there.left_alone());
    }
}

#[test]
fn blobs_go_before_the_record_and_who_comes_second_moves_nothing() {
    let memory = Memory::default();
    let dir = tempfile::tempdir().unwrap();
    let own = store(dir.path());
    let record = result(&own, "x");
    remote(&memory).push(&own, &record, &|_| {}).unwrap();
    let puts = memory.puts.lock().unwrap().clone();
    let first = puts
        .iter()
        .position(|path| !path.starts_with("v1/blobs/"))
        .unwrap();
    assert_eq!(first, puts.len() - 2);
    assert!(puts[first].starts_with("v1/records/") && puts[first + 1].starts_with("v1/keys/"));
    let again = remote(&memory).push(&own, &record, &|_| {}).unwrap();
    assert_eq!(
        (again.blobs, memory.puts.lock().unwrap().len()),
        (0, puts.len())
    );
}

#[test]
fn bad_bytes_never_reach_the_store_and_a_push_puts_them_right() {
    let edits: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1),
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.extend_from_slice(b"more"),
        |bytes| bytes.clear(),
    ];
    for edit in edits {
        let memory = Memory::default();
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let [one, two, three] = dirs.each_ref().map(|dir| store(dir.path()));
        let record = result(&one, "x");
        remote(&memory).push(&one, &record, &|_| {}).unwrap();
        memory.edit("v1/blobs/", edit);
        let there = remote(&memory);
        let found = there.find(&record.key, None).unwrap();
        let refused = there.pull(&two, &found, &|_| {});
        assert!(matches!(refused, Err(Unmoved::Remote(_))), "{refused:?}");
        assert_eq!(two.records(&record.key).unwrap(), []);
        assert_eq!(two.verify().unwrap().faults, []);
        assert!(
            there
                .faults()
                .iter()
                .any(|fault| fault.code == "remote::corrupt")
        );
        // The stage ran: the same bytes are here, and what was found bad is replaced. The others
        // are found by whoever meets them next.
        for _ in 0..30 {
            let met = there.pull(&three, &found, &|_| {});
            there.push(&one, &record, &|_| {}).unwrap();
            if met.is_ok() {
                break;
            }
        }
        assert_eq!(three.records(&record.key).unwrap().len(), 1);
        assert_eq!(three.verify().unwrap().faults, []);
    }
}

#[test]
fn a_record_counts_only_under_its_own_key() {
    let memory = Memory::default();
    let dir = tempfile::tempdir().unwrap();
    let own = store(dir.path());
    let (x, y) = (result(&own, "x"), result(&own, "y"));
    remote(&memory).push(&own, &x, &|_| {}).unwrap();
    remote(&memory).push(&own, &y, &|_| {}).unwrap();
    let at = |key: &Digest| format!("v1/keys/{}/{key}.json", &key.hex()[..2]);
    let mut held = memory.held.lock().unwrap();
    let (of_x, of_y) = (held[&at(&x.key)].clone(), held[&at(&y.key)].clone());
    held.insert(at(&x.key), of_y);
    held.insert(at(&y.key), of_x[..of_x.len() - 9].to_vec());
    drop(held);
    let there = remote(&memory);
    assert_eq!(there.find(&x.key, None), None);
    assert_eq!(there.find(&y.key, None), None);
    let faults = there.faults();
    let counts: Vec<_> = faults.iter().map(|f| (&*f.code, f.count)).collect();
    // Half a record is asked for again before it counts as what is there.
    assert_eq!(counts, [("remote::busy", 2), ("remote::corrupt", 2)]);
    // The named result is another object, and whole.
    assert_eq!(there.find(&x.key, Some(&x.result())), Some(x.clone()));
    // A push puts right what was met.
    there.push(&own, &x, &|_| {}).unwrap();
    assert_eq!(there.find(&x.key, None), Some(x));
}

#[test]
fn what_a_person_vouched_for_neither_goes_nor_comes() {
    let memory = Memory::default();
    let dir = tempfile::tempdir().unwrap();
    let own = store(dir.path());
    let mut record = result(&own, "x");
    record.made.accepted = true;
    let there = remote(&memory);
    assert!(there.push(&own, &record, &|_| {}).is_err());
    assert!(memory.held.lock().unwrap().is_empty());
    let text = serde_json::to_vec(&record).unwrap();
    let path = format!("v1/keys/{}/{}.json", &record.key.hex()[..2], record.key);
    memory.held.lock().unwrap().insert(path, text);
    assert_eq!(there.find(&record.key, None), None);
}

#[test]
fn a_blob_that_is_damaged_here_does_not_get_there() {
    use std::os::unix::fs::PermissionsExt as _;
    let memory = Memory::default();
    let dir = tempfile::tempdir().unwrap();
    let own = store(dir.path());
    let record = result(&own, "x");
    let blob = own.blob_path(&record.outputs["file"].digest());
    let meta = fs::metadata(&blob).unwrap();
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(&blob).unwrap();
    bytes[0] ^= 1;
    fs::write(&blob, bytes).unwrap();
    fs::File::open(&blob)
        .unwrap()
        .set_modified(meta.modified().unwrap())
        .unwrap();
    let there = remote(&memory);
    let pushed = there.push(&own, &record, &|_| {});
    assert!(matches!(pushed, Err(Unmoved::Store(_))), "{pushed:?}");
    let held = memory.held.lock().unwrap();
    assert!(
        held.keys().all(|path| path.starts_with("v1/blobs/")),
        "no record"
    );
}
