//! `run --watch`: runs, looks at what the run reads, runs again when it changed.
//!
//! Promises: a change that is made at any moment is not missed; a burst of changes is one; a
//! running stage whose key is no longer what would be asked for is ended (its checkpoints
//! stay), one whose key stands ends in peace and its result counts; `pipeline.lock` is not written and
//! nothing acts outside. What outside sources resolved to is remembered while it watches.
//!
//! It looks at sizes and times every fifth of a second, more rarely where that takes long. The
//! kernel's notices (inotify) were not taken: they do not come from network file systems nor
//! from the host of a virtual machine, end at a limit of watched folders, and must be looked
//! after all the same; looking at 1,000 files costs a few milliseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use walkdir::WalkDir;

use super::scheduler::Scheduler;
use super::signals::Signals;
use super::{OpenError, Options, Project, RunError, Verdict, link, planner, selection};
use crate::config::Reference;
use crate::event::{Envelope, Event};
use crate::lock::Lock;
use crate::plan::{self, Decision, Planner, Settled};

/// How often files are looked at.
const OFTEN: Duration = Duration::from_millis(200);

/// The share of the time that looking may take.
const SHARE: u32 = 20;

/// Files that hold still for so long are looked at as changed.
const STILL: Duration = Duration::from_millis(150);

/// Files that never hold still are taken as they are after so long.
const RESTLESS: Duration = Duration::from_secs(3);

/// Why a round could not be.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    /// The project cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be run.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Reads the project anew.
type Reopen = Box<dyn Fn() -> Result<Project, OpenError>>;

/// Who tells a running scheduler of changes.
pub(crate) struct Watching {
    changes: mpsc::UnboundedReceiver<Vec<PathBuf>>,
    reopen: Reopen,
    /// Whether something changed since the round began.
    seen: bool,
    /// What outside sources resolved to.
    pins: Lock,
}

/// Something changed.
pub(crate) struct Change {
    paths: Vec<PathBuf>,
    /// The project as it is now, if it is not at fault.
    project: Option<Project>,
}

impl Watching {
    /// Waits for a change. Cancel-safe.
    pub(super) async fn changed(&mut self) -> Option<Change> {
        let paths = self.changes.recv().await?;
        self.seen = true;
        Some(Change {
            paths,
            project: self.open().ok(),
        })
    }

    fn open(&self) -> Result<Project, OpenError> {
        let mut project = (self.reopen)()?;
        // What the file pins wins: it may have been changed meanwhile.
        let written = project.lock.pins();
        project.lock.merge(&self.pins);
        project.lock.merge(&written);
        Ok(project)
    }
}

/// Runs and watches until it is cancelled. `file` is the pipeline file, `reopen` reads the
/// project anew; what is wrong with a later round goes to `complain`, with the first ends it.
pub fn watch(
    file: &Path,
    reopen: impl Fn() -> Result<Project, OpenError> + 'static,
    options: &Options,
    tell: &mut dyn FnMut(&Envelope),
    complain: &mut dyn FnMut(Halt),
) -> Result<Verdict, Halt> {
    let (eyes, changes) = Eyes::open(file);
    let mut watching = Watching {
        changes,
        reopen: Box::new(reopen),
        seen: false,
        pins: Lock::default(),
    };
    for round in 0_u64.. {
        // From here on nothing is missed, and what changed before is about to be read.
        eyes.look();
        while watching.changes.try_recv().is_ok() {}
        watching.seen = false;
        match one_round(&eyes, options, &mut watching, tell) {
            Ok(Verdict::Cancelled) => return Ok(Verdict::Cancelled),
            Ok(Verdict::Superseded) => continue,
            Ok(_) => {}
            Err(halt) if round == 0 => return Err(halt),
            Err(halt) => complain(halt),
        }
        if watching.seen {
            continue;
        }
        tell(&Envelope {
            at: 0,
            event: Event::Watching {
                paths: eyes.paths(),
            },
        });
        if !idle(&mut watching, tell)? {
            return Ok(Verdict::Cancelled);
        }
    }
    unreachable!("rounds are counted without end")
}

