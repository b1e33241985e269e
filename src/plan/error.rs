//! Why a question about a stage has no answer.

use std::path::PathBuf;

/// Why a stage cannot be decided.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A local input cannot be read.
    #[error("input `{port}` of `{stage}`: {source}")]
    Input {
        /// Stage id.
        stage: String,
        /// Port name.
        port: String,
        /// Why.
        source: cache::Error,
    },
    /// A local input is a folder that holds the store.
    #[error("input `{port}` of `{stage}` is `{}`, the folder that holds `.tunesmith`", path.display())]
    HoldsStore {
        /// Stage id.
        stage: String,
        /// Port name.
        port: String,
        /// The folder.
        path: PathBuf,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] cache::Error),
    /// The record of last results cannot be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Last {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A cell that is to be picked from lacks the metric.
    #[error(
        "`{stage}` picks by `{metric}`, which `{cell}` does not report (it reports {})",
        listed(known)
    )]
    NoMetric {
        /// The stage that picks.
        stage: String,
        /// The measured cell.
        cell: String,
        /// The metric.
        metric: String,
        /// What it reports.
        known: Vec<String>,
    },
    /// No cell has a number to pick by.
    #[error("`{stage}` picks by `{metric}`, which is not a number in any cell")]
    NoNumber {
        /// The stage that picks.
        stage: String,
        /// `val-eval.loss`.
        metric: String,
    },
    /// A program whose output is a part of the key could not be asked.
    #[error("the fingerprint `{command}` of `{stage}` says nothing: {because}")]
    Fingerprint {
        /// Stage id.
        stage: String,
        /// The command.
        command: String,
        /// Why.
        because: String,
    },
    /// `--locked`, and the lock says nothing about the stage.
    #[error("`pipeline.lock` has no result of `{stage}` under profile `{profile}`")]
    NotLocked {
        /// Stage id.
        stage: String,
        /// Profile.
        profile: String,
    },
    /// `--locked`, and the result that the lock names cannot be had.
    #[error("the result of `{stage}` that `pipeline.lock` names is not in the store: {because}")]
    LockedLost {
        /// Stage id.
        stage: String,
        /// What the store has instead.
        because: String,
    },
    /// `--locked`, and a person vouched for the result without the lock saying so.
    #[error("the result of `{stage}` was accepted by hand, and `pipeline.lock` does not say so")]
    Accepted {
        /// Stage id.
        stage: String,
    },
    /// `--locked` or `--frozen`, and the lock does not pin the stage's source.
    #[error("`pipeline.lock` does not pin `{source_id}`, which `{stage}` fetches")]
    NotPinned {
        /// Stage id.
        stage: String,
        /// The outside source.
        source_id: String,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    format!("`{}`", names.join("`, `"))
}

impl PlanError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Input { source, .. } | Self::Store(source) => source.code(),
            Self::HoldsStore { .. } => "plan::holds-store",
            Self::Last { .. } => "plan::last",
            Self::NoMetric { .. } | Self::NoNumber { .. } => "plan::no-metric",
            Self::Fingerprint { .. } => "plan::fingerprint",
            Self::NotLocked { .. } => "locked::no-result",
            Self::LockedLost { .. } => "locked::not-in-store",
            Self::Accepted { .. } => "locked::accepted",
            Self::NotPinned { .. } => "locked::no-pin",
        }
    }

    /// How to mend it.
    pub fn mend(&self) -> &'static str {
        match self {
            Self::Input { source, .. } | Self::Store(source) => source.mend(),
            Self::HoldsStore { .. } => "name the folder below it that the stage needs",
            Self::Last { .. } => "check the disk and run again",
            Self::NoMetric { .. } => "name a metric that the stage reports, `stage.metric`",
            Self::NoNumber { .. } => "look at the logs of the cells, and pick by another metric",
            Self::Fingerprint { .. } => "install the program, or name one that is on PATH",
            Self::NotLocked { .. } => "run once without `--locked` and commit `pipeline.lock`",
            Self::LockedLost { .. } => {
                "run without `--locked` to make a result and lock it, or with `--locked --recompute` \
                 to make it anew and compare"
            }
            Self::Accepted { .. } => {
                "commit the `pipeline.lock` that `tunesmith accept` wrote, or make the result with \
                 `--force` and without `--locked`"
            }
            Self::NotPinned { .. } => {
                "run once without `--locked` and `--frozen` and commit `pipeline.lock`"
            }
        }
    }

    /// Whether the lock forbids going on (exit code 5).
    pub fn is_locked(&self) -> bool {
        self.code().starts_with("locked::")
    }
}
