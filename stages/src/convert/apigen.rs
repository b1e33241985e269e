//! APIGen-MT-5k: ShareGPT turns with `function_call` and `observation`, and a text `tools`
//! (docs: the dataset's card; retail and airline agents of tau-bench).
//!
//! Promises: thoughts are gone, written as `<think>` or as calls of the tool `think`; a
//! call that follows prose without a user turn between joins it. Must not know: our tools.

use serde_json::Value;

use super::foreign::{Dropped, Foreign, Said};
use super::sharegpt;

/// The function that does nothing but hold a thought.
const THINK: &str = "think";

/// Reads one row.
pub(super) fn read(row: &Value) -> Result<Foreign, Dropped> {
    let mut foreign = sharegpt::dialogue(row)?;
    forget_thoughts(&mut foreign);
    foreign.joined().all_declared()
}

/// Takes out the calls of `think`, each with the observation that answers it.
fn forget_thoughts(foreign: &mut Foreign) {
    let mut turns = std::mem::take(&mut foreign.turns).into_iter().peekable();
    while let Some(said) = turns.next() {
        let thought = matches!(&said, Said::Assistant(_, calls) if calls.len() == 1
            && calls[0].name == THINK);
        if !thought {
            foreign.turns.push(said);
            continue;
        }
        foreign.mended.push("thought-removed");
        turns.next_if(|next| matches!(next, Said::Tool(_)));
    }
    foreign.tools.retain(|tool| tool.name != THINK);
}
