//! Power loss: every write, rename and sync of a store at work is recorded in the door to the
//! disk; then the power goes after every step, and every state that the disk may be left in is
//! laid out and opened. Each time the store is sound: what was promised is there, byte by byte,
//! and nothing else is ever believed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a test may write where it likes")]

mod model;
mod record;
mod states;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::{Bounds, KeyParts, Made, Opening, Record, Store, Syncing, Tree};
use record::{Recorder, Step};

/// Files of a result, by path.
type Files = BTreeMap<String, Vec<u8>>;

/// What result `number` holds. Some files are equal in several results; 7 has many.
fn files(number: usize) -> Files {
    let count = if number == 7 { 12 } else { 1 + number % 3 };
    let file = |at: usize| {
        let text = if at == 1 {
            "shared by many".to_owned()
        } else {
            format!("result {number}, file {at}")
        };
        (format!("folder/{at}"), text.into_bytes())
    };
    (0..count).map(file).collect()
}

fn parts(number: usize) -> KeyParts {
    let mut parts = KeyParts::new();
    parts.push("number", number.to_string());
    parts
}

/// Makes result `number` as a run does, up to its record: in a scratch folder, adopted.
fn record(store: &Store, number: usize) -> Record {
    let scratch = store.scratch().unwrap();
    let out = scratch.path().join("out");
    for (path, bytes) in files(number) {
        let place = out.join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, bytes).unwrap();
    }
    let tree = if number.is_multiple_of(4) {
        store.put(&out).unwrap()
    } else {
        store.adopt(&out).unwrap()
    };
    Record {
        key: parts(number).digest(),
        parts: parts(number),
        outputs: BTreeMap::from([("out".to_owned(), tree)]),
        outcome: serde_json::Value::Null,
        made: Made::default(),
    }
}

/// [`record`], committed, promised.
fn make(store: &Store, recorder: &Recorder, number: usize) -> Record {
    let held = store.lock(&parts(number).digest()).unwrap();
    let record = record(store, number);
    store.commit(&record).unwrap();
    recorder.note(Step::Promised(number));
    drop(held);
    record
}

/// Results whose records wait for each other, one of them made of what another holds; promised when
/// all are settled.
fn make_together(store: &Store, recorder: &Recorder, numbers: &[usize]) {
    for (at, number) in numbers.iter().enumerate() {
        let held = store.lock(&parts(*number).digest()).unwrap();
        let record = record(store, *number);
        store.commit_soon(&record, &mut Some(held)).unwrap();
        if at == 1 {
            store.place();
        }
    }
    store.settle().unwrap();
    for number in numbers {
        recorder.note(Step::Promised(*number));
    }
}

/// Two writers at once, a look at damage, a second process, a collection, and writers again.
fn work(root: &Path, recorder: &Arc<Recorder>, syncing: Syncing) {
    let opened = || {
        let opening = Opening {
            witness: Some(Arc::clone(recorder) as Arc<dyn cache::Witness>),
            syncing,
            ..Opening::default()
        };
        Store::open_with(&root.join("home"), opening).unwrap()
    };
    let store = opened();
    fs::write(root.join("input"), "a local input").unwrap();
    std::thread::scope(|scope| {
        for numbers in [[1, 3, 4], [2, 7, 5]] {
            let store = &store;
            scope.spawn(move || {
                store.take(&root.join("input")).unwrap();
                for number in numbers {
                    make(store, recorder, number);
                }
            });
        }
    });
    drop(store);

    let store = opened();
    let six = make(&store, recorder, 6);
    store
        .materialise(
            &six.outputs["out"],
            &root.join("home/shown"),
            &root.join("home/asides"),
        )
        .unwrap();
    store.register(Path::new("/some/checkout")).unwrap();
    let released = [1, 2, 7];
    for number in released {
        recorder.note(Step::Released(number));
    }
    let keep = |record: &Record| {
        !released
            .iter()
            .any(|number| record.key == parts(*number).digest())
    };
    let dropped = store.collect(Bounds::NOTHING, keep).unwrap();
    assert_eq!(dropped.records, 3);
    make_together(&store, recorder, &[2, 8, 9]);
}

/// Whether `found` is what result `number` holds, read from the store.
fn holds(store: &Store, record: &Record, number: usize) {
    let Tree::Folder(entries) = &record.outputs["out"] else {
        panic!("result {number} is a folder");
    };
    let read = |entry: &cache::Entry| {
        let bytes = fs::read(store.blob_path(&entry.digest)).unwrap();
        (entry.path.clone(), bytes)
    };
    let found: Files = entries.iter().map(read).collect();
    assert_eq!(found, files(number), "result {number}");
}

