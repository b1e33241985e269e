//! Where a model keeps the text of its chat template.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

/// The text of a jinja chat template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateSource {
    pub text: String,
}

impl TemplateSource {
    /// `chat_template.jinja`, or `chat_template` in `tokenizer_config.json` (a text, or a list of named
    /// ones, of which `default` is taken).
    pub fn from_folder(folder: &Path) -> Result<Option<Self>> {
        let file = folder.join("chat_template.jinja");
        if file.is_file() {
            let text = std::fs::read_to_string(&file).map_err(Error::io(&file))?;
            return Ok(Some(Self { text }));
        }
        let config = folder.join("tokenizer_config.json");
        if !config.is_file() {
            return Ok(None);
        }
        let bytes = std::fs::read(&config).map_err(Error::io(&config))?;
        let root: Value = serde_json::from_slice(&bytes).map_err(|e| {
            Error::format(
                &config,
                format!("it is not JSON: {e}"),
                "fetch the file again",
            )
        })?;
        let text = match &root["chat_template"] {
            Value::String(text) => Some(text.as_str()),
            Value::Array(named) => named
                .iter()
                .find(|t| t["name"] == "default")
                .and_then(|t| t["template"].as_str()),
            _ => None,
        };
        Ok(text.map(|text| Self {
            text: text.to_string(),
        }))
    }
}
