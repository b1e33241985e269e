//! Looks made ahead: what files of the store and laid-out files look like, seen by another thread while
//! this one has other work.
//!
//! Promises: a pure speed-up. Each look is made by whoever comes first: the other thread, or the one that asks.
//! What was seen counts once, and only where it is just what is remembered; else the file is looked at again.
//! Whoever changes something first says [`Store::forget_glances`].

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, statat};

use crate::Digest;
use crate::stat::Stat;
use crate::store::Store;
use crate::tree::Tree;

/// Answers of another thread, by number.
#[derive(Debug)]
pub(crate) struct Answers<T> {
    looks: Vec<Mutex<Look<T>>>,
    over: AtomicBool,
}

#[derive(Debug)]
enum Look<T> {
    Open,
    UnderWay,
    Seen(T),
    /// It was asked for.
    Gone,
}

impl<T> Answers<T> {
    pub(crate) fn new(count: usize) -> Self {
        let looks = (0..count).map(|_| Mutex::new(Look::Open));
        Self {
            looks: looks.collect(),
            over: AtomicBool::new(false),
        }
    }

    fn of(&self, number: usize) -> Option<MutexGuard<'_, Look<T>>> {
        let look = self.looks.get(number)?;
        Some(look.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes every look that nobody has asked for yet, until it is to stop.
    pub(crate) fn make(&self, look: impl Fn(usize) -> Option<T>) {
        for number in 0..self.looks.len() {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            if !self.turns(number, |found| matches!(found, Look::Open), Look::UnderWay) {
                continue;
            }
            if let Some(seen) = look(number) {
                self.turns(
                    number,
                    |found| matches!(found, Look::UnderWay),
                    Look::Seen(seen),
                );
            }
        }
    }

    fn turns(&self, number: usize, is: impl Fn(&Look<T>) -> bool, into: Look<T>) -> bool {
        self.of(number).is_some_and(|mut found| {
            let right = is(&found);
            if right {
                *found = into;
            }
            right
        })
    }

    /// What was seen. Nothing where nobody has come to look: then nobody will.
    pub(crate) fn take(&self, number: usize) -> Option<T> {
        match std::mem::replace(&mut *self.of(number)?, Look::Gone) {
            Look::Seen(seen) => Some(seen),
            _ => None,
        }
    }

    /// No more looks are made.
    pub(crate) fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A folder to look below: short paths cost a fraction of long ones.
pub(crate) struct Below(File);

impl Below {
    pub(crate) fn folder(folder: &Path) -> Option<Self> {
        File::open(folder).ok().map(Self)
    }

    /// What lies at a relative path: its stat and mode. Links are not followed.
    pub(crate) fn look(&self, path: &str) -> Option<(Stat, u32)> {
        let found = statat(&self.0, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        #[allow(
            clippy::unnecessary_cast,
            clippy::cast_lossless,
            reason = "its type differs between systems"
        )]
        let mode = found.st_mode as u32;
        Some((Stat::of_raw(&found), mode))
    }

    /// Looks at a record and its blobs; nothing if any is missing.
    /// `before` is the blob that was seen last: equal outputs are one blob.
    fn result(
        &self,
        key: &Digest,
        result: &Digest,
        blobs: &[Digest],
        before: &Cell<Option<(Digest, Stat)>>,
    ) -> Option<Glance> {
        let mut path = String::with_capacity(160);
        let (key, result) = (key.digits(), result.digits());
        for step in ["records/", &key[..2], "/", &key, "/", &result, ".json"] {
            path.push_str(step);
        }
        self.look(&path)?;
        let mut seen = Vec::with_capacity(blobs.len());
        for digest in blobs {
            if let Some((known, stat)) = before.get()
                && known == *digest
            {
                seen.push(stat);
                continue;
            }
            let digits = digest.digits();
            path.clear();
            for step in ["blobs/", &digits[..2], "/", &digits] {
                path.push_str(step);
            }
            let stat = self.look(&path)?.0;
            before.set(Some((*digest, stat)));
            seen.push(stat);
        }
        Some(Glance(seen))
    }
}

/// The files of a result, all there a moment ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance(Vec<Stat>);

/// What is seen of results.
#[derive(Clone, Debug, Default)]
pub struct Glances(Option<Arc<Answers<Glance>>>);

impl Glances {
    /// What was seen of the result with this number, once.
    pub fn take(&self, number: usize) -> Option<Glance> {
        self.0.as_ref()?.take(number)
    }

