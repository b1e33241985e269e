//! From the remote in a run: questions before anything is made, bytes when they are wanted.
//!
//! A stage that would run is asked for first (`Asking`). Found, its record alone settles what is
//! below it (`Distant`). Its bytes come (`Fetching`) when a stage that reads them is to run
//! (`Wanting` meanwhile), or when it is shown: it was named, or nothing selected reads it, or `out/`
//! shows an older result of it. Bytes that cannot be had are made anew; should others come out, the run is planned once more, for
//! what was settled below them no longer holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use cache::{KeyParts, Moved, Record, Remote, Store, Unmoved};
use stages::StageError;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};

use super::super::claims;
use super::super::executor::Voice;
use super::super::job::{Job, Message};
use super::super::log::bring_back;
use super::super::scheduler::{Scheduler, State};
use super::super::settle::outcome;
use super::link::{Link, Pushing, answer};
use super::push::{Meter, Push, Pusher};
use super::pushed::Pushed;
use super::words::complaints;
use crate::config::Fault;
use crate::event::Event;
use crate::plan::{Inputs, Origin, Question, Reason};

/// Questions under way at the same time.
const QUESTIONS: usize = 16;
/// Results that are fetched at the same time, each with several blobs.
const FETCHES: usize = 4;

/// What is to be done about the remote as soon as the loop turns.
enum Errand {
    Ask(usize, Question),
    Fetch(usize, Box<Record>),
}

/// A stage that waits for an answer, or whose bytes are far away.
struct Away {
    job: Job,
    reasons: Vec<Reason>,
    record: Option<Record>,
}

/// All that a run knows of its remote.
pub(in super::super) struct Far {
    pub(in super::super) link: Link,
    errands: Vec<Errand>,
    /// Questions and fetches without an end yet, and pushes.
    under_way: usize,
    pub(in super::super) asking: usize,
    away: BTreeMap<usize, Away>,
    /// Stages that wait for bytes of others.
    wanting: BTreeMap<usize, (Job, BTreeSet<usize>)>,
    /// Stages that are made although a record of theirs was found.
    remade: BTreeSet<usize>,
    /// A remade stage came out with other bytes: everything is to be planned anew.
    pub(in super::super) again: bool,
    permits: (Arc<Semaphore>, Arc<Semaphore>),
    pushing: bool,
    pushed: Option<Pushed>,
    to_push: Vec<(usize, Record)>,
    pusher: Option<Pusher>,
    told: Told,
}

/// What moved in the whole run.
#[derive(Default)]
struct Told {
    pulled: usize,
    pulled_bytes: u64,
    pushed: usize,
    pushed_bytes: u64,
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
    fn remote(&self) -> Option<&Arc<Remote>> {
        self.link.remote().filter(|remote| !remote.left_alone())
    }
}

