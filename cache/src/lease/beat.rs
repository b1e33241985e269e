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
    leases: BTreeMap<PathBuf, One>,
    /// Whether the thread runs.
    runs: bool,
}

#[derive(Debug)]
struct One {
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
        let one = One {
            file,
            content,
            last: now(),
            disk: disk.clone(),
        };
        held.leases.insert(path.to_owned(), one);
        if !std::mem::replace(&mut held.runs, true) {
            let (held, pace) = (Arc::downgrade(&self.held), self.pace);
            std::thread::spawn(move || run(&held, pace));
        }
    }

    /// Beats no more.
    pub(super) fn remove(&self, path: &Path) {
        lock(&self.held).leases.remove(path);
    }

    /// When the last beat for `path` was made.
    pub(super) fn last(&self, path: &Path) -> Option<Duration> {
        lock(&self.held).leases.get(path).map(|one| one.last)
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
        for (path, one) in &mut held.leases {
            if now().saturating_sub(one.last) < pace.trust() && one.beat(path).is_ok() {
                one.last = now();
            }
        }
    }
}

impl One {
    fn beat(&mut self, path: &Path) -> io::Result<()> {
        self.content.beat();
        self.disk
            .overwrite(&self.file, path, &self.content.bytes())?;
        // To the server, where others see it.
        self.disk.sync_file(&self.file, path)
    }
}
