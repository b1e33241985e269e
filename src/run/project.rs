//! A project: its pipeline, its graph, its lock and its store, open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::{Opening, Store, Witness};

use crate::config::{Faults, Overrides, Pipeline, RemoteSpec, StoreSpec, User};
use crate::graph::{self, Graph};
use crate::lock::{self, Lock};

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

/// The variable that names a shared store.
const STORE: &str = "TUNESMITH_STORE";

/// The pipeline's store, and what is said about it and about the remote. A checkout that shares its store registers
/// there, so that nothing it needs is collected.
pub fn open_store(
    pipeline: &Pipeline,
    witness: Option<Arc<dyn Witness>>,
) -> Result<(Store, StoreSpec, RemoteSpec), OpenError> {
    let env = |name: &str| std::env::var(name).ok();
    let user = User::read(&env)?;
    let remote = super::remote::spec_of(&pipeline.remote, user.remote, &pipeline.root)?;
    let mut spec = pipeline.store.clone().or(user.store);
    if let Some(path) = env(STORE).filter(|path| !path.is_empty()) {
        spec.path = Some(path.into());
    }
    let opening = Opening {
        shared: spec.path.clone(),
        witness,
    };
    let store = Store::open_with(&home(pipeline), opening)?;
    if store.base() != store.home() {
        store.register(&super::collect::checkout(pipeline))?;
    }
    Ok((store, spec, remote))
}

impl Project {
    /// Opens the project of `file`.
    pub fn open(file: &Path, overrides: &Overrides) -> Result<Self, OpenError> {
        Self::open_watched(file, overrides, None)
    }

    /// [`Project::open`] with somebody standing in the store's door to the disk.
    pub fn open_watched(
        file: &Path,
        overrides: &Overrides,
        witness: Option<Arc<dyn Witness>>,
    ) -> Result<Self, OpenError> {
        let (pipeline, graph) = graph::open(file, overrides, stages::registry::all())?;
        let lock = Lock::load(&pipeline.root.join(lock::FILE_NAME))?;
        let (store, spec, remote) = open_store(&pipeline, witness)?;
        Ok(Self {
            pipeline: Arc::new(pipeline),
            graph,
            lock,
            store: Arc::new(store),
            spec,
            remote,
        })
    }

    /// Where `pipeline.lock` lies.
    pub fn lock_file(&self) -> PathBuf {
        self.pipeline.root.join(lock::FILE_NAME)
    }

    /// The folder of results, `out/`.
    pub fn out(&self) -> PathBuf {
        self.pipeline.root.join("out")
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
