//! Text to token ids and back, from `tokenizer.json` or from GGUF metadata.
//!
//! Promises that special tokens in content stay text unless parsing is asked for, that nothing is added,
//! cut or padded. It must not know of roles and turns.

mod from_gguf;
mod spm;
mod vocab;

use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::weights::gguf::Gguf;

/// A tokenizer and the names of its special tokens.
#[derive(Debug)]
pub struct Tokenizer {
    /// Reads special tokens in text as plain text.
    plain: tokenizers::Tokenizer,
    /// The same, but parsing special tokens; made when first needed.
    parsing: OnceLock<tokenizers::Tokenizer>,
    bos: Option<String>,
    eos: Option<String>,
    /// Texts of the special tokens, sorted.
    specials: Vec<(String, u32)>,
}

/// Ids with the byte range of the text that each came from.
pub(crate) struct Located {
    pub(crate) ids: Vec<u32>,
    pub(crate) ranges: Vec<(usize, usize)>,
}

impl Tokenizer {
    /// From the bytes of a `tokenizer.json`.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|e| unusable(&e))
            .map(|inner| Self::new(inner, None, None))
    }

    /// From a model folder: `tokenizer.json`, and the special tokens' names beside it.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let file = folder.join("tokenizer.json");
        if !file.is_file() {
            let mend = "fetch tokenizer.json too; a bare tokenizer.model is not read";
            return Err(Error::format(folder, "there is no tokenizer.json", mend));
        }
        let bytes = std::fs::read(&file).map_err(Error::io(&file))?;
        let inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|e| {
            Error::format(
                &file,
                format!("it is not a tokenizer: {e}"),
                "fetch the file again",
            )
        })?;
        let mut names = Names::default();
        for name in ["special_tokens_map.json", "tokenizer_config.json"] {
            names.read(&folder.join(name))?;
        }
        Ok(Self::new(inner, names.bos, names.eos))
    }

    /// From the metadata of a GGUF file.
    pub(crate) fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let json = from_gguf::tokenizer_json(gguf)?;
        let inner: tokenizers::Tokenizer =
            serde_json::from_value(json).map_err(|e| unusable(&e))?;
        let name = |key| gguf.id(key).and_then(|id| inner.id_to_token(id));
        let (bos, eos) = (
            name("tokenizer.ggml.bos_token_id"),
            name("tokenizer.ggml.eos_token_id"),
        );
        Ok(Self::new(inner, bos, eos))
    }

    fn new(mut plain: tokenizers::Tokenizer, bos: Option<String>, eos: Option<String>) -> Self {
        // Files saved after somebody's training run carry that run's truncation and padding.
        plain
            .with_truncation(None)
            .expect("no truncation has no stride to be too long");
        plain.with_padding(None);
        plain.set_encode_special_tokens(true);
        let mut specials: Vec<_> = plain
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, token)| (token.content, id))
            .collect();
        specials.sort();
        Self {
            plain,
            parsing: OnceLock::new(),
            bos,
            eos,
            specials,
        }
    }

    /// The ids of `text`, nothing added; special tokens in it are plain text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .plain
            .encode_fast(text, false)
            .map_err(|e| unusable(&e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of `text`, nothing added; special tokens in it are parsed. Never for content.
    pub fn encode_with_specials(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .parsing()
            .encode_fast(text, false)
            .map_err(|e| unusable(&e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// As [`Tokenizer::encode_with_specials`], with the place of each id.
    pub(crate) fn locate_with_specials(&self, text: &str) -> Result<Located> {
        let encoding = self
            .parsing()
            .encode(text, false)
            .map_err(|e| unusable(&e))?;
        Ok(Located {
            ids: encoding.get_ids().to_vec(),
            ranges: encoding.get_offsets().to_vec(),
        })
    }

    fn parsing(&self) -> &tokenizers::Tokenizer {
        self.parsing.get_or_init(|| {
            let mut parsing = self.plain.clone();
            parsing.set_encode_special_tokens(false);
            parsing
        })
    }

    /// The text of `ids`, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.plain.decode(ids, true).map_err(|e| unusable(&e))
    }

    /// The text of `ids`, special tokens written out.
    pub fn decode_with_specials(&self, ids: &[u32]) -> Result<String> {
        self.plain.decode(ids, false).map_err(|e| unusable(&e))
    }

    /// The id of one token by its text.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.plain.token_to_id(token)
    }

    /// The raw text of one token.
    pub fn token(&self, id: u32) -> Option<String> {
        self.plain.id_to_token(id)
    }

    /// The begin-of-sequence token's text.
    pub fn bos(&self) -> Option<&str> {
        self.bos.as_deref()
    }

    /// The end-of-sequence token's text.
    pub fn eos(&self) -> Option<&str> {
        self.eos.as_deref()
    }

    /// Texts and ids of the special tokens, sorted by text.
    pub fn specials(&self) -> &[(String, u32)] {
        &self.specials
    }

    /// How many ids there are.
    pub fn vocab_size(&self) -> usize {
        self.plain.get_vocab_size(true)
    }

    /// The text of a `tokenizer.json`, to be put beside an adapter.
    pub fn to_json(&self) -> Result<String> {
        self.plain.to_string(true).map_err(|e| unusable(&e))
    }
}

fn unusable(cause: &dyn std::fmt::Display) -> Error {
    Error::Config {
        what: format!("the tokenizer fails: {cause}"),
        mend: "fetch the model's tokenizer again".into(),
    }
}

/// The special tokens' names as Hugging Face's side files give them.
#[derive(Default)]
struct Names {
    bos: Option<String>,
    eos: Option<String>,
}

impl Names {
    /// Takes what `path` says, if it is there; a later file wins.
    fn read(&mut self, path: &Path) -> Result<()> {
        if !path.is_file() {
            return Ok(());
        }
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let root: Value = serde_json::from_slice(&bytes).map_err(|e| {
            Error::format(path, format!("it is not JSON: {e}"), "fetch the file again")
        })?;
        for (key, slot) in [("bos_token", &mut self.bos), ("eos_token", &mut self.eos)] {
            let value = &root[key];
            if let Some(name) = value.as_str().or_else(|| value["content"].as_str()) {
                *slot = Some(name.to_string());
            }
        }
        Ok(())
    }
}
