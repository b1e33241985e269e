//! Collecting: what the checkouts of a store need, and the collection after a run.
//!
//! Promises: nothing is dropped that a `pipeline.lock` of a registered checkout names, or that is
//! the last result of a stage under any profile there; a lock that cannot be read stops the
//! collection, for nobody knows what it names; a checkout that vanished keeps what it last needed
//! until its root ages out, and both are said. After a run it is cheap: one small file says
//! whether there can be anything to drop.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cache::{Bounds, Collected, Digest, Record, Root, Store};
use serde::{Deserialize, Serialize};

use crate::config::{Faults, Pipeline, StoreSpec};
use crate::lock::{self, Lock};
use crate::plan::Last;
use crate::report::words::{bytes, count};

/// What was not used for so long goes, unless the pipeline or the user says otherwise.
const MAX_AGE: Duration = Duration::from_hours(30 * 24);
/// The store may hold so many bytes.
const MAX_BYTES: u64 = 100_000_000_000;
/// A vanished checkout is believed to come back within this time.
const VANISHED: Duration = Duration::from_hours(30 * 24);
/// Runs that make something look for what can go this often.
const EVERY: Duration = Duration::from_hours(24);

/// How much may stay, by what is said about the store.
pub fn bounds(spec: &StoreSpec) -> Bounds {
    Bounds {
        age: spec.max_age.unwrap_or(MAX_AGE),
        bytes: spec.max_bytes.unwrap_or(MAX_BYTES),
    }
}

/// What one checkout needs.
struct Checkout {
    folder: PathBuf,
    /// Key and result of last results.
    results: BTreeSet<(Digest, Digest)>,
    /// Outputs that its lock names.
    locked: BTreeSet<BTreeMap<String, Digest>>,
    /// It is gone: only what it needed before is known.
    vanished: bool,
}

/// What all checkouts of a store need.
pub struct Needs {
    checkouts: Vec<Checkout>,
    /// Results found to be named by a lock, by checkout.
    found: RefCell<BTreeMap<usize, BTreeSet<(Digest, Digest)>>>,
    /// What a person should know: code and sentence.
    pub notices: Vec<(&'static str, String)>,
}

impl Needs {
    /// Looks at the pipeline's own checkout and at every registered one.
    pub fn look(pipeline: &Pipeline, store: &Store) -> Result<Self, Faults> {
        let mut needs = Self {
            checkouts: Vec::new(),
            found: RefCell::default(),
            notices: Vec::new(),
        };
        let own = checkout(pipeline);
        needs.checkouts.push(look_at(&own, store.home())?);
        for root in store.roots() {
            if root.checkout == own {
                continue;
            }
            if root.checkout.is_dir() {
                let home = root.checkout.join(super::HOME);
                needs.checkouts.push(look_at(&root.checkout, &home)?);
            } else {
                needs.vanished(root, store);
            }
        }
        Ok(needs)
    }

    fn vanished(&mut self, root: Root, store: &Store) {
        let gone = SystemTime::now().duration_since(root.seen);
        let gone = gone.unwrap_or_default();
        let days = gone.as_secs() / 86_400;
        let shown = root.checkout.display();
        if gone > VANISHED {
            let text = format!("the checkout `{shown}` is gone for {days} days: forgotten");
            self.notices.push(("gc::forgotten", text));
            let _next_time = store.forget_root(&root.checkout);
            return;
        }
        let left = VANISHED.as_secs() / 86_400 - days;
        let kept = count(root.results.len(), "result");
        let text = format!(
            "the checkout `{shown}` is gone: its {kept} stay for {left} days more, \
             unless it comes back"
        );
        self.notices.push(("gc::vanished", text));
        self.checkouts.push(Checkout {
            folder: root.checkout,
            results: root.results,
            locked: BTreeSet::new(),
            vanished: true,
        });
    }

    /// Whether a checkout needs the record.
    pub fn hold(&self, record: &Record) -> bool {
        let name = (record.key, record.result());
        let outputs = record.outputs.iter();
        let outputs: BTreeMap<_, _> = outputs
            .map(|(name, tree)| (name.clone(), tree.digest()))
            .collect();
        let mut held = false;
        for (at, checkout) in self.checkouts.iter().enumerate() {
            if checkout.locked.contains(&outputs) {
                self.found.borrow_mut().entry(at).or_default().insert(name);
                held = true;
            }
            held |= checkout.results.contains(&name);
        }
        held
    }

