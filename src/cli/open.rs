//! From the common options to an open project.

use std::path::PathBuf;

use super::Common;
use super::exit::Trouble;
use crate::config::{self, Faults, Overrides};
use crate::graph::{self, Graph};
use crate::run::Project;

impl Common {
    fn start(&self) -> PathBuf {
        self.directory.clone().unwrap_or_else(|| PathBuf::from("."))
    }

    /// The pipeline file: in the folder, or in one above it.
    pub(super) fn file(&self) -> Result<PathBuf, Faults> {
        config::find(&self.start())
    }

    pub(super) fn overrides(&self) -> Overrides {
        Overrides {
            profile: self.profile.clone(),
            sets: self.sets.clone(),
        }
    }

    /// The pipeline and its graph; opens no store.
    pub(super) fn pipeline(&self) -> Result<(config::Pipeline, Graph), Faults> {
        graph::open(&self.file()?, &self.overrides(), stages::registry::all())
    }

    /// The whole project.
    pub(super) fn project(&self) -> Result<Project, Trouble> {
        Ok(Project::open(&self.file()?, &self.overrides())?)
    }
}
