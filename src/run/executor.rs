//! One stage, from its key to its record: lock, prepare, run, commit; retries with back-off.
//!
//! Promises: a failed, cancelled or discarded try leaves no trace in the store but blobs
//! that nothing names; a second process waits for the first one's result; no try runs without the
//! key's lock.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache::{Digest, KeyLock, Made, Record, Ticket};
use stages::{Outcome, StageError, StageEvent};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::backoff;
use super::commit::{Locked, collect, keep, show};
use super::derive;
use super::job::{Failure, Job, Message, Performed};
use super::log::Log;
use super::pools::Held;
use super::prepare::{Prepared, prepare, stored};
use super::process::{Channel, Ended, Stop, supervise};
use super::worker::{self, Heard};
use crate::config::Action;

/// How often a lock held by another process is asked for.
pub(super) const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Where an executor tells what happens.
#[derive(Clone)]
pub(crate) struct Voice {
    pub(crate) stage: usize,
    pub(crate) to: mpsc::UnboundedSender<(usize, Message)>,
}

impl Voice {
    pub(crate) fn tell(&self, message: Message) {
        // The scheduler listens until every executor is done.
        let _gone = self.to.send((self.stage, message));
    }
}

/// Runs a stage to its end and tells it. `held` is what it was given to run with.
pub(crate) async fn perform(job: Arc<Job>, held: Held, voice: Voice, stop: watch::Receiver<Stop>) {
    let ended = one(&job, held, &voice, stop).await;
    voice.tell(Message::Ended(Box::new(ended)));
}

async fn one(
    job: &Arc<Job>,
    mut held: Held,
    voice: &Voice,
    mut stop: watch::Receiver<Stop>,
) -> Result<Performed, Failure> {
    let (lock, waited) = lock(job, voice, &mut stop).await?;
    let lock = Arc::new(Mutex::new(Some(lock)));
    if (waited || !job.forced)
        && let Some(record) = already(job, &job.key)?
    {
        return Ok(Performed::Taken(record));
    }
    if waited {
        held = wanting(voice, &mut stop).await?;
    }
    for attempt in 1.. {
        voice.tell(Message::Started {
            attempt,
            reasons: job.reasons.clone(),
        });
        let began = Instant::now();
        let error = match tried(job, &held, &lock, voice, attempt, stop.clone()).await {
            Ok((record, ticket)) => return Ok(Performed::Made(record, ticket)),
            Err(Failure::Cancelled) => return Err(Failure::Cancelled),
            Err(Failure::Error(error, _)) => error,
        };
        let millis = began.elapsed().as_millis() as u64;
        if !error.retryable || attempt > job.spec().limits.retries {
            return Err(Failure::Error(error, millis));
        }
        let pause = backoff::pause(&job.key, attempt);
        voice.tell(Message::TryFailed(error, millis, pause.as_millis() as u64));
        tokio::select! {
            () = sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop > Stop::No) => return Err(Failure::Cancelled),
        }
        held = wanting(voice, &mut stop).await?;
    }
    unreachable!("tries are counted without end")
}

/// Waits for slots once more.
async fn wanting(voice: &Voice, stop: &mut watch::Receiver<Stop>) -> Result<Held, Failure> {
    let (grant, granted) = oneshot::channel();
    voice.tell(Message::Wanting(grant));
    tokio::select! {
        // The scheduler drops the grant when nothing new is to start.
        held = granted => held.map_err(|_| Failure::Cancelled),
        _ = stop.wait_for(|stop| *stop > Stop::No) => Err(Failure::Cancelled),
    }
}

/// Waits for the key's lock; says once who holds it.
async fn lock(
    job: &Arc<Job>,
    voice: &Voice,
    stop: &mut watch::Receiver<Stop>,
) -> Result<(KeyLock, bool), Failure> {
    let mut waited = false;
    loop {
        match job.store.try_lock(&job.key) {
            Ok(Some(lock)) => return Ok((lock, waited)),
            Ok(None) => {}
            Err(error) => return Err(Failure::Error(stored(&error), 0)),
        }
        // Another stage of this run made it: it is to be had at once.
        if job.store.waits(&job.key) {
            blocking(job, |job| {
                job.store.place();
                Ok(())
            })
            .await?;
            continue;
        }
        if !std::mem::replace(&mut waited, true) {
            voice.tell(Message::Waiting(job.store.lock_holder(&job.key)));
        }
        tokio::select! {
            () = sleep(LOCK_PAUSE) => {}
            _ = stop.wait_for(|stop| *stop > Stop::No) => return Err(Failure::Cancelled),
        }
    }
}