fn one_round(
    eyes: &Eyes,
    options: &Options,
    watching: &mut Watching,
    tell: &mut dyn FnMut(&Envelope),
) -> Result<Verdict, Halt> {
    let project = watching.open()?;
    let selected = selection(&project, options).map_err(RunError::Faults)?;
    eyes.look_at(inputs(&project, &selected));
    let link = link(&project, options, None);
    let planner = planner(&project, options, &link, &selected, false);
    let eyes = Some(&mut *watching);
    let mut scheduler = Scheduler::new(&project, options, planner, link, selected, tell, eyes);
    let verdict = scheduler.run()?;
    let pins = scheduler.locked().pins();
    drop(scheduler);
    watching.pins.merge(&pins);
    Ok(verdict)
}

/// Everything local that the selected stages read, the pipeline file and its lock.
fn inputs(project: &Project, selected: &[usize]) -> BTreeSet<PathBuf> {
    let pipeline = &project.pipeline;
    let specs = selected.iter().map(|stage| &pipeline.stages[*stage]);
    let references = specs
        .flat_map(|spec| &spec.inputs)
        .flat_map(|input| &input.references);
    let paths = references.filter_map(|reference| match reference {
        Reference::Path(path) => Some(pipeline.root.join(path)),
        Reference::Product { .. } => None,
    });
    paths
        .chain([pipeline.file.clone(), project.lock_file()])
        .collect()
}

/// Waits for a change; false when it was cancelled.
fn idle(watching: &mut Watching, tell: &mut dyn FnMut(&Envelope)) -> Result<bool, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    runtime.block_on(async {
        let mut signals = Signals::new().map_err(RunError::Runtime)?;
        tokio::select! {
            () = signals.next() => Ok(false),
            paths = watching.changes.recv() => {
                let event = Event::InputsChanged {
                    paths: paths.unwrap_or_default(),
                    ended: Vec::new(),
                };
                tell(&Envelope { at: 0, event });
                Ok(true)
            }
        }
    })
}

impl Scheduler<'_> {
    /// Something changed while stages run: ends those that would not be asked for any more,
    /// and starts nothing new.
    pub(super) fn look_again(&mut self, change: Change) {
        const BECAUSE: &str = "what it reads changed meanwhile";
        let keys = change.project.as_ref().map(|project| self.keys(project));
        let running = self.running.iter();
        let stale: Vec<usize> = running
            .filter(|(stage, running)| {
                // A pipeline at fault says nothing about what runs.
                keys.as_ref()
                    .is_some_and(|keys| keys.get(&self.id(**stage)) != Some(&running.key))
            })
            .map(|(stage, _)| *stage)
            .collect();
        self.say(Event::InputsChanged {
            paths: change.paths,
            ended: self.ids(&stale),
        });
        if keys.is_none() {
            return;
        }
        self.tally.superseded = true;
        self.drop_queued(BECAUSE);
        for stage in stale {
            self.end(stage, BECAUSE);
        }
    }

    /// The keys that would be asked for now, as far as they are known, by stage id.
    fn keys(&self, project: &Project) -> BTreeMap<String, cache::Digest> {
        let asked = plan::Options {
            frozen: self.options.frozen,
            preview: true,
            remote: self.far.link.is_there(),
            ..plan::Options::default()
        };
        let mut planner = Planner::new(&project.pipeline, &project.store, &project.lock, asked);
        let mut settled = Settled::new();
        let mut keys = BTreeMap::new();
        for stage in project.graph.order().iter().copied() {
            let key = match planner.decide(stage, &settled) {
                Ok(Decision::Fresh { record, .. } | Decision::Remote { record, .. }) => {
                    settled.insert(stage, record.outputs);
                    record.key
                }
                Ok(
                    Decision::Run { key, .. }
                    | Decision::People { key, .. }
                    | Decision::Ready { key, .. },
                ) => key,
                Ok(Decision::Waiting { .. }) | Err(_) => continue,
            };
            keys.insert(project.pipeline.stages[stage].id.clone(), key);
        }
        keys
    }
}

/// Looks at files from a thread of its own.
struct Eyes {
    looked: Arc<Mutex<Looked>>,
}

/// What was seen last, by path.
#[derive(Default)]
struct Looked {
    marks: BTreeMap<PathBuf, blake3::Hash>,
}

