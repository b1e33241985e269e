//! The base model as train, eval, export and validate see it: files opened from an input
//! path, and canonical rows turned into token ids with the model's own chat template.
//!
//! Promises: one way from rows to ids, so training and eval cannot differ in template or
//! system prompt. Must not know: training, sampling, metrics.

use std::path::{Path, PathBuf};

use jiff::civil::DateTime;
use qlora::{ChatTemplate, ModelFiles, Quantization, Tokenizer};

use crate::contract::{Context, Params, StageError};
use crate::conversation::{Conversation, Message};
use crate::format::{self, ChatMessage, Role};
use crate::layers::LAYERS;
use crate::prompt::system_prompt;
use crate::tools::ToolSet;

/// Raised whenever equal rows would become other ids.
pub(crate) const TEMPLATE_VERSION: u32 = 1;

/// A base model and the system prompt that goes with it.
pub(crate) struct Base {
    /// The files.
    pub(crate) files: ModelFiles,
    template: ChatTemplate,
    tools: ToolSet,
    system: String,
}

/// A row as ids: `labels[i]` says whether id `i` is to be predicted.
pub(crate) struct Encoded {
    /// Token ids.
    pub(crate) ids: Vec<u32>,
    /// Which ids are learned: the assistant's words and end tokens.
    pub(crate) labels: Vec<bool>,
}

impl Base {
    /// Opens the model below `path` (a GGUF file, or a folder that holds one, or a folder
    /// of safetensors) and reads the tool list.
    pub(crate) fn open(path: &Path, tools: &Path) -> Result<Self, StageError> {
        let files = ModelFiles::open(model_path(path)?).map_err(|error| engine(&error))?;
        let template = files.chat().map_err(|error| engine(&error))?;
        let tools = ToolSet::read(tools)?;
        let system = system_prompt(tools.specs());
        Ok(Self {
            files,
            template,
            tools,
            system,
        })
    }

    /// Takes the four-bit layers that were derived from this base, where there are some.
    pub(crate) fn with_derived(mut self, ctx: &Context<'_>) -> Result<Self, StageError> {
        if let Some(file) = ctx.derived(LAYERS) {
            let with = self.files.with_layers(file);
            self.files = with.map_err(|error| engine(&error))?;
        }
        Ok(self)
    }

    /// The tool list.
    pub(crate) fn tools(&self) -> &ToolSet {
        &self.tools
    }

    /// The generated system prompt.
    pub(crate) fn system(&self) -> &str {
        &self.system
    }

    /// A whole row, for training. A row with a tool list of its own gets its own prompt.
    pub(crate) fn encode_row(&self, row: &Conversation) -> Result<Encoded, StageError> {
        let own = row.tools.as_ref().map(|tools| system_prompt(tools.iter()));
        let chat = format::chat(own.as_deref().unwrap_or(&self.system), row);
        self.encode(&chat, false)
    }

    /// Messages that wait for an answer, for eval.
    pub(crate) fn encode_prompt(
        &self,
        now: Option<DateTime>,
        messages: &[Message],
    ) -> Result<Vec<u32>, StageError> {
        Ok(self
            .encode(&format::chat_of(&self.system, now, messages), true)?
            .ids)
    }

    /// Ids that end an answer.
    pub(crate) fn stop_ids(&self) -> Result<Vec<u32>, StageError> {
        self.template.stop_ids().map_err(|error| engine(&error))
    }

    /// Ids as text; what cannot be decoded says so.
    pub(crate) fn decode(&self, ids: &[u32]) -> String {
        self.template
            .tokenizer()
            .decode(ids)
            .unwrap_or_else(|error| format!("(undecodable: {error})"))
    }

    fn encode(&self, chat: &[ChatMessage], generate: bool) -> Result<Encoded, StageError> {
        let chat: Vec<_> = chat
            .iter()
            .map(|message| qlora::ChatMessage {
                role: role(message.role),
                content: message.content.clone(),
            })
            .collect();
        let encoded = self
            .template
            .encode_chat(&chat, generate)
            .map_err(|error| engine(&error))?;
        Ok(Encoded {
            ids: encoded.ids,
            labels: encoded.labels,
        })
    }
}

fn role(role: Role) -> qlora::Role {
    match role {
        Role::System => qlora::Role::System,
        Role::User => qlora::Role::User,
        Role::Assistant => qlora::Role::Assistant,
    }
}

/// The tokenizer alone, for counting.
pub(crate) fn tokenizer(path: &Path) -> Result<Tokenizer, StageError> {
    let files = ModelFiles::open(model_path(path)?).map_err(|error| engine(&error))?;
    files.tokenizer().map_err(|error| engine(&error))
}

/// The `quantization` parameter of train and eval.
pub(crate) fn quantization(params: &Params) -> Quantization {
    match params.text("quantization").as_deref() {
        Some("nf4") => Quantization::Nf4 { double: true },
        _ => Quantization::None,
    }
}

/// A folder that holds exactly one GGUF file means that file.
pub(crate) fn model_path(path: &Path) -> Result<PathBuf, StageError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let entries = std::fs::read_dir(path).map_err(|error| StageError::io(path, &error))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| StageError::io(path, &error))?.path();
        if entry
            .extension()
            .is_some_and(|extension| extension == "gguf")
        {
            found.push(entry);
        }
    }
    match found.as_slice() {
        [] => Ok(path.to_owned()),
        [one] => Ok(one.clone()),
        many => Err(StageError::new(
            "base::several-models",
            format!("the base holds {} GGUF files", many.len()),
            "name one of them under `file` of the fetch stage",
        )
        .at("inputs.base")),
    }
}

/// An engine error as a stage error, with its own code and mend.
pub(crate) fn engine(error: &qlora::Error) -> StageError {
    let mend = error.mend().map_or_else(
        || "see the message".to_owned(),
        std::borrow::Cow::into_owned,
    );
    StageError::new(error.code(), error.to_string(), mend)
}
