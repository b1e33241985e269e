//! A project: its pipeline, its graph, its lock and its store, open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::Store;

use crate::config::{Faults, Overrides, Pipeline};
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
    pipeline.root.join(".tunesmith")
}

impl Project {
    /// Opens the project of `file`.
    pub fn open(file: &Path, overrides: &Overrides) -> Result<Self, OpenError> {
        let (pipeline, graph) = graph::open(file, overrides, stages::registry::all())?;
        let lock = Lock::load(&pipeline.root.join(lock::FILE_NAME))?;
        let store = Store::open(&home(&pipeline))?;
        Ok(Self {
            pipeline: Arc::new(pipeline),
            graph,
            lock,
            store: Arc::new(store),
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
