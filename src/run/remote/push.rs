//! Results to the remote, by a thread of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use cache::{Moved, Record, Remote, Store, Tree, Unmoved};

/// How often progress is told.
const OFTEN: Duration = Duration::from_millis(250);

/// What the thread tells.
pub(crate) enum Push {
    /// So many bytes of so many went.
    Progress(u64, u64),
    /// The end of one result.
    Ended {
        record: Box<Record>,
        outcome: Result<Moved, Unmoved>,
        millis: u64,
    },
}

/// One result to be put.
struct Order {
    stage: usize,
    record: Record,
}

/// Puts results one after another, each with several blobs at a time.
pub(super) struct Pusher {
    orders: mpsc::Sender<Order>,
}

impl Pusher {
    pub(super) fn start(
        remote: &Arc<Remote>,
        store: &Arc<Store>,
        tell: impl Fn(usize, Push) + Send + Sync + 'static,
    ) -> Self {
        let (orders, waiting) = mpsc::channel::<Order>();
        let (remote, store) = (Arc::clone(remote), Arc::clone(store));
        std::thread::spawn(move || {
            for Order { stage, record } in waiting {
                let began = Instant::now();
                let meter = Meter::of(&record);
                let outcome = remote.push(&store, &record, &|bytes| {
                    if let Some((moved, total)) = meter.moved(bytes) {
                        tell(stage, Push::Progress(moved, total));
                    }
                });
                let millis = began.elapsed().as_millis() as u64;
                let record = Box::new(record);
                tell(
                    stage,
                    Push::Ended {
                        record,
                        outcome,
                        millis,
                    },
                );
            }
        });
        Self { orders }
    }

    pub(super) fn order(&self, stage: usize, record: Record) {
        let sent = self.orders.send(Order { stage, record });
        debug_assert!(sent.is_ok(), "bug: the pushing thread ended");
    }
}

/// Counts bytes from many threads and says when it is time to tell.
pub(super) struct Meter {
    moved: AtomicU64,
    total: u64,
    told: Mutex<Instant>,
}

impl Meter {
    pub(super) fn of(record: &Record) -> Self {
        Self {
            moved: AtomicU64::new(0),
            total: record.trees().map(Tree::size).sum(),
            told: Mutex::new(Instant::now()),
        }
    }

    /// Counts; gives moved and total bytes if it is time.
    pub(super) fn moved(&self, bytes: u64) -> Option<(u64, u64)> {
        let moved = self.moved.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() < OFTEN {
            return None;
        }
        *told = Instant::now();
        Some((moved.min(self.total), self.total))
    }
}

/// What became of a result that was put by hand.
pub struct Sent {
    /// Stage id.
    pub stage: String,
    /// What moved, or why nothing did.
    pub outcome: Result<Moved, Unmoved>,
}

/// Puts results one by one; `each` hears of every end. For `tunesmith cache push`.
pub fn push_all(
    remote: &Remote,
    store: &Store,
    results: Vec<(String, Record)>,
    each: &mut dyn FnMut(Sent),
) {
    for (stage, record) in results {
        let outcome = remote.push(store, &record, &|_| {});
        each(Sent { stage, outcome });
    }
}