    /// Writes down what each checkout of a shared store needs, for the day it cannot be asked.
    pub fn write_down(&self, store: &Store) -> Result<(), cache::Error> {
        if store.base() == store.home() {
            return Ok(());
        }
        let found = self.found.borrow();
        for (at, checkout) in self.checkouts.iter().enumerate() {
            if !checkout.vanished {
                let mut results = checkout.results.clone();
                results.extend(found.get(&at).into_iter().flatten());
                store.remember_root(&checkout.folder, results)?;
            }
        }
        Ok(())
    }
}

/// The pipeline's folder, by the name under which it registers.
pub(super) fn checkout(pipeline: &Pipeline) -> PathBuf {
    let root = &pipeline.root;
    root.canonicalize().unwrap_or_else(|_| root.clone())
}

fn look_at(folder: &Path, home: &Path) -> Result<Checkout, Faults> {
    let lock = Lock::load(&folder.join(lock::FILE_NAME))?;
    Ok(Checkout {
        folder: folder.to_owned(),
        results: Last::all(home)
            .iter()
            .map(|last| (last.key, last.result))
            .collect(),
        locked: lock.all_results().cloned().collect(),
        vanished: false,
    })
}

/// When the store was last collected, and what came since. Losing it costs a look.
#[derive(Default, Serialize, Deserialize)]
struct Stamp {
    /// Seconds since 1970.
    at: u64,
    /// Bytes that were left then, and those made since.
    bytes: u64,
}

/// After a run that made `grown` bytes: drops what is beyond the bounds, if it is time to look.
/// Tells what people should know.
pub(super) fn after_run(
    pipeline: &Pipeline,
    spec: &StoreSpec,
    store: &Store,
    grown: u64,
    tell: &mut dyn FnMut(&str, String),
) {
    if spec.gc == Some(false) {
        return;
    }
    let bounds = bounds(spec);
    let file = store.base().join("collected");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let read = std::fs::read(&file).ok();
    let stamp = read.and_then(|bytes| serde_json::from_slice::<Stamp>(&bytes).ok());
    // A new store holds nothing old.
    let mut stamp = stamp.unwrap_or(Stamp { at: now, bytes: 0 });
    stamp.bytes = stamp.bytes.saturating_add(grown);
    let due = now.saturating_sub(stamp.at) > EVERY.as_secs() || stamp.bytes > bounds.bytes;
    if due {
        match collect(pipeline, store, bounds, tell) {
            Ok(collected) => {
                stamp = Stamp {
                    at: now,
                    bytes: collected.left.min(bounds.bytes),
                };
            }
            // Somebody else is at work: the last one to end collects.
            Err(Trouble::Store(cache::Error::InUse { .. })) => {}
            Err(Trouble::Store(error)) => tell(error.code(), error.to_string()),
            Err(Trouble::Lock(faults)) => tell(
                "gc::lock-unreadable",
                format!("nothing was collected, for a lock file cannot be read: {faults}"),
            ),
        }
    }
    if let Ok(text) = serde_json::to_vec(&stamp) {
        let _lost = std::fs::write(&file, text);
    }
}

enum Trouble {
    Store(cache::Error),
    Lock(Faults),
}

fn collect(
    pipeline: &Pipeline,
    store: &Store,
    bounds: Bounds,
    tell: &mut dyn FnMut(&str, String),
) -> Result<Collected, Trouble> {
    let needs = Needs::look(pipeline, store).map_err(Trouble::Lock)?;
    let collected = store.collect(bounds, |record| needs.hold(record));
    let collected = collected.map_err(Trouble::Store)?;
    needs.write_down(store).map_err(Trouble::Store)?;
    for (code, text) in &needs.notices {
        tell(code, text.clone());
    }
    if collected.bytes > 0 || collected.records > 0 {
        tell(
            "gc::dropped",
            format!("the store let go of {}", dropped(&collected)),
        );
    }
    Ok(collected)
}

/// What a collection dropped, as people say it.
pub fn dropped(collected: &Collected) -> String {
    let mut parts = vec![
        count(collected.records, "record"),
        count(collected.blobs, "blob"),
    ];
    if collected.checkpoints > 0 {
        parts.push(count(collected.checkpoints, "checkpoint"));
    }
    if collected.quarantined > 0 {
        parts.push(count(collected.quarantined, "damaged file"));
    }
    let last = parts.pop().expect("there are two at least");
    format!(
        "{} and {last} ({})",
        parts.join(", "),
        bytes(collected.bytes)
    )
}