impl Scheduler<'_> {
    /// A stage that would run: asked for at the remote, or queued.
    pub(in super::super) fn ask_or_queue(
        &mut self,
        stage: usize,
        key: cache::Digest,
        parts: KeyParts,
        inputs: Inputs,
        reasons: Vec<Reason>,
    ) {
        let question = self.planner.question(stage, key, &parts, &reasons);
        let told = reasons.iter().map(ToString::to_string).collect();
        let job = self.job(stage, key, parts, inputs, told);
        match question {
            Some(question) if self.far.remote().is_some() => {
                self.set(stage, State::Asking);
                self.far.asking += 1;
                self.far.errands.push(Errand::Ask(stage, question));
                let record = None;
                self.far.away.insert(
                    stage,
                    Away {
                        job,
                        reasons,
                        record,
                    },
                );
            }
            _ => self.queue_if_it_may(stage, job, &reasons),
        }
    }

    fn queue_if_it_may(&mut self, stage: usize, job: Job, reasons: &[Reason]) {
        match self.planner.may_run(stage, reasons) {
            Ok(()) => self.queue(stage, job),
            Err(error) => self.undecided(stage, &error),
        }
    }

    /// The last result, left at the remote by an earlier run.
    pub(in super::super) fn left_there(&mut self, stage: usize, record: Record, inputs: Inputs) {
        let (key, parts) = (record.key, record.parts.clone());
        let job = self.job(stage, key, parts, inputs, Vec::new());
        let reasons = Vec::new();
        let away = Away {
            job,
            reasons,
            record: None,
        };
        self.far.away.insert(stage, away);
        self.distant(stage, record, true);
    }

    /// The remote's answer.
    pub(in super::super) fn answered(&mut self, stage: usize, record: Option<Record>) {
        self.far.under_way -= 1;
        self.far.asking -= 1;
        if !matches!(self.states[stage], State::Asking) {
            return;
        }
        if let Some(record) = record {
            self.distant(stage, record, false);
        } else {
            let away = self.far.away.remove(&stage);
            let Away { job, reasons, .. } = away.expect("who asks is away");
            self.queue_if_it_may(stage, job, &reasons);
        }
        self.advance();
    }

    /// A record settles what is below it; bytes come when they are wanted.
    fn distant(&mut self, stage: usize, record: Record, known: bool) {
        let outcome = outcome(&record);
        self.tally.fresh += 1;
        self.say(Event::StageFresh {
            stage: self.id(stage),
            metrics: outcome.metrics.clone(),
            restored: !known,
            remote: true,
            made_millis: record.made.millis,
            made_at: record.made.started.clone(),
            key: record.key.hex(),
        });
        let away = self.far.away.get_mut(&stage).expect("it is away");
        let lost = |reason: &Reason| matches!(reason, Reason::Lacking { .. });
        let lost = away.reasons.iter().any(lost);
        away.record = Some(record.clone());
        self.settle_as(stage, &record, &outcome, State::Distant);
        let below = self.project.graph.children(stage);
        let read = below.iter().any(|child| self.inside[*child]);
        let id = &self.spec(stage).id;
        let named = self.options.targets.contains(id);
        // What `out/` shows must not be older than what counts.
        let shown = self.project.results().join(id).exists();
        if lost || named || shown || !read {
            self.fetch(stage);
        }
    }

    /// Wants the bytes of a stage that is away.
    fn fetch(&mut self, stage: usize) {
        let away = self.far.away.get(&stage).expect("it is away");
        let record = away.record.clone().expect("its record was found");
        self.set(stage, State::Fetching);
        if self.far.remote().is_some() {
            self.far
                .errands
                .push(Errand::Fetch(stage, Box::new(record)));
        } else {
            self.unfetched(stage, "the remote is left alone");
        }
    }

    /// Bytes came, or did not.
    pub(in super::super) fn fetched(
        &mut self,
        stage: usize,
        outcome: Result<(Record, Moved), Unmoved>,
        millis: u64,
    ) {
        self.far.under_way -= 1;
        match outcome {
            Ok((record, moved)) => {
                self.far.told.pulled += 1;
                self.far.told.pulled_bytes += moved.bytes;
                self.say(Event::StagePulled {
                    stage: self.id(stage),
                    blobs: moved.blobs,
                    bytes: moved.bytes,
                    millis,
                });
                self.far.away.remove(&stage);
                if let Err(error) = self.planner.settle(stage, &record) {
                    self.notice(error.code(), error.to_string());
                }
                self.set(stage, State::Settled);
                self.show(stage, &record, false);
                let log = self.project.log(&self.spec(stage).id);
                bring_back(&log, &record, &self.project.store);
                self.bytes_came(stage);
            }
            // Nothing new begins: its record counts, and the next run fetches it.
            Err(_) if self.tally.cancelled => self.set(stage, State::Distant),
            Err(error) => self.unfetched(stage, &error.to_string()),
        }
        self.advance();
    }

    /// Bytes that cannot be had: the stage runs.
    fn unfetched(&mut self, stage: usize, because: &str) {
        let away = self.far.away.remove(&stage).expect("it is away");
        self.tally.fresh -= 1;
        let reason = Reason::Unfetched {
            because: because.to_owned(),
        };
        let text = format!("`{}` is to run: {reason}", self.id(stage));
        self.notice("remote::not-fetched", text);
        let mut job = away.job;
        job.reasons = vec![reason.to_string()];
        self.far.remade.insert(stage);
        if self.closed() {
            self.skip(stage, "nothing new is begun");
            self.nothing_comes(stage, "nothing new is begun");
            return;
        }
        // Looked at only now, for nobody thought that it would run.
        let pipeline = &self.project.pipeline;
        let machine = self.machine.as_ref();
        let room = machine.map(|machine| claims::check(pipeline, &[stage], machine));
        if let Some(Err(faults)) = room {
            let Fault {
                code,
                message,
                mend,
                ..
            } = &faults.items[0];
            let error = StageError::new(code, message, mend).at("resources");
            self.failed(stage, error, 0);
            return;
        }
        self.queue_if_it_may(stage, job, &[reason]);
    }

    /// Whether a job has to wait for bytes; then it does.
    pub(in super::super) fn wants(&mut self, stage: usize, job: Job) -> Option<Job> {
        let items = job.inputs.values().flatten();
        let above = items.filter_map(|item| match item.origin {
            Origin::Product { stage, .. } => Some(stage),
            Origin::Path { .. } => None,
        });
        let here = |above: &usize| matches!(self.states[*above], State::Settled);
        let wanted: BTreeSet<usize> = above.filter(|above| !here(above)).collect();
        if wanted.is_empty() {
            return Some(job);
        }
        let gone = |above: &&usize| {
            matches!(
                self.states[**above],
                State::Failed | State::People | State::Skipped
            )
        };
        if let Some(gone) = wanted.iter().find(gone) {
            let because = format!("`{}` has no bytes", self.id(*gone));
            self.skip(stage, &because);
            self.skip_below(stage, &because);
            return None;
        }
        self.set(stage, State::Wanting);
        self.far.wanting.insert(stage, (job, wanted.clone()));
        for above in wanted {
            if matches!(self.states[above], State::Distant) {
                self.fetch(above);
            }
        }
        None
    }

    /// Who waited for the bytes of `stage` may go on.
    fn bytes_came(&mut self, stage: usize) {
        for (_, wanted) in self.far.wanting.values_mut() {
            wanted.remove(&stage);
        }
        let free = self
            .far
            .wanting
            .iter()
            .filter(|(_, (_, wanted))| wanted.is_empty());
        let free: Vec<usize> = free.map(|(stage, _)| *stage).collect();
        for stage in free {
            let (job, _) = self.far.wanting.remove(&stage).expect("it was just there");
            self.queue(stage, job);
        }
    }

    /// Who waited for the bytes of `stage` waits in vain.
    pub(in super::super) fn nothing_comes(&mut self, stage: usize, because: &str) {
        let vain = self.far.wanting.iter();
        let vain = vain.filter(|(_, (_, wanted))| wanted.contains(&stage));
        let vain: Vec<usize> = vain.map(|(stage, _)| *stage).collect();
        for stage in vain {
            self.far.wanting.remove(&stage);
            self.skip(stage, because);
            self.skip_below(stage, because);
            self.nothing_comes(stage, because);
        }
    }

    /// A stage that was settled by a record was made after all. `true` if it is no such stage.
    pub(in super::super) fn first_time(&mut self, stage: usize, record: &Record) -> bool {
        if !self.far.remade.remove(&stage) {
            return true;
        }
        if self.settled.get(&stage) == Some(&record.outputs) {
            self.bytes_came(stage);
            return false;
        }
        self.far.again = true;
        self.tally.superseded = true;
        let because = format!(
            "`{}` came out with other bytes than the remote's record says: planned anew",
            self.id(stage)
        );
        self.notice("remote::other-bytes", because.clone());
        self.drop_queued(&because);
        false
    }

    /// Stages that wait for the remote, when nothing new is to begin.
    pub(in super::super) fn drop_away(&mut self, because: &str) {
        for stage in std::mem::take(&mut self.far.wanting).into_keys() {
            self.skip(stage, because);
        }
        for stage in self.selected.clone() {
            if matches!(self.states[stage], State::Asking) {
                self.far.away.remove(&stage);
                self.skip(stage, because);
            }
        }
    }

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
    fn closed(&self) -> bool {
        let failed = self.tally.failed && !self.options.keep_going;
        self.tally.cancelled || self.tally.superseded || failed
    }
}

