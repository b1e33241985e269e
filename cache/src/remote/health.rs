//! How well a remote does: repeating with back-off, counting faults, leaving it alone.
//!
//! Promises: a request is repeated while that may help; after faults enough in a row (of all
//! requests together, with none answered in between) the remote is left alone until the end,
//! so a dead one costs seconds and not a time-out a stage; what went wrong is told once, by
//! kind, with how often.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::objects::{Refusal, RefusalKind};
use crate::stat;

/// Tries of one request. Where every second one fails, this many fail once in 16 million.
const TRIES: u32 = 24;
/// The pause after the first fault; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// Faults in a row, by their weight, after which a remote is left alone.
const ENOUGH: u32 = 20;
/// A pause is slept in pieces, to hear that it is to stop.
const NAP: Duration = Duration::from_millis(25);

/// What went wrong with a remote, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFault {
    /// Stable code.
    pub code: String,
    /// The first cause of its kind.
    pub cause: String,
    /// How to mend it.
    pub mend: String,
    /// How often.
    pub count: usize,
}

/// See the module.
pub(super) struct Health {
    state: Mutex<State>,
    stopped: AtomicBool,
    until: Option<Instant>,
    /// Never shown in a cause.
    secrets: Vec<String>,
}

#[derive(Default)]
struct State {
    /// Weight of the faults since the last answer.
    in_a_row: u32,
    left_alone: bool,
    /// By code: how often, and the first cause.
    faults: BTreeMap<&'static str, (usize, String)>,
    chance: u64,
}

