//! The thread that beats for every lease that an open store holds.
//!
//! Promises: a beat goes through the file that was made when the lease was taken, so it can never touch
//! the file of whoever took the lease over; a beat that came too late (the process was frozen for longer
//! than it may count on its lease) is not made, so that a lost lease stays lost.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::Pace;
use super::owner::Content;
use crate::disk::Disk;

/// What beats.
#[derive(Debug)]
pub(super) struct Beating {
    pace: Pace,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    /// By their ids: a name may be lost and taken again.
    leases: BTreeMap<String, One>,
    /// Whether the thread runs.
    runs: bool,
}

#[derive(Debug)]
struct One {
    path: PathBuf,
    file: File,
    content: Content,
    /// When the last beat was made.
    last: Duration,
    disk: Disk,
}

/// Time since the machine started, sleep included: a suspended machine's leases are gone when it wakes. Where
/// that is not told (macOS), time since this process first asked.
pub(super) fn now() -> Duration {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let told = std::fs::read_to_string("/proc/uptime").ok();
    let seconds = told.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    match seconds {
        Some(seconds) => Duration::from_secs_f64(seconds),
        None => FIRST.get_or_init(Instant::now).elapsed(),
    }
}

impl Beating {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            pace,
            held: Arc::default(),
        }
    }

    /// Beats for the lease at `path` from now on, which was just taken.
    pub(super) fn add(&self, path: &Path, file: File, content: Content, disk: &Disk) {
        let mut held = lock(&self.held);
        let id = content.id.clone();
        let one = One {
            path: path.to_owned(),
            file,
            content,
            last: now(),
            disk: disk.clone(),
        };
        held.leases.insert(id, one);
        if !std::mem::replace(&mut held.runs, true) {
            let (held, pace) = (Arc::downgrade(&self.held), self.pace);
            std::thread::spawn(move || run(&held, pace));
        }
    }

    /// Beats no more.
    pub(super) fn remove(&self, id: &str) {
        lock(&self.held).leases.remove(id);
    }

    /// Beats for a lease that did not for too long. Whether it is still one's own is looked at after: who
    /// is about to take it over sees the beat, or has it already.
    pub(super) fn revive(&self, id: &str) -> io::Result<()> {
        match lock(&self.held).leases.get_mut(id) {
            Some(one) => one.beat(),
            None => Ok(()),
        }
    }

    /// Whether any lease at `path` beats through here.
    pub(super) fn holds(&self, path: &Path) -> bool {
        lock(&self.held).leases.values().any(|one| one.path == path)
    }

    /// When the last beat was made.
    pub(super) fn last(&self, id: &str) -> Option<Duration> {
        lock(&self.held).leases.get(id).map(|one| one.last)
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends when the store is closed, or when nothing is held.
fn run(held: &Weak<Mutex<Held>>, pace: Pace) {
    loop {
        std::thread::sleep(pace.beat);
        let Some(held) = held.upgrade() else { return };
        let mut held = lock(&held);
        if held.leases.is_empty() {
            held.runs = false;
            return;
        }
        for one in held.leases.values_mut() {
            if now().saturating_sub(one.last) < pace.trust() {
                // One that fails is followed by others, as long as there is time.
                let _late = one.beat();
            }
        }
    }
}

impl One {
    fn beat(&mut self) -> io::Result<()> {
        self.content.beat();
        let bytes = self.content.bytes();
        self.disk.overwrite(&self.file, &self.path, &bytes)?;
        // To the server, where others see it.
        self.disk.sync_open(&self.file, &self.path)?;
        self.last = now();
        Ok(())
    }
}
