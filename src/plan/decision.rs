//! What is asked about a stage, and what can be the answer.

use std::collections::{BTreeMap, BTreeSet};

use cache::{Digest, KeyParts, Record, Tree};

use super::input::Inputs;
use super::people::People;
use super::reason::Reason;

/// Outputs of the stages that are settled: fresh, or run to the end. By stage index.
pub type Settled = BTreeMap<usize, BTreeMap<String, Tree>>;

/// How the question is asked. Stages are named by id.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only results that the lock names count (`--locked`).
    pub locked: bool,
    /// No result counts, everything is made anew to be compared (`--locked --recompute`).
    pub recompute: bool,
    /// The network is refused: sources must be pinned (`--frozen`).
    pub frozen: bool,
    /// Stages whose results do not count (`--force`).
    pub forced: BTreeSet<String>,
    /// Stages with an outside effect that may run: those named, and those above them.
    pub named: BTreeSet<String>,
    /// Only look: take no local input into the store.
    pub preview: bool,
    /// Under `locked`, what the lock lacks is shown as to be run instead of being an error.
    pub checking: bool,
    /// There is a remote: results that were left there count, and what the store lacks is asked
    /// for there before it is given up.
    pub remote: bool,
}

/// What is to be done about a stage.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one at a time; a plan for show holds as many as there are stages"
)]
pub enum Decision {
    /// Its result is there.
    Fresh {
        /// The result.
        record: Record,
        /// Whether it is another than the last one: brought back, or made elsewhere.
        restored: bool,
    },
    /// Its result is at the remote; its bytes are not here.
    Remote {
        /// The result. Its key is the stage's.
        record: Record,
        /// Whether it is the last one, rather than one that was found there now.
        known: bool,
        /// Its inputs, for the case that the bytes cannot be had.
        inputs: Inputs,
    },
    /// It must run.
    Run {
        /// Its key.
        key: Digest,
        /// What the key is made of.
        parts: KeyParts,
        /// Its inputs.
        inputs: Inputs,
        /// Why, at least one.
        reasons: Vec<Reason>,
    },
    /// It must run, and people have to decide something first. Only a plan for show says so; a run
    /// asks [`Planner::people`](super::Planner::people) when the inputs are here.
    People {
        /// Its key, which a decision changes.
        key: Digest,
        /// What the key is made of.
        parts: KeyParts,
        /// Its inputs.
        inputs: Inputs,
        /// What they are asked.
        people: People,
    },
    /// Not known until these stages are settled (ascending).
    Waiting {
        /// Stage indices.
        on: Vec<usize>,
    },
    /// It acts on the outside, could run, and was not named.
    Ready {
        /// Its key.
        key: Digest,
        /// What the key is made of.
        parts: KeyParts,
        /// Whether it was done before with this key, as far as the store knows.
        done: bool,
    },
}

/// What a remote is asked for on behalf of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The stage.
    pub stage: usize,
    /// Its key.
    pub key: Digest,
    /// Results in the order in which they are wanted; `None` is whichever is there.
    pub results: Vec<Option<Digest>>,
}
