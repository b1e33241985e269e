//! Rows -> training examples, with every check that needs token ids.
//!
//! Promises: no row is cut; a row with nothing to learn, or longer than the context, is
//! named; all faults at once.

use std::path::Path;

use qlora::train::Example;

use crate::base::Base;
use crate::contract::StageError;
use crate::conversation::{Conversation, read_lines};

/// Reads and encodes one file of rows.
pub(super) fn examples(
    base: &Base,
    path: &Path,
    context: usize,
) -> Result<Vec<Example>, StageError> {
    let mut examples = Vec::new();
    let mut long = Vec::new();
    let mut empty = Vec::new();
    for (row, place) in read_lines::<Conversation>(path).map_err(StageError::from)? {
        let encoded = base.encode_row(&row)?;
        if encoded.ids.len() > context {
            long.push(format!(
                "{place} `{}`: {} tokens",
                row.id,
                encoded.ids.len()
            ));
        }
        if !encoded.labels.contains(&true) {
            empty.push(format!("{place} `{}`", row.id));
        }
        examples.push(Example {
            ids: encoded.ids,
            labels: encoded.labels,
            id: row.id,
        });
    }
    if !empty.is_empty() {
        return Err(StageError::new(
            "train::empty-labels",
            format!(
                "rows without any assistant token to learn:\n{}",
                empty.join("\n")
            ),
            "give these rows an assistant turn, or leave them out",
        )
        .at("inputs.train"));
    }
    if !long.is_empty() {
        return Err(StageError::new(
            "train::row-too-long",
            format!("rows longer than `context: {context}` tokens would be cut:\n{}", long.join("\n")),
            "raise `context`, or let `validate` drop such rows (its own `context` with `on_fault: drop`)",
        )
        .at("with.context"));
    }
    Ok(examples)
}
