//! How a run ends before its end: a signal, a failure, an input that changed.
//!
//! Promises: nothing new starts, what runs is asked before it is killed, and every stage that was
//! not run says why.

use super::{Scheduler, State};
use crate::run::process::Stop;

impl Scheduler<'_> {
    /// The first signal asks, the second does not.
    pub(super) fn cancel(&mut self) {
        let again = std::mem::replace(&mut self.tally.cancelled, true);
        let (wish, text) = if again {
            (Stop::Now, "stopping at once")
        } else {
            (
                Stop::Ask,
                "stopping: running stages may save what they have; again to stop at once",
            )
        };
        self.notice("run::cancelled", text.to_owned());
        self.drop_queued("the run was cancelled");
        if let Some(remote) = self.far.link.used() {
            remote.stop();
        }
        for running in self.running.values() {
            // One that is done does not listen any more.
            let _done = running.stop.send(wish);
        }
    }

    /// Asks one running stage to end.
    pub(in crate::run) fn end(&mut self, stage: usize, because: &str) {
        if let Some(running) = self.running.get(&stage) {
            self.because.insert(stage, because.to_owned());
            let _done = running.stop.send(Stop::Ask);
        }
    }

    /// Nothing new starts.
    pub(in crate::run) fn drop_queued(&mut self, because: &str) {
        for stage in self.pools.clear() {
            if self.grants.remove(&stage).is_some() {
                // Its executor ends by itself and says so.
                self.because.insert(stage, because.to_owned());
                continue;
            }
            self.jobs.remove(&stage);
            self.skip(stage, because);
        }
        self.open.clear();
        self.drop_away(because);
        for stage in self.selected.clone() {
            if matches!(self.states[stage], State::Waiting(_)) {
                self.skip(stage, because);
            }
        }
    }
}
