//! What a stage is: its declaration (parameters, ports, versions) and its run.
//!
//! Promises: everything a planner needs is data and costs no I/O; a run sees only its
//! [`Context`]. Must not know: YAML, the store, other stages, the terminal.

mod context;
mod derived;
mod error;
mod event;
mod fields;
mod people;
mod refused;
mod wire;

pub use context::{Context, Outcome, Site};
pub use derived::Derived;
pub use error::{Fault, StageError};
pub use event::StageEvent;
pub use fields::{Field, FieldType, Params, canonical};
pub use people::{Undecided, WAITING_FOR_PEOPLE};
pub use refused::{Refused, refusals};
pub use wire::{RANKS, WorkerMessage, WorkerRequest};

/// One kind of stage, as named by `uses:`.
pub trait Stage: Sync {
    /// The name used in `uses:`.
    fn kind(&self) -> &'static str;

    /// One sentence for help and schema.
    fn about(&self) -> &'static str;

    /// Behaviour version: raised whenever equal inputs would give other bytes.
    fn version(&self) -> u32;

    /// Shared parts whose behaviour is part of the result, with their versions
    /// (chat template, tokenizer, canonical conversation, engine).
    fn shared(&self) -> &'static [(&'static str, u32)] {
        &[]
    }

    /// The parameters accepted under `with:`.
    fn fields(&self) -> &'static [Field];

    /// Parameters of other tools that are refused by name.
    fn refused(&self) -> &'static [Refused] {
        &[]
    }

    /// The inputs accepted under `inputs:`.
    fn inputs(&self) -> &'static [Port];

    /// What the stage leaves behind. The first is what a bare stage name means.
    fn products(&self) -> &'static [Product];

    /// Whether running it changes something outside the project.
    fn effect(&self) -> Effect {
        Effect::None
    }

    /// The pool it takes a slot of when `resources` says nothing.
    fn pool(&self) -> Pool {
        Pool::Cpu
    }

    /// Whether it takes the whole pool when `resources` says nothing: true for stages that
    /// keep every core busy, so that two of them do not share one machine.
    fn whole_pool(&self) -> bool {
        false
    }

    /// Environment names handed through without entering the key (endpoints, tokens).
    fn passes_env(&self) -> &'static [&'static str] {
        &[]
    }

    /// The outside thing whose identity the lock file pins (a hub repository at a branch),
    /// or `None` when the parameters already name exact bytes.
    fn source(&self, _params: &Params) -> Option<String> {
        None
    }

    /// Everything that can be known to be wrong before any stage runs. `site` gives the
    /// local files among the inputs; it does no network I/O.
    fn check(&self, _params: &Params, _site: &Site) -> Vec<Fault> {
        Vec::new()
    }

    /// The input that holds what people decided, of a stage in which they have a say. Its file may
    /// be missing: then nothing is decided yet.
    fn decisions(&self) -> Option<&'static str> {
        None
    }

    /// What people have still to decide before it can run on these inputs; `ctx` has no output
    /// folder. Told before a run by whoever plans, and by the run itself with an error whose code
    /// ends in [`WAITING_FOR_PEOPLE`].
    fn undecided(
        &self,
        _params: &Params,
        _ctx: &Context<'_>,
    ) -> Result<Vec<Undecided>, StageError> {
        Ok(Vec::new())
    }

    /// The text of an edited row as a decision keeps it, if it may stand in place of `row`.
    fn edited(
        &self,
        _params: &Params,
        _ctx: &Context<'_>,
        _row: &str,
        _text: &str,
    ) -> Result<serde_json::Value, StageError> {
        unreachable!("bug: nobody is asked about this stage")
    }

    /// What it reads of an input that is made of it and shared by every stage that wants the same:
    /// made once, by whichever needs it first, and kept under a key of its own.
    fn derives(&self, _params: &Params) -> Vec<Derived> {
        Vec::new()
    }

    /// Does the work: reads `ctx.input`, writes every product under `ctx.output`.
    fn run(&self, params: &Params, ctx: &Context<'_>) -> Result<Outcome, StageError>;
}

/// A named input.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// Name under `inputs:`.
    pub name: &'static str,
    /// Whether it must be given.
    pub required: bool,
    /// Whether it accepts a list.
    pub many: bool,
    /// One line for help and schema.
    pub about: &'static str,
}

/// A named output: one file or one folder in the stage's output directory.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Name used in `stage:name`.
    pub name: &'static str,
    /// Path below the output directory, `rows.jsonl` or `adapter`.
    pub path: &'static str,
    /// One line for help and schema.
    pub about: &'static str,
}

/// What a run changes outside the project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Something: it runs only when named.
    External,
}

/// A kind of slot the scheduler hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pool {
    /// Processor work.
    Cpu,
    /// One GPU.
    Gpu,
    /// Waiting for the network.
    Net,
}