/// A result that somebody else made since the plan was.
pub(super) fn already(job: &Job, key: &Digest) -> Result<Option<Record>, Failure> {
    let failed = |error: cache::Error| Failure::Error(stored(&error), 0);
    for record in job.store.records(key).map_err(failed)? {
        if job.store.present(&record).map_err(failed)? {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// One try.
async fn tried(
    job: &Arc<Job>,
    held: &Held,
    lock: &Locked,
    voice: &Voice,
    attempt: u32,
    stop: watch::Receiver<Stop>,
) -> Result<(Record, Ticket), Failure> {
    let started = jiff::Timestamp::now().to_string();
    let began = Instant::now();
    let mut log = Log::open(&job.log, job.mask(), attempt == 1);
    heading(job, held, &mut log, attempt);
    let derived = derive::all(job, voice, &mut log, &stop).await?;
    let devices = held.devices.clone();
    let prepared = blocking(job, move |job| prepare(job, &devices, &derived)).await?;
    let (outcome, prepared) = run(job, prepared, voice, &mut log, stop).await?;
    voice.tell(Message::Taking);
    let took = began.elapsed();
    let made = Made {
        started,
        millis: took.as_millis() as u64,
        host: super::host(),
        program: super::PROGRAM.to_owned(),
        revision: super::revision::revision(&job.pipeline.root),
        stage: job.spec().id.clone(),
        ..Made::default()
    };
    let (lock, voice) = (Arc::clone(lock), voice.clone());
    let taken = blocking(job, move |job| {
        let record = collect(job, &prepared, outcome, made)?;
        let ticket = keep(job, &record, &lock, took)?;
        show(job, &record, &voice);
        Ok((record, ticket, prepared))
    });
    let (record, ticket, prepared) = taken.await?;
    // Removing its folder holds nobody up; the run ends after it.
    spawn_blocking(move || drop(prepared));
    Ok((record, ticket))
}

/// Blocking work off the loop.
pub(super) async fn blocking<T: Send + 'static>(
    job: &Arc<Job>,
    work: impl FnOnce(&Job) -> Result<T, StageError> + Send + 'static,
) -> Result<T, Failure> {
    let job = Arc::clone(job);
    match spawn_blocking(move || work(&job)).await {
        Ok(done) => done.map_err(|error| Failure::Error(error, 0)),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

pub(super) async fn run(
    job: &Arc<Job>,
    prepared: Prepared,
    voice: &Voice,
    log: &mut Log,
    stop: watch::Receiver<Stop>,
) -> Result<(Outcome, Prepared), Failure> {
    if let Some(command) = &prepared.command {
        log.heading(&format!("run {command}"));
    }
    let builtin = matches!(job.spec().action, Action::Builtin { .. });
    let mut heard = Heard::default();
    let ended = supervise(&prepared.program, stop, |channel, line| {
        let said = match channel {
            Channel::Out if builtin => heard.line(&line),
            _ => Some(StageEvent::Log { text: line }),
        };
        if let Some(said) = said {
            if let Some(text) = logged(&said) {
                log.line(&text);
            }
            voice.tell(Message::Said(log.mask().event(said)));
        }
    })
    .await;
    let mask = log.mask().clone();
    let judged = judge(job, &prepared, ended, heard);
    match judged {
        Ok(outcome) => Ok((mask.outcome(outcome), prepared)),
        Err(Failure::Error(error, millis)) => {
            let error = mask.error(error);
            log.heading(&format!("failed: {}: {}", error.code, error.message));
            Err(Failure::Error(error, millis))
        }
        Err(Failure::Cancelled) => {
            log.heading("cancelled");
            Err(Failure::Cancelled)
        }
    }
}

fn heading(job: &Job, held: &Held, log: &mut Log, attempt: u32) {
    let spec = job.spec();
    let profile = &job.pipeline.profile;
    log.heading(&format!(
        "stage {} of profile {profile}, try {attempt}",
        spec.id
    ));
    log.heading(&format!("key {}", job.key));
    for reason in &job.reasons {
        log.heading(&format!("because {reason}"));
    }
    if !held.devices.is_empty() {
        log.heading(&format!("on GPU {}", held.devices.join(", ")));
    }
    if let Action::Builtin { stage, .. } = &spec.action {
        log.heading(&format!("uses {}", stage.kind()));
    }
}

/// What of an event belongs into the log.
fn logged(said: &StageEvent) -> Option<String> {
    match said {
        StageEvent::Log { text } => Some(text.clone()),
        StageEvent::Warning { code, text } => Some(format!("warning: {text} ({code})")),
        StageEvent::Sample { prompt, answer } => Some(format!("asked: {prompt}\nsays: {answer}")),
        StageEvent::Metric {
            name,
            step: Some(step),
            value,
        } => Some(format!("step {step}: {name} = {value}")),
        StageEvent::Metric { name, value, .. } => Some(format!("{name} = {value}")),
        StageEvent::Progress { .. } => None,
    }
}

/// What the program's end means.
fn judge(
    job: &Job,
    prepared: &Prepared,
    ended: std::io::Result<Ended>,
    heard: Heard,
) -> Result<Outcome, Failure> {
    let failed = |error: StageError| Failure::Error(error, 0);
    let status = match ended {
        Ok(Ended::Exit(status)) => status,
        Ok(Ended::Cancelled) => return Err(Failure::Cancelled),
        Ok(Ended::TimedOut(limit)) => {
            let error = StageError::new(
                "run::timeout",
                format!("`{}` took longer than {limit:?}", job.spec().id),
                "raise its `timeout`, or give it less to do",
            );
            return Err(failed(error.at("timeout").retryable()));
        }
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {
            let error = StageError::new(
                "run::killed",
                "the guard process was killed, and the stage's program with it",
                "run again; somebody outside sent the signal",
            );
            return Err(failed(error.retryable()));
        }
        Err(error) => return Err(failed(StageError::io(&prepared.program.folder, &error))),
    };
    match &job.spec().action {
        Action::Builtin { .. } => heard.ended(status).map_err(failed),
        Action::Shell { .. } if status.success() => Ok(Outcome::default()),
        Action::Shell { .. } => {
            let error = worker::died("the command", status);
            Err(failed(error.at("run").retryable()))
        }
    }
}
