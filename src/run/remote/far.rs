//! All that a run knows of its remote: what is to be asked, fetched and put there, and what moved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cache::{Record, Remote};
use tokio::sync::Semaphore;

use super::super::job::Job;
use super::link::{Link, Pushing};
use super::push::Pusher;
use super::pushed::Pushed;
use crate::plan::{Question, Reason};

/// Questions under way at the same time.
const QUESTIONS: usize = 16;
/// Results that are fetched at the same time, each with several blobs.
const FETCHES: usize = 4;

/// What is to be done about the remote as soon as the loop turns.
pub(super) enum Errand {
    Ask(usize, Question),
    Fetch(usize, Box<Record>),
}

/// A stage that waits for an answer, or whose bytes are far away.
pub(super) struct Away {
    pub(super) job: Job,
    pub(super) reasons: Vec<Reason>,
    pub(super) record: Option<Record>,
}

/// All that a run knows of its remote.
pub(in super::super) struct Far {
    pub(in super::super) link: Link,
    pub(super) errands: Vec<Errand>,
    /// Questions and fetches without an end yet, and pushes.
    pub(super) under_way: usize,
    pub(in super::super) asking: usize,
    pub(super) away: BTreeMap<usize, Away>,
    /// Stages that wait for bytes of others.
    pub(super) wanting: BTreeMap<usize, (Job, BTreeSet<usize>)>,
    /// Stages that are made although a record of theirs was found.
    pub(super) remade: BTreeSet<usize>,
    /// A remade stage came out with other bytes: everything is to be planned anew.
    pub(in super::super) again: bool,
    pub(super) permits: (Arc<Semaphore>, Arc<Semaphore>),
    pub(super) pushing: bool,
    pub(super) pushed: Option<Pushed>,
    pub(super) to_push: Vec<(usize, Record)>,
    pub(super) pusher: Option<Pusher>,
    pub(super) told: Told,
}

/// What moved in the whole run.
#[derive(Default)]
pub(super) struct Told {
    pub(super) pulled: usize,
    pub(super) pulled_bytes: u64,
    pub(super) pushed: usize,
    pub(super) pushed_bytes: u64,
}

impl Far {
    pub(in super::super) fn new(link: Link) -> Self {
        Self {
            pushing: link.pushing() == Pushing::On,
            link,
            errands: Vec::new(),
            under_way: 0,
            asking: 0,
            away: BTreeMap::new(),
            wanting: BTreeMap::new(),
            remade: BTreeSet::new(),
            again: false,
            permits: (
                Arc::new(Semaphore::new(QUESTIONS)),
                Arc::new(Semaphore::new(FETCHES)),
            ),
            pushed: None,
            to_push: Vec::new(),
            pusher: None,
            told: Told::default(),
        }
    }

    /// Whether anything is to be done or waited for.
    pub(in super::super) fn busy(&self) -> bool {
        self.under_way > 0 || !self.errands.is_empty() || !self.to_push.is_empty()
    }

    /// The remote, if asking it makes sense.
    pub(super) fn remote(&self) -> Option<&Arc<Remote>> {
        self.link.remote().filter(|remote| !remote.left_alone())
    }
}
