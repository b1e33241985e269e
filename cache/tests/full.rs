//! A disk that is full at any write: the error says so, what was stored stays, and with room again
//! the same work ends well. The disk fills up in the door through which the store changes it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a test may write where it likes")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cache::{Bounds, Change, Error, KeyParts, Made, Opening, Record, Store, Witness};

/// When and how the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// One change fails; then somebody makes room.
    Once,
    /// Every change from then on fails.
    Since,
    /// The bytes arrive, the change fails all the same (a late error of a sync).
    Late,
}

/// Lets `left` changes that need room through.
struct Small {
    seen: AtomicUsize,
    left: usize,
    full: Full,
    met: AtomicUsize,
}

impl Witness for Small {
    fn change(
        &self,
        change: Change<'_>,
        act: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let needs_room = matches!(
            change,
            Change::Folder(_)
                | Change::File(_)
                | Change::Write(_)
                | Change::Link(_)
                | Change::Rename(..)
                | Change::SyncFile(_)
                | Change::SyncFolder(_)
                | Change::SyncAll(_)
        );
        if !needs_room {
            return act();
        }
        let number = self.seen.fetch_add(1, Ordering::SeqCst);
        let fails = match self.full {
            Full::Once | Full::Late => number == self.left,
            Full::Since => number >= self.left,
        };
        if !fails {
            return act();
        }
        self.met.fetch_add(1, Ordering::SeqCst);
        if self.full == Full::Late {
            act()?;
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

fn parts(number: usize) -> KeyParts {
    let mut parts = KeyParts::new();
    parts.push("number", number.to_string());
    parts
}

fn make(store: &Store, number: usize, adopt: bool) -> Result<Record, Error> {
    let _held = store.lock(&parts(number).digest())?;
    let scratch = store.scratch()?;
    let out = scratch.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("own"), format!("of {number}")).unwrap();
    fs::write(out.join("shared"), "of all").unwrap();
    let tree = if adopt {
        store.adopt(&out)?
    } else {
        store.put(&out)?
    };
    let record = Record {
        key: parts(number).digest(),
        parts: parts(number),
        outputs: BTreeMap::from([("out".to_owned(), tree)]),
        outcome: serde_json::Value::Null,
        made: Made::default(),
    };
    store.commit(&record)?;
    Ok(record)
}

/// Everything that changes the disk, once.
fn work(home: &Path, witness: Arc<dyn Witness>) -> Result<(), Error> {
    let opening = Opening {
        witness: Some(witness),
        ..Opening::default()
    };
    let store = Store::open_with(home, opening)?;
    let input = home.with_extension("input");
    fs::write(&input, "a local input").unwrap();
    store.take(&input)?;
    let first = make(&store, 1, true)?;
    let second = make(&store, 2, false)?;
    let tree = &second.outputs["out"];
    store.materialise(
        tree,
        &home.with_extension("shown"),
        &home.with_extension("asides"),
    )?;
    let scratch = store.scratch()?;
    store.view(tree, &scratch.path().join("view"))?;
    store.lay_out_copy(tree, &scratch.path().join("copy"))?;
    store.register(Path::new("/some/checkout"))?;
    store.collect(Bounds::NOTHING, |record| record.key != first.key)?;
    store.flush()
}

#[test]
fn a_disk_that_is_full_at_any_write_loses_nothing() {
    let mut met = 0;
    for full in [Full::Once, Full::Since, Full::Late] {
        for left in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let home = dir.path().join("home");
            // Something was stored before.
            let before = make(&Store::open(&home).unwrap(), 0, true).unwrap();
            let small = Arc::new(Small {
                seen: AtomicUsize::new(0),
                left,
                full,
                met: AtomicUsize::new(0),
            });
            let worked = work(&home, Arc::clone(&small) as Arc<dyn Witness>);
            let at = format!("{full:?}, change {left}");
            if let Err(error) = &worked {
                assert_eq!(error.code(), "cache::disk-full", "{at}: {error}");
                assert!(error.mend().contains("gc"), "{at}");
            }
            let store = Store::open(&home).unwrap();
            assert_eq!(store.verify().unwrap().faults, [], "{at}");
            // The collection of `work` may have dropped it only by its own rule, which keeps it.
            assert!(store.present(&before).unwrap(), "{at}: lost");
            drop(store);
            // Room again.
            work(&home, Arc::new(Roomy)).unwrap_or_else(|error| panic!("{at}: {error}"));
            let store = Store::open(&home).unwrap();
            assert_eq!(store.verify().unwrap().faults, [], "{at}");
            let shown = fs::read(home.with_extension("shown").join("own")).unwrap();
            assert_eq!(shown, b"of 2", "{at}");
            let tmp = fs::read_dir(home.join("store/tmp")).unwrap().count();
            assert_eq!(tmp, 0, "{at}: what was unfinished is swept");
            if small.met.load(Ordering::SeqCst) == 0 {
                break;
            }
            met += 1;
        }
    }
    println!("a full disk was met at {met} changes");
    assert!(met > 100, "the disk was full at {met} changes only");
}

struct Roomy;

impl Witness for Roomy {
    fn change(&self, _: Change<'_>, act: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        act()
    }
}