async fn asked(remote: Arc<Remote>, question: Question, voice: Voice, permits: Arc<Semaphore>) {
    let _permit = permits.acquire().await;
    let answer = spawn_blocking(move || answer(&remote, &question)).await;
    let record = answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    voice.tell(Message::Answered(record.map(Box::new)));
}

async fn pulled(
    remote: Arc<Remote>,
    store: Arc<Store>,
    record: Record,
    voice: Voice,
    permits: Arc<Semaphore>,
) {
    let _permit = permits.acquire().await;
    let began = Instant::now();
    let teller = voice.clone();
    let pulled = spawn_blocking(move || {
        let meter = Meter::of(&record);
        bring(&remote, &store, &record, &|bytes| {
            if let Some((moved, total)) = meter.moved(bytes) {
                teller.tell(Message::Pulling(moved, total));
            }
        })
    });
    let outcome = pulled.await;
    let outcome = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    let millis = began.elapsed().as_millis() as u64;
    let outcome = outcome.map(|brought| (brought.record, brought.moved));
    voice.tell(Message::Fetched(Box::new(outcome), millis));
}

/// A result that was fetched.
pub struct Brought {
    /// Its record, as it is at the remote.
    pub record: Record,
    /// What moved.
    pub moved: Moved,
}

/// Fetches a result into the store. Blocks.
///
/// What is known of a last result lacks its log, so the record is asked for once more; where it
/// cannot be had, what is known will do.
pub fn bring(
    remote: &Remote,
    store: &Store,
    record: &Record,
    seen: &cache::Seen<'_>,
) -> Result<Brought, Unmoved> {
    let whole = match record.made.log {
        Some(_) => None,
        None => remote.find(&record.key, Some(&record.result())),
    };
    let record = whole.unwrap_or_else(|| record.clone());
    let moved = remote.pull(store, &record, seen)?;
    Ok(Brought { record, moved })
}