fn check(state: &states::State, root: &Path) {
    states::lay_out(&state.files, root);
    let store = Store::open(&root.join("home")).unwrap();
    for number in 0..10 {
        let key = parts(number).digest();
        let records = store.records(&key).unwrap();
        let there = records
            .first()
            .is_some_and(|record| store.present(record).unwrap());
        if there {
            holds(&store, &records[0], number);
        }
        let promised = state.promised.contains(&number);
        assert!(
            there || !promised,
            "step {}: result {number} is lost",
            state.step
        );
        assert!(
            there || records.is_empty(),
            "step {}: a record of result {number} names what is not there",
            state.step
        );
        assert!(store.try_lock(&key).unwrap().is_some(), "a stale lock");
    }
    let found = store.verify().unwrap();
    assert_eq!(found.faults, [], "step {}", state.step);
    let left = fs::read_dir(root.join("home/store/tmp")).unwrap().count();
    assert_eq!(left, 0, "step {}: what was unfinished is swept", state.step);
}

/// A file system in memory where there is one: thousands of states are laid out.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok());
    made.flatten()
        .unwrap_or_else(|| tempfile::tempdir().unwrap())
}

#[test]
fn a_store_is_sound_whenever_the_power_goes() {
    sound_whenever_the_power_goes(Syncing::Each);
}

#[test]
fn a_store_that_syncs_all_together_is_sound_whenever_the_power_goes() {
    sound_whenever_the_power_goes(Syncing::Together);
}

#[expect(clippy::print_stdout, reason = "a campaign's figures")]
fn sound_whenever_the_power_goes(syncing: Syncing) {
    let disk = scratch();
    let recorder = Recorder::new(disk.path());
    work(disk.path(), &recorder, syncing);
    let log = recorder.log();
    let place = scratch();
    let mut number = 0;
    let counts = states::every(&log, |state| {
        let root: PathBuf = place.path().join(number.to_string());
        number += 1;
        fs::create_dir(&root).unwrap();
        let sound = std::panic::catch_unwind(|| check(state, &root));
        assert!(sound.is_ok(), "{}", told(&log, state));
        fs::remove_dir_all(&root).unwrap();
    });
    let syncs = log.iter().filter(|step| step.is_sync());
    println!(
        "power loss, {syncing:?}: {} steps recorded, {} of them syncs, 9 results; {} crashes leave \
         {} different disks (every set of lost names at {} steps, chosen sets at {})",
        counts.steps,
        syncs.count(),
        counts.crashes,
        counts.states,
        counts.exhaustive,
        counts.sampled
    );
    assert!(
        counts.states > 100,
        "the campaign must reach many states: {counts:?}"
    );
}

/// The steps before a crash, and what was left.
fn told(log: &[Step], state: &states::State) -> String {
    let mut text = String::new();
    for (number, step) in log[..=state.step].iter().enumerate() {
        let short = format!("{step:?}").replace("home/store/", "");
        text.push_str(&format!("{number}: {}\n", &short[..short.len().min(200)]));
    }
    for path in state.files.keys() {
        text.push_str(&format!("left: {}\n", path.display()));
    }
    text
}

/// The campaign can fail: without the syncs that the store makes, results are lost.
#[test]
fn without_its_syncs_the_store_would_not_be_sound() {
    let no_file = |step: &Step| matches!(step, Step::SyncFile(_));
    let no_folder = |step: &Step| matches!(step, Step::SyncFolder(_));
    let no_whole = |step: &Step| matches!(step, Step::SyncAll);
    type Leaves<'a> = &'a dyn Fn(&Step) -> bool;
    let all: [(Syncing, &str, Leaves<'_>); 3] = [
        (Syncing::Each, "files", &no_file),
        (Syncing::Each, "folders", &no_folder),
        (Syncing::Together, "the whole", &no_whole),
    ];
    for (syncing, what, left_out) in all {
        let disk = scratch();
        let recorder = Recorder::new(disk.path());
        work(disk.path(), &recorder, syncing);
        let log = without(&recorder.log(), left_out);
        let place = scratch();
        let mut number = 0;
        let mut unsound = 0;
        states::every(&log, |state| {
            if unsound > 0 {
                return;
            }
            let root = place.path().join(number.to_string());
            number += 1;
            fs::create_dir(&root).unwrap();
            let looked = std::panic::catch_unwind(|| check(state, &root));
            unsound += usize::from(looked.is_err());
            fs::remove_dir_all(&root).unwrap();
        });
        assert!(unsound > 0, "the syncs of {what} are of no use, it seems");
    }
}

fn without(log: &[Step], left_out: impl Fn(&Step) -> bool) -> Vec<Step> {
    log.iter().filter(|step| !left_out(step)).cloned().collect()
}
