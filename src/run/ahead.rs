//! Read ahead: what opening a project needs and its pipeline does not decide, read on another core
//! while the pipeline is parsed and checked; and looked at, as far as the plan is going to look.
//!
//! Promises: only time is won. The index and the last results are guesses about which store and
//! which profile the pipeline will name; whoever opens those looks whether they are meant, and
//! reads others otherwise. What was seen of a file counts once, and not after work began.

use std::path::Path;
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
    let lock = || Lock::load(&folder.join(lock::FILE_NAME));
    let place = Index::place(home, None);
    let size = place.metadata().map_or(0, |found| found.len());
    if size < WORTH_IT {
        let done = work();
        let ahead = Ahead {
            lock: lock(),
            index: None,
            last: None,
        };
        return (done, ahead);
    }
    let profile = profile.map(str::to_owned);
    let profile = profile.or_else(|| Last::newest_profile(home));
    thread::scope(|scope| {
        let last = scope.spawn(|| {
            let mut last = match &profile {
                Some(profile) => Last::load(home, profile),
                None => Last::newest(home)?,
            };
            last.look(home);
            Some(last)
        });
        let others = scope.spawn(|| {
            let (lock, mut index) = (lock(), Index::read(&place));
            if let Some(profile) = &profile {
                index.look_below(&folder.join(OUT).join(profile));
            }
            (lock, index)
        });
        let done = work();
        let (lock, index) = others.join().expect("bug: reading ahead panicked");
        let ahead = Ahead {
            lock,
            index: Some(index),
            last: last.join().expect("bug: reading ahead panicked"),
        };
        (done, ahead)
    })
}