impl Eyes {
    /// Looks at the pipeline file alone, at first.
    fn open(file: &Path) -> (Self, mpsc::UnboundedReceiver<Vec<PathBuf>>) {
        let (to, changes) = mpsc::unbounded_channel();
        let looked = Looked {
            marks: BTreeMap::from([(file.to_owned(), mark(file))]),
        };
        let looked = Arc::new(Mutex::new(looked));
        let own = Arc::downgrade(&looked);
        std::thread::spawn(move || {
            let mut pause = OFTEN;
            loop {
                std::thread::sleep(pause);
                let Some(looked) = own.upgrade() else { return };
                let began = Instant::now();
                let mut looked = held(&looked);
                let changed = looked.look();
                pause = OFTEN.max(began.elapsed() * SHARE);
                if changed.is_empty() {
                    continue;
                }
                let changed = looked.settle(changed);
                // Told while nobody can look: what is told later is newer.
                if to.send(changed).is_err() {
                    return;
                }
            }
        });
        (Self { looked }, changes)
    }

    /// Takes everything as it is now.
    fn look(&self) {
        held(&self.looked).look();
    }

    /// Looks at these from now on; what was looked at already stays as it was seen.
    fn look_at(&self, paths: BTreeSet<PathBuf>) {
        let mut looked = held(&self.looked);
        let known = std::mem::take(&mut looked.marks);
        let marks = paths.into_iter().map(|path| {
            let mark = known.get(&path).copied().unwrap_or_else(|| mark(&path));
            (path, mark)
        });
        looked.marks = marks.collect();
    }

    fn paths(&self) -> usize {
        held(&self.looked).marks.len()
    }
}

fn held(looked: &Mutex<Looked>) -> MutexGuard<'_, Looked> {
    looked.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Looked {
    /// Looks anew; the paths that changed.
    fn look(&mut self) -> BTreeSet<PathBuf> {
        let mut changed = BTreeSet::new();
        for (path, seen) in &mut self.marks {
            let now = mark(path);
            if std::mem::replace(seen, now) != now {
                changed.insert(path.clone());
            }
        }
        changed
    }

    /// Waits until files hold still.
    fn settle(&mut self, mut changed: BTreeSet<PathBuf>) -> Vec<PathBuf> {
        let began = Instant::now();
        while began.elapsed() < RESTLESS {
            std::thread::sleep(STILL);
            let more = self.look();
            if more.is_empty() {
                break;
            }
            changed.extend(more);
        }
        changed.into_iter().collect()
    }
}

/// Names, sizes, times and numbers of a file or of everything in a folder.
fn mark(path: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let walk = WalkDir::new(path).follow_links(true).sort_by_file_name();
    for entry in walk {
        let Ok(entry) = entry else {
            hasher.update(b"unreadable");
            continue;
        };
        hasher.update(entry.path().as_os_str().as_encoded_bytes());
        if let Ok(meta) = entry.metadata() {
            // A folder's own times change with files that are there for a moment only.
            let numbers = if meta.is_dir() {
                [0; 7]
            } else {
                [
                    meta.len() as i64,
                    meta.mtime(),
                    meta.mtime_nsec(),
                    meta.ctime(),
                    meta.ctime_nsec(),
                    meta.ino() as i64,
                    i64::from(meta.mode()),
                ]
            };
            for number in numbers {
                hasher.update(&number.to_le_bytes());
            }
        }
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::mark;

    #[test]
    fn edits_names_and_absence_leave_other_marks() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        let nothing = mark(&folder);
        fs::create_dir(&folder).unwrap();
        let empty = mark(&folder);
        fs::write(folder.join("a"), "1").unwrap();
        let one = mark(&folder);
        fs::write(folder.join("a"), "22").unwrap();
        let edited = mark(&folder);
        fs::rename(folder.join("a"), folder.join("b")).unwrap();
        let renamed = mark(&folder);
        assert_eq!(mark(&folder), renamed);
        let all = [nothing, empty, one, edited, renamed];
        for (at, mark) in all.iter().enumerate() {
            assert!(!all[..at].contains(mark), "{at}");
        }
    }
}
