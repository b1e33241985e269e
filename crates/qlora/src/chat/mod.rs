//! Conversations to token ids, with a mask of what is to be predicted.
//!
//! Labels are known by the offset of each message, never found by a search for markers: text that looks
//! like a marker stays text. The two forms that matter are native and exact; any other template is rendered.
//! It must not know of tools, datasets or batches.

mod chatml;
mod jinja;
mod mistral;
mod rendered;
mod source;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use chatml::ChatMl;
use mistral::MistralV1;
use rendered::Rendered;
pub use source::TemplateSource;

/// Who speaks. Tool results are user turns by the time they come here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    /// The name that templates use.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    pub role: Role,
    pub content: String,
}

impl ChatMessage {
    /// A message of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
        }
    }
}

/// A conversation in token ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedChat {
    pub ids: Vec<u32>,
    /// `labels[i]`: `ids[i]` is to be predicted, as it is part of an answer or ends one.
    pub labels: Vec<bool>,
}

impl EncodedChat {
    fn extend(&mut self, ids: impl IntoIterator<Item = u32>, label: bool) {
        self.ids.extend(ids);
        self.labels.resize(self.ids.len(), label);
    }
}

/// A model's chat template, bound to its tokenizer.
#[derive(Debug)]
pub struct ChatTemplate {
    tokenizer: Arc<Tokenizer>,
    form: Form,
}

#[derive(Debug)]
enum Form {
    ChatMl(ChatMl),
    MistralV1(MistralV1),
    Rendered(Box<Rendered>),
}

impl ChatTemplate {
    /// Chooses the form by what the template does to a few probe conversations, not by its text.
    pub fn new(tokenizer: Arc<Tokenizer>, source: &TemplateSource) -> Result<Self> {
        let template = jinja::Template::new(&source.text, &tokenizer)?;
        let form = if let Some(form) = ChatMl::recognise(&template, &tokenizer) {
            Form::ChatMl(form)
        } else if let Some(form) = MistralV1::recognise(&template, &tokenizer)? {
            Form::MistralV1(form)
        } else {
            Form::Rendered(Box::new(Rendered::new(template)))
        };
        Ok(Self { tokenizer, form })
    }

    /// Ids and labels of a conversation. With `add_generation_prompt` it ends where the answer begins.
    pub fn encode_chat(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<EncodedChat> {
        if messages.is_empty() {
            return Err(Error::Chat {
                what: "the conversation is empty".into(),
                mend: "leave the row out".into(),
            });
        }
        match &self.form {
            Form::ChatMl(form) => form.encode(&self.tokenizer, messages, add_generation_prompt),
            Form::MistralV1(form) => form.encode(&self.tokenizer, messages),
            Form::Rendered(form) => form.encode(&self.tokenizer, messages, add_generation_prompt),
        }
    }

    /// The conversation as the model's text, special tokens written out.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String> {
        let ids = self.encode_chat(messages, add_generation_prompt)?.ids;
        self.tokenizer.decode_with_specials(&ids)
    }

    /// Ids that end an answer in this form.
    pub fn stop_ids(&self) -> Result<Vec<u32>> {
        match &self.form {
            Form::ChatMl(form) => Ok(vec![form.end()]),
            Form::MistralV1(form) => Ok(vec![form.eos()]),
            Form::Rendered(form) => form.stop_ids(&self.tokenizer),
        }
    }

    /// `chatml`, `mistral-v1` or `rendered`: part of what decides a row's ids.
    pub fn form(&self) -> &'static str {
        match &self.form {
            Form::ChatMl(_) => "chatml",
            Form::MistralV1(_) => "mistral-v1",
            Form::Rendered(_) => "rendered",
        }
    }

    /// The tokenizer that the ids belong to.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }
}

/// Probe conversations: padded content shows a template that trims, two turns show what stands between.
fn probes() -> [(Vec<ChatMessage>, bool); 3] {
    let user = |text: &str| ChatMessage::new(Role::User, text);
    let answer = ChatMessage::new(Role::Assistant, " first  answer ");
    [
        (vec![user(" first  question ")], true),
        (vec![user(" first  question "), answer.clone()], false),
        (
            vec![user(" first  question "), answer, user("second question")],
            true,
        ),
    ]
}