    /// No more looks are made.
    pub fn stop(&self) {
        if let Some(answers) = &self.0 {
            answers.stop();
        }
    }
}

/// Looks at results that are to be made.
pub struct ResultLooks {
    store: Below,
    /// Key, result and blobs of one after the other.
    digests: Vec<Digest>,
    /// Where each begins among them.
    begins: Vec<usize>,
    answers: Option<Arc<Answers<Glance>>>,
}

impl ResultLooks {
    /// In the store below `base`, if there is one.
    pub fn below(base: &Path) -> Option<Self> {
        Some(Self {
            store: Below::folder(&base.join("store"))?,
            digests: Vec::new(),
            begins: Vec::new(),
            answers: None,
        })
    }

    /// Adds a result; gives its number.
    pub fn add<'a>(
        &mut self,
        key: &Digest,
        result: &Digest,
        outputs: impl Iterator<Item = &'a Tree>,
    ) -> usize {
        self.begins.push(self.digests.len());
        let blobs = outputs
            .flat_map(Tree::files)
            .map(|(_, _, digest, _)| digest);
        self.digests
            .extend([*key, *result].into_iter().chain(blobs));
        self.begins.len() - 1
    }

    /// Where what will be seen of those that were added is to be had.
    pub fn glances(&mut self) -> Glances {
        let answers = Arc::new(Answers::new(self.begins.len()));
        self.answers = Some(Arc::clone(&answers));
        Glances(Some(answers))
    }

    /// Makes the looks.
    pub fn make(self) {
        let Some(answers) = &self.answers else { return };
        let before = Cell::new(None);
        answers.make(|number| {
            let end = self.begins.get(number + 1).copied();
            let digests = &self.digests[self.begins[number]..end.unwrap_or(self.digests.len())];
            match digests {
                [key, result, blobs @ ..] => self.store.result(key, result, blobs, &before),
                _ => None,
            }
        });
    }
}

impl Store {
    /// Whether all blobs of these outputs are there, unharmed, by a glance at them.
    pub fn held(&self, outputs: &BTreeMap<String, Tree>, glance: &Glance) -> bool {
        let memo = self.memo();
        let mut files = outputs.values().flat_map(Tree::files);
        let mut seen = glance.0.iter();
        let same = files.all(|(_, _, digest, _)| memo.blob(&digest).as_ref() == seen.next());
        same && seen.next().is_none()
    }

    /// From here on files change: what was seen of laid-out ones counts no more.
    pub fn forget_glances(&self) {
        self.memo().forget_glances();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_made_by_whoever_comes_first_and_counts_once() {
        let answers = Answers::new(3);
        assert_eq!(answers.take(1), None::<usize>);
        answers.make(|number| {
            assert_ne!(number, 1, "it was asked for before");
            // Asked for while the look is under way: what is seen then counts no more.
            if number == 2 {
                assert_eq!(answers.take(2), None);
            }
            Some(number)
        });
        assert_eq!(answers.take(0), Some(0));
        assert_eq!([0, 1, 2, 3].map(|number| answers.take(number)), [None; 4]);
    }

    #[test]
    fn no_look_is_made_after_the_stop() {
        let answers = Answers::new(2);
        answers.make(|number| {
            answers.stop();
            Some(number)
        });
        assert_eq!([answers.take(0), answers.take(1)], [Some(0), None]);
    }
}
