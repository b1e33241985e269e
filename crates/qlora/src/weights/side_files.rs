//! The tokenizer's files to be put beside an adapter: copied from a folder, or made of GGUF metadata.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// A name in the adapter's folder and the file's bytes.
type Named = (String, Vec<u8>);

/// What transformers reads a tokenizer from; the weights' own files are not among them.
const NAMES: &[&str] = &[
    "chat_template.jinja",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// Those of [`NAMES`] that a model folder has.
pub(super) fn copied(folder: &Path) -> Result<Vec<Named>> {
    let paths = NAMES
        .iter()
        .map(|name| (name, folder.join(name)))
        .filter(|(_, path)| path.is_file());
    paths
        .map(|(name, path)| {
            Ok((
                (*name).to_string(),
                std::fs::read(&path).map_err(Error::io(&path))?,
            ))
        })
        .collect()
}

/// `tokenizer.json` and `tokenizer_config.json` for a tokenizer that came without files.
pub(super) fn generated(tokenizer: &Tokenizer, chat_template: Option<&str>) -> Result<Vec<Named>> {
    let mut config = Map::new();
    config.insert("add_bos_token".into(), json!(false));
    for (key, value) in [
        ("bos_token", tokenizer.bos()),
        ("chat_template", chat_template),
        ("eos_token", tokenizer.eos()),
    ] {
        if let Some(value) = value {
            config.insert(key.into(), json!(value));
        }
    }
    config.insert("clean_up_tokenization_spaces".into(), json!(false));
    config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
    let config = serde_json::to_vec_pretty(&Value::Object(config)).expect("a JSON value is JSON");
    Ok(vec![
        (
            "tokenizer.json".to_string(),
            tokenizer.to_json()?.into_bytes(),
        ),
        ("tokenizer_config.json".to_string(), config),
    ])
}
