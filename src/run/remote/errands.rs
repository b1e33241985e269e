//! What is to be done about the remote as soon as the loop turns, and what became of it at the end.

use std::sync::Arc;

use cache::Record;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::executor::Voice;
use super::super::job::Message;
use super::super::scheduler::Scheduler;
use super::asked::asked;
use super::far::Errand;
use super::pull::pulled;
use super::push::{Push, Pusher};
use super::pushed::Pushed;
use super::words::complaints;
use crate::event::Event;

impl Scheduler<'_> {
    /// A result that may have to be put to the remote.
    pub(in super::super) fn offer_to_remote(&mut self, stage: usize, record: &Record) {
        let outside = self.spec(stage).effect == stages::Effect::External;
        if !self.far.pushing || outside || record.made.accepted {
            return;
        }
        let home = self.project.store.home();
        let name = || self.far.link.file_name();
        let pushed = match &mut self.far.pushed {
            Some(pushed) => pushed,
            none => none.insert(Pushed::load(home, &name())),
        };
        if !pushed.holds(record) {
            self.far.to_push.push((stage, record.clone()));
        }
    }

    /// Begins what is to be done about the remote.
    pub(in super::super) fn run_errands(
        &mut self,
        to: &mpsc::UnboundedSender<(usize, Message)>,
        tasks: &mut JoinSet<()>,
    ) {
        for errand in std::mem::take(&mut self.far.errands) {
            let remote = self.far.link.remote().expect("it was asked for");
            let remote = Arc::clone(remote);
            self.far.under_way += 1;
            let to = to.clone();
            match errand {
                Errand::Ask(stage, question) => {
                    let permits = Arc::clone(&self.far.permits.0);
                    let voice = Voice { stage, to };
                    tasks.spawn(asked(remote, question, voice, permits));
                }
                Errand::Fetch(stage, record) => {
                    let permits = Arc::clone(&self.far.permits.1);
                    let store = Arc::clone(&self.project.store);
                    let voice = Voice { stage, to };
                    tasks.spawn(pulled(remote, store, *record, voice, permits));
                }
            }
        }
        for (stage, record) in std::mem::take(&mut self.far.to_push) {
            let Some(remote) = self.far.remote() else {
                continue;
            };
            if self.far.pusher.is_none() {
                let to = to.clone();
                let tell = move |stage, push| {
                    // The scheduler listens until every push has ended.
                    let _gone = to.send((stage, Message::Push(push)));
                };
                let pusher = Pusher::start(remote, &self.project.store, tell);
                self.far.pusher = Some(pusher);
            }
            let pusher = self.far.pusher.as_ref().expect("it was just started");
            pusher.order(stage, record);
            self.far.under_way += 1;
        }
    }

    /// What the pushing thread tells.
    pub(in super::super) fn heard_of_push(&mut self, stage: usize, push: Push) {
        match push {
            Push::Progress(bytes, total) => self.say(Event::RemoteProgress {
                stage: self.id(stage),
                doing: "push".to_owned(),
                bytes,
                total,
            }),
            Push::Ended {
                record,
                outcome,
                millis,
            } => {
                self.far.under_way -= 1;
                let Ok(moved) = outcome else { return };
                if let Some(pushed) = &mut self.far.pushed {
                    pushed.add(&record);
                }
                self.far.told.pushed += usize::from(moved.blobs > 0);
                self.far.told.pushed_bytes += moved.bytes;
                self.say(Event::StagePushed {
                    stage: self.id(stage),
                    blobs: moved.blobs,
                    bytes: moved.bytes,
                    millis,
                });
            }
        }
    }

    /// What became of the remote, at the end of the run.
    pub(in super::super) fn tell_of_remote(&mut self) {
        self.far.pusher = None;
        for (code, text) in complaints(&self.far.link) {
            self.notice(&code, text);
        }
        let told = &self.far.told;
        if self.far.link.used().is_none() || told.pulled + told.pushed == 0 {
            return;
        }
        self.say(Event::RemoteDone {
            remote: self.far.link.shown().to_owned(),
            pulled: told.pulled,
            pulled_bytes: told.pulled_bytes,
            pushed: told.pushed,
            pushed_bytes: told.pushed_bytes,
        });
    }

    /// Whether nothing new is begun any more.
    pub(super) fn closed(&self) -> bool {
        let failed = self.tally.failed && !self.options.keep_going;
        self.tally.cancelled || self.tally.superseded || failed
    }
}
