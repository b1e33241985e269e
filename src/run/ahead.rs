//! Read ahead: what opening a project needs and its pipeline does not decide, read on another core
//! while the pipeline is parsed and checked; and looked at, as far as the plan is going to look.
//!
//! Promises: only time is won. The index and the last results are guesses about which store and
//! which profile the pipeline will name; whoever opens those looks whether they are meant, and
//! reads others otherwise. Looks go on while the plan is made; what was seen of a file counts once, and not
//! after work began.

use std::path::Path;
use std::sync::mpsc;
use std::thread;

use cache::Index;

use super::project::OUT;
use crate::config::Faults;
use crate::lock::{self, Lock};
use crate::plan::Last;

/// Bytes of an index from which other threads are worth starting: some hundred stages.
const WORTH_IT: u64 = 64 << 10;

/// What was read.
pub(super) struct Ahead {
    /// What `pipeline.lock` says.
    pub(super) lock: Result<Lock, Faults>,
    /// The index of the checkout's own store.
    pub(super) index: Option<Index>,
    /// The last results that changed last, or those of the profile that was asked for.
    pub(super) last: Option<Last>,
}

/// Does `work` while the lock beside the pipeline in `folder` and what lies in its `home` are read.
pub(super) fn beside<T>(
    folder: &Path,
    home: &Path,
    profile: Option<&str>,
    work: impl FnOnce() -> T,
) -> (T, Ahead) {
    let lock_file = folder.join(lock::FILE_NAME);
    let place = Index::place(home, None);
    let size = place.metadata().map_or(0, |found| found.len());
    if size < WORTH_IT {
        let done = work();
        let ahead = Ahead {
            lock: Lock::load(&lock_file),
            index: None,
            last: None,
        };
        return (done, ahead);
    }
    let profile = profile.map(str::to_owned);
    let profile = profile.or_else(|| Last::newest_profile(home));
    let (for_last, own) = (profile.clone(), home.to_owned());
    let last = beginning(move |tell| {
        let last = match &for_last {
            Some(profile) => Some(Last::load(&own, profile)),
            None => Last::newest(&own),
        };
        let Some(mut last) = last else { return };
        let looks = last.looks(&own);
        tell(last);
        if let Some(looks) = looks {
            looks.make();
        }
    });
    let shown = profile.map(|profile| folder.join(OUT).join(profile));
    let others = beginning(move |tell| {
        let (lock, mut index) = (Lock::load(&lock_file), Index::read(&place));
        let looks = shown.and_then(|shown| index.looks_below(&shown));
        tell((lock, index));
        if let Some(looks) = looks {
            looks.make();
        }
    });
    let done = work();
    let (lock, index) = others.recv().expect("bug: reading ahead panicked");
    let ahead = Ahead {
        lock,
        index: Some(index),
        last: last.recv().ok(),
    };
    (done, ahead)
}

/// Begins `work` on a thread of its own, which tells what it has and goes on.
fn beginning<T: Send + 'static>(
    work: impl FnOnce(&dyn Fn(T)) + Send + 'static,
) -> mpsc::Receiver<T> {
    let (to, told) = mpsc::channel();
    thread::spawn(move || {
        // Nobody may listen any more: the pipeline was at fault.
        work(&|it| drop(to.send(it)));
    });
    told
}
