//! One stage to be run: everything an executor needs, owned, so that it can run apart from
//! the scheduler.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::{Digest, Holder, Kept, KeyParts, Moved, Record, Store, Ticket, Tree, Unmoved};
use stages::{StageError, StageEvent};
use tokio::sync::oneshot;

use super::mask::Mask;
use super::pools::Held;
use super::remote::Push;
use crate::config::{Action, Pipeline, StageSpec};
use crate::plan::{Inputs, Item, Origin};

/// A stage whose key is known and has no result.
pub(crate) struct Job {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) store: Arc<Store>,
    /// Index into the pipeline's stages.
    pub(crate) stage: usize,
    pub(crate) key: Digest,
    pub(crate) parts: KeyParts,
    pub(crate) inputs: Inputs,
    /// Pinned identity of the outside source.
    pub(crate) pin: Option<String>,
    pub(crate) threads: usize,
    pub(crate) network: bool,
    /// Whether a result that is there already is not wanted.
    pub(crate) forced: bool,
    pub(crate) log: PathBuf,
    /// Why it runs, for the log.
    pub(crate) reasons: Vec<String>,
    /// The folder of results, `out/`.
    pub(crate) out: PathBuf,
}

/// What an executor tells the scheduler.
pub(crate) enum Message {
    /// A try begins.
    Started {
        /// Counted from 1.
        attempt: u32,
        /// Why the stage runs.
        reasons: Vec<String>,
    },
    /// The stage says something.
    Said(StageEvent),
    /// Its program has ended well; what is left is to take the outputs.
    Taking,
    /// Its result is being made elsewhere: what it holds is of no use to it meanwhile.
    Waiting(Option<Holder>),
    /// Slots are wanted again: it was not made elsewhere after all, or a pause is over.
    Wanting(oneshot::Sender<Held>),
    /// A try failed after so many milliseconds; the next is to follow after so many more, and
    /// what the stage holds is given back for the time.
    TryFailed(StageError, u64, u64),
    /// Something a person should know.
    Notice(&'static str, String),
    /// The remote's answer.
    Answered(Option<Box<Record>>),
    /// So many bytes of so many came from the remote.
    Pulling(u64, u64),
    /// The end of fetching its result, after so many milliseconds.
    Fetched(Box<Result<(Record, Moved), Unmoved>>, u64),
    /// What the thread that puts results to the remote tells.
    Push(Push),
    /// Results that waited for their places are there. Of no stage.
    Placed,
    /// The end.
    Ended(Box<Result<Performed, Failure>>),
}

/// How a stage got its result.
pub(crate) enum Performed {
    /// It ran. The ticket tells what became of the record, should it not be in its place yet.
    Made(Record, Ticket),
    /// Another process made it meanwhile.
    Taken(Record),
}

/// Why it got none.
pub(crate) enum Failure {
    /// It failed, after so many milliseconds.
    Error(StageError, u64),
    /// The run is to stop.
    Cancelled,
}

impl Job {
    pub(crate) fn spec(&self) -> &StageSpec {
        &self.pipeline.stages[self.stage]
    }

    /// Values that must not be shown: declared secrets, and what looks like one among the
    /// variables that the stage reads.
    pub(crate) fn mask(&self) -> Mask {
        let telling = |name: &str| {
            ["TOKEN", "KEY", "SECRET", "PASSWORD"]
                .iter()
                .any(|word| name.contains(word))
        };
        let spec = self.spec();
        let passed = match &spec.action {
            Action::Builtin { stage, .. } => stage.passes_env(),
            Action::Shell { .. } => &[],
        };
        let passed = passed.iter().copied().filter(|name| telling(name));
        let names = spec.secrets.iter().map(String::as_str).chain(passed);
        let values: Vec<_> = names.filter_map(|name| std::env::var(name).ok()).collect();
        Mask::new(values.iter().map(String::as_str))
    }

    /// Every local input that is read in place.
    pub(crate) fn outside(&self) -> impl Iterator<Item = (&Path, &Tree)> {
        self.inputs
            .values()
            .flatten()
            .filter_map(|item| Some((read_in_place(item)?, &item.tree)))
    }
}

/// Where an input too big for the store is read.
pub(crate) fn read_in_place(item: &Item) -> Option<&Path> {
    match &item.origin {
        Origin::Path {
            kept: Kept::Outside(path),
            ..
        } => Some(path),
        _ => None,
    }
}
