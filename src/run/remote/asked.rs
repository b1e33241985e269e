//! Questions to the remote, before anything is made: a stage that would run is asked for first
//! (`Asking`). Found, its record alone settles what is below it (`Distant`).

use std::sync::Arc;

use cache::{KeyParts, Record, Remote};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::super::executor::Voice;
use super::super::job::{Job, Message};
use super::super::scheduler::{Scheduler, State};
use super::super::settle::outcome;
use super::far::{Away, Errand};
use super::link::answer;
use crate::event::Event;
use crate::plan::{Inputs, Question, Reason};

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

    pub(super) fn queue_if_it_may(&mut self, stage: usize, job: Job, reasons: &[Reason]) {
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
}

/// One question, when its turn comes.
pub(super) async fn asked(
    remote: Arc<Remote>,
    question: Question,
    voice: Voice,
    permits: Arc<Semaphore>,
) {
    let _permit = permits.acquire().await;
    let answer = spawn_blocking(move || answer(&remote, &question)).await;
    let record = answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    voice.tell(Message::Answered(record.map(Box::new)));
}
