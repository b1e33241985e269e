//! The eval prompts, as far as the data stages need them: to keep them out of training.
//!
//! Promises: reads `id` and the user's turns of every line and ignores the rest. Must not
//! know: how an answer is scored (`eval`).

use std::path::Path;

use serde::Deserialize;

use crate::contract::StageError;
use crate::conversation::{Message, read_lines};
use crate::similarity::Guarded;

#[derive(Deserialize)]
struct Prompt {
    id: String,
    messages: Vec<Message>,
}

/// Reads the prompts below `path` and guards every user turn of theirs.
pub fn guard(path: &Path) -> Result<Guarded, StageError> {
    let prompts: Vec<(Prompt, _)> = read_lines(path).map_err(|error| {
        let error = StageError::from(error);
        error.at("inputs.eval")
    })?;
    let mut texts = Vec::new();
    for (prompt, _) in &prompts {
        for message in &prompt.messages {
            if let Message::User { content } = message {
                texts.push((prompt.id.as_str(), content.as_str()));
            }
        }
    }
    Ok(Guarded::new(texts))
}
