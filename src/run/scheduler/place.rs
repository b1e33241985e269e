//! When the results of quick stages come into their places: together, soon after the first of them,
//! and all before the run is over.
//!
//! Promises: what depends on them does not wait; at most [`SOON`] passes, or [`MANY`] gather, before they
//! are put there; a run that ends has settled everything, and what could not be stored fails it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use super::Scheduler;
use crate::run::job::Message;

/// How long a result waits for others. What a kill takes back costs about that long to make again.
const SOON: Duration = Duration::from_millis(50);

/// So many do not wait for more: each holds the lock of its key, which is an open file.
const MANY: usize = 64;

/// The errand that puts results into their places.
#[derive(Default)]
pub(super) struct Placing {
    under_way: bool,
    hurry: Arc<Notify>,
}

impl Scheduler<'_> {
    /// Sees to it that what waits is put in its place soon.
    pub(super) fn place_soon(
        &mut self,
        to: &mpsc::UnboundedSender<(usize, Message)>,
        executors: &mut JoinSet<()>,
    ) {
        let waiting = self.project.store.waiting();
        if waiting == 0 {
            return;
        }
        if waiting >= MANY {
            self.placing.hurry.notify_one();
        }
        if std::mem::replace(&mut self.placing.under_way, true) {
            return;
        }
        let store = Arc::clone(&self.project.store);
        let (hurry, to) = (Arc::clone(&self.placing.hurry), to.clone());
        executors.spawn(async move {
            tokio::select! {
                () = sleep(SOON) => {}
                () = hurry.notified() => {}
            }
            let placed = spawn_blocking(move || store.place()).await;
            if let Err(panic) = placed {
                std::panic::resume_unwind(panic.into_panic());
            }
            // The scheduler may have come to its end.
            let _over = to.send((0, Message::Placed));
        });
    }

    pub(super) fn placed(&mut self) {
        self.placing.under_way = false;
    }

    /// Waits until every result of this run is safe. One that is not is no result.
    pub(in crate::run) fn settle_store(&mut self) {
        let tickets = std::mem::take(&mut self.tickets);
        if tickets.is_empty() {
            return;
        }
        if let Err(error) = self.project.store.settle() {
            self.tally.failed = true;
            let text = format!("a power cut may take the last results back: {error}");
            self.notice(error.code(), text);
        }
        for (stage, ticket) in tickets {
            let Some(error) = ticket.failure() else {
                continue;
            };
            self.tally.failed = true;
            let (id, profile) = (self.id(stage), &self.project.pipeline.profile);
            self.locked.forget_results(profile, &id);
            let text = format!("the result of `{id}` could not be stored: {error}");
            self.notice(error.code(), text);
        }
    }
}
