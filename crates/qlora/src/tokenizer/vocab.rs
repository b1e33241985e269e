//! The vocabulary in a GGUF file's metadata.
//!
//! Must not know: what kind of tokenizer is made of it.

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::weights::gguf::{self, Gguf};

/// ggml's token types that are not part of ordinary text.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// The vocabulary of a GGUF file, by id.
pub(super) struct Vocab<'a> {
    pub(super) tokens: Vec<&'a str>,
    pub(super) types: Vec<i64>,
}

impl<'a> Vocab<'a> {
    pub(super) fn read(gguf: &'a Gguf) -> Result<Self> {
        let tokens = texts(gguf, "tokenizer.ggml.tokens")?;
        let types = gguf
            .get("tokenizer.ggml.token_type")
            .and_then(gguf::Value::as_array)
            .map_or_else(
                || vec![1; tokens.len()],
                |types| {
                    types
                        .iter()
                        .map(|kind| kind.as_f64().unwrap_or(1.0) as i64)
                        .collect()
                },
            );
        if types.len() != tokens.len() {
            return Err(Error::shape(
                "`tokenizer.ggml.token_type`",
                tokens.len(),
                types.len(),
            ));
        }
        Ok(Self { tokens, types })
    }

    /// Control tokens are special; user-defined ones are whole words of ordinary text.
    pub(super) fn added_tokens(&self) -> Value {
        let added = self.tokens.iter().zip(&self.types).enumerate();
        let added = added
            .filter(|(_, (_, kind))| matches!(**kind, CONTROL | USER_DEFINED))
            .map(|(id, (content, kind))| {
                json!({
                    "id": id, "content": content, "special": *kind == CONTROL,
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                })
            });
        added.collect()
    }

    /// Text to id, as the `vocab` of a BPE model.
    pub(super) fn ids(&self) -> Value {
        Value::Object(
            self.tokens
                .iter()
                .enumerate()
                .map(|(id, token)| ((*token).to_string(), id.into()))
                .collect(),
        )
    }
}

/// An array of strings under `key`.
pub(super) fn texts<'a>(gguf: &'a Gguf, key: &str) -> Result<Vec<&'a str>> {
    let absent = || Error::unsupported(key, "absent", "use a GGUF that has its tokenizer inside");
    let values = gguf
        .get(key)
        .and_then(gguf::Value::as_array)
        .ok_or_else(absent)?;
    values
        .iter()
        .map(|value| value.as_text().ok_or_else(absent))
        .collect()
}