impl Health {
    pub(super) fn new(mut secrets: Vec<String>, patience: Option<Duration>) -> Self {
        // One that begins another must leave no tail.
        secrets.retain(|secret| !secret.is_empty());
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self {
            state: Mutex::new(State {
                chance: stat::now() as u64 | 1,
                ..State::default()
            }),
            stopped: AtomicBool::new(false),
            until: patience.map(|patience| Instant::now() + patience),
            secrets,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Repeats a request until it is answered or that makes no sense any more.
    pub(super) fn request<T>(
        &self,
        mut one: impl FnMut() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            self.may_go_on()?;
            let refusal = match one() {
                Ok(answer) => {
                    self.state().in_a_row = 0;
                    return Ok(answer);
                }
                Err(refusal) => self.note(refusal),
            };
            if !refusal.passing() || attempt == TRIES {
                return Err(refusal);
            }
            self.sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        unreachable!("tries are counted without end")
    }

    /// Whether a request makes sense at all.
    pub(super) fn may_go_on(&self) -> Result<(), Refusal> {
        let stopped = |why: &str| Err(Refusal::new(RefusalKind::Stopped, why));
        if self.stopped.load(Ordering::Relaxed) {
            return stopped("it was told to stop");
        }
        if self.until.is_some_and(|until| Instant::now() > until) && !self.left_alone() {
            self.count("remote::timeout", "there was no time to ask for everything");
            self.state().left_alone = true;
        }
        if self.left_alone() {
            return stopped("the remote is left alone");
        }
        Ok(())
    }

    /// Counts a refusal; gives it back without secrets.
    pub(super) fn note(&self, mut refusal: Refusal) -> Refusal {
        for secret in &self.secrets {
            refusal.cause = refusal.cause.replace(secret.as_str(), "***");
        }
        if refusal.kind == RefusalKind::Stopped {
            return refusal;
        }
        self.count(refusal.code(), &refusal.cause);
        let mut state = self.state();
        state.in_a_row += refusal.weight();
        state.left_alone |= state.in_a_row >= ENOUGH;
        refusal
    }

    /// Counts something that is wrong at the remote, though it answers.
    pub(super) fn count(&self, code: &'static str, cause: &str) {
        let mut state = self.state();
        let fault = state.faults.entry(code).or_default();
        if fault.0 == 0 {
            cause.clone_into(&mut fault.1);
        }
        fault.0 += 1;
    }

    fn sleep(&self, pause: Duration) {
        // Less up to half, so that those who failed together do not come back together.
        let mut state = self.state();
        state.chance ^= state.chance << 13;
        state.chance ^= state.chance >> 7;
        state.chance ^= state.chance << 17;
        let share = (state.chance % 1000) as f64 / 2000.0;
        drop(state);
        let end = Instant::now() + pause.mul_f64(1.0 - share);
        while Instant::now() < end && !self.stopped.load(Ordering::Relaxed) {
            std::thread::sleep(NAP.min(end.saturating_duration_since(Instant::now())));
        }
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn left_alone(&self) -> bool {
        self.state().left_alone
    }

    /// Everything that went wrong so far.
    pub(super) fn faults(&self) -> Vec<RemoteFault> {
        let state = self.state();
        let faults = state.faults.iter();
        let told = faults.map(|(code, (count, cause))| RemoteFault {
            code: (*code).to_owned(),
            cause: cause.clone(),
            mend: mend(code).to_owned(),
            count: *count,
        });
        told.collect()
    }
}

fn mend(code: &str) -> &'static str {
    match code {
        "remote::busy" => "it was tried again; if it goes on, look at the server or the network",
        "remote::unreachable" => "check the network, and the address under `remote:`",
        "remote::timeout" => "check the network; `remote: { timeout: 2m }` waits longer",
        "remote::denied" => {
            "check the credentials in the environment (docs/remote.md) and what they may do"
        }
        "remote::nowhere" => "make the bucket or folder, or mend the address under `remote:`",
        "remote::unable" => "such a store can only be read: set `push: false`",
        "remote::corrupt" => {
            "the bad object was not used; a run that pushes replaces it, or delete it there"
        }
        "remote::missing" => "somebody deleted it there; a run that pushes brings it back",
        "remote::own" => "check this machine's disk and run again",
        _ => "check that the address under `remote:` is that of an object store",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: RefusalKind) -> Refusal {
        Refusal::new(kind, "no, said SECRET1")
    }

    #[test]
    fn what_passes_is_tried_again_and_what_does_not_is_not() {
        let health = Health::new(Vec::new(), None);
        let mut tries = 0;
        let answer = health.request(|| {
            tries += 1;
            if tries < 4 {
                return Err(refused(RefusalKind::Passing));
            }
            Ok(tries)
        });
        assert_eq!(answer, Ok(4));
        let mut tries = 0;
        let denied = health.request(|| -> Result<(), _> {
            tries += 1;
            Err(refused(RefusalKind::Denied))
        });
        assert_eq!((denied.is_err(), tries), (true, 1));
        let counts = health.faults();
        let counts: Vec<_> = counts.iter().map(|f| (&*f.code, f.count)).collect();
        assert_eq!(counts, [("remote::busy", 3), ("remote::denied", 1)]);
    }

    #[test]
    fn a_dead_remote_is_left_alone_and_an_answer_forgives() {
        let health = Health::new(Vec::new(), None);
        let mut tries = 0;
        let dead = || -> Result<(), _> {
            tries += 1;
            Err(refused(RefusalKind::Unreachable))
        };
        assert!(health.request(dead).is_err());
        assert_eq!(tries, 5);
        assert!(health.left_alone());
        let later = health.request(|| Ok(()));
        assert_eq!(later.map_err(|r| r.kind), Err(RefusalKind::Stopped));

        let health = Health::new(Vec::new(), None);
        for round in 0..100 {
            let asked = health.request(|| -> Result<(), _> { Err(refused(RefusalKind::Denied)) });
            assert!(asked.is_err());
            assert_eq!(health.request(|| Ok(round)), Ok(round));
        }
        assert!(!health.left_alone());
    }

    #[test]
    fn secrets_are_in_no_cause() {
        let health = Health::new(vec!["SECRET".into(), "SECRET1".into()], None);
        let told = health.note(refused(RefusalKind::Denied));
        assert_eq!(told.cause, "no, said ***");
        assert_eq!(health.faults()[0].cause, "no, said ***");
    }
}
