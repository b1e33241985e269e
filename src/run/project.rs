//! A project: its pipeline, its graph, its lock and its store, open.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cache::{Index, Locking, Opening, Pace, Store};

use super::ahead::{Ahead, beside};
use super::local::index_folder;
use crate::config::{Fault, Faults, Overrides, Pipeline, Remembered, RemoteSpec, StoreSpec, User};
use crate::graph::{self, Graph};
use crate::lock::{self, Lock};
use crate::plan::Last;

/// Everything a command works on.
pub struct Project {
    /// The pipeline under one profile.
    pub pipeline: Arc<Pipeline>,
    /// Its graph.
    pub graph: Graph,
    /// What `pipeline.lock` says.
    pub lock: Lock,
    /// The store.
    pub store: Arc<Store>,
    /// What is said about the store: by the environment, the pipeline, the user.
    pub spec: StoreSpec,
    /// What is said about the remote, likewise.
    pub remote: RemoteSpec,
    /// Last results that were read ahead.
    last: Mutex<Option<Last>>,
}

/// Why a project cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The pipeline or the lock is at fault.
    #[error(transparent)]
    Faults(#[from] Faults),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] cache::Error),
}

/// The folder of run-time state beside a pipeline file.
pub fn home(pipeline: &Pipeline) -> PathBuf {
    pipeline.root.join(super::HOME)
}

/// The folder of results beside a pipeline file.
pub(super) const OUT: &str = "out";

/// What the parser made of the pipeline, below the folder of run-time state.
const PARSED: &str = "parsed";

/// The variable that says how a store is locked: `lease`, `flock`.
const LOCKS: &str = "TUNESMITH_LOCKS";

/// The variable that names a shared store.
const STORE: &str = "TUNESMITH_STORE";

/// The pipeline's store, and what is said about it and about the remote. A checkout that shares its
/// store registers there, so that nothing it needs is collected. `index` is that of the checkout's
/// own store, if it was read already.
pub fn open_store(
    pipeline: &Pipeline,
    index: Option<Index>,
) -> Result<(Store, StoreSpec, RemoteSpec), OpenError> {
    let env = |name: &str| std::env::var(name).ok();
    let user = User::read(&env)?;
    let remote = super::remote::spec_of(&pipeline.remote, user.remote, &pipeline.root)?;
    let mut spec = pipeline.store.clone().or(user.store);
    if let Some(path) = env(STORE).filter(|path| !path.is_empty()) {
        spec.path = Some(path.into());
    }
    let home = home(pipeline);
    let base = spec.path.as_deref().unwrap_or(&home);
    let opening = Opening {
        locking: locking(&env)?,
        local: index_folder(base, &home, &env),
        shared: spec.path.clone(),
        index,
        ..Opening::default()
    };
    let store = Store::open_with(&home, opening)?;
    if store.base() != store.home() {
        store.register(&super::collect::checkout(pipeline))?;
    }
    Ok((store, spec, remote))
}

/// How processes keep out of each other's way, where the environment says it.
fn locking(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Locking>, Faults> {
    match env(LOCKS).as_deref() {
        None | Some("") => Ok(None),
        Some("flock") => Ok(Some(Locking::Kernel)),
        Some("lease") => Ok(Some(Locking::Leases(Pace::default()))),
        Some(other) => {
            let message = format!("`{LOCKS}` is `{other}`, which is no kind of lock");
            let fault = Fault::nowhere("store::locks", message);
            let fault = fault
                .mend("set it to `lease` (several machines use the store) or `flock`, or unset it");
            Err(Faults::new(Path::new(""), "", vec![fault]))
        }
    }
}

impl Project {
    /// Opens the project of `file`.
    pub fn open(file: &Path, overrides: &Overrides) -> Result<Self, OpenError> {
        let whole = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let folder = whole.parent().unwrap_or(Path::new("/"));
        let home = folder.join(super::HOME);
        let mut remembered = Remembered::at(home.join(PARSED));
        let stages = stages::registry::all();
        let open = || graph::open_remembering(file, overrides, stages, &mut remembered);
        let (opened, ahead) = beside(folder, &home, overrides.profile.as_deref(), open);
        let (pipeline, graph) = opened?;
        let Ahead { lock, index, last } = ahead;
        let lock = lock?;
        let (store, spec, remote) = open_store(&pipeline, index)?;
        remembered.keep();
        Ok(Self {
            pipeline: Arc::new(pipeline),
            graph,
            lock,
            store: Arc::new(store),
            spec,
            remote,
            last: Mutex::new(last),
        })
    }

    /// Closes the project for a process that ends: the store is closed as ever, what is memory and nothing
    /// else is left to the system.
    pub fn leave(self) {
        let Self {
            pipeline,
            graph,
            lock,
            store,
            last,
            ..
        } = self;
        std::mem::forget((pipeline, graph, lock, last));
        if let Some(store) = Arc::into_inner(store) {
            store.leave();
        }
    }

    /// The last results of the pipeline's profile: those that were read ahead the first time, as
    /// they are on disk from then on.
    pub fn last(&self) -> Last {
        let mut ahead = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (home, profile) = (self.store.home(), &self.pipeline.profile);
        let ahead = ahead.take().filter(|last| last.is_of(home, profile));
        ahead.unwrap_or_else(|| Last::load(home, profile))
    }

    /// Where `pipeline.lock` lies.
    pub fn lock_file(&self) -> PathBuf {
        self.pipeline.root.join(lock::FILE_NAME)
    }

    /// The folder of results, `out/`.
    pub fn out(&self) -> PathBuf {
        self.pipeline.root.join(OUT)
    }

    /// The folder of one profile's results.
    pub fn results(&self) -> PathBuf {
        self.out().join(&self.pipeline.profile)
    }

    /// A stage's log.
    pub fn log(&self, stage: &str) -> PathBuf {
        super::log_path(self.store.home(), &self.pipeline.profile, stage)
    }
}
