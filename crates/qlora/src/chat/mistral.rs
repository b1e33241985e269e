//! Mistral's first instruct form, exact to the token: Mistral 7B Instruct v0.1 and v0.2, Mixtral.
//!
//! As mistral-common v1: `<s> [INST] {system}\n\n{user} [/INST] {answer}</s> [INST] ...`, where each turn
//! is tokenized alone. `[INST]` is ordinary text in this vocabulary.

use super::jinja::Template;
use super::{ChatMessage, EncodedChat, Role, probes};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// The ids of `[INST]` in the 32,000-piece vocabulary: later ones have a single id for it.
const INST: [u32; 3] = [733, 16289, 28793];

#[derive(Debug)]
pub(super) struct MistralV1 {
    bos: u32,
    eos: u32,
}

impl MistralV1 {
    /// This form, if the vocabulary is v1's and `template` renders the probes as it would, spaces apart:
    /// published templates of these models differ in spaces only, and mistral-common is the reference.
    pub(super) fn recognise(template: &Template, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let (Some(bos), Some(eos)) = (tokenizer.token_id("<s>"), tokenizer.token_id("</s>")) else {
            return Ok(None);
        };
        if tokenizer.encode_with_specials("[INST]")? != INST {
            return Ok(None);
        }
        for (messages, prompt) in probes() {
            let Ok(rendered) = template.render(&messages, prompt) else {
                return Ok(None);
            };
            if without_spaces(&rendered) != without_spaces(&text(&messages)) {
                return Ok(None);
            }
        }
        Ok(Some(Self { bos, eos }))
    }

    pub(super) fn eos(&self) -> u32 {
        self.eos
    }

    /// The prompt of this form ends at `[/INST]`, so there is nothing to add for generation.
    pub(super) fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[ChatMessage],
    ) -> Result<EncodedChat> {
        let (system, turns) = match messages {
            [first, rest @ ..] if first.role == Role::System => {
                (Some(first.content.as_str()), rest)
            }
            all => (None, all),
        };
        check_turns(turns)?;
        let mut chat = EncodedChat::default();
        chat.extend([self.bos], false);
        for (at, message) in turns.iter().enumerate() {
            if message.role == Role::Assistant {
                chat.extend(tokenizer.encode(&message.content)?, true);
                chat.extend([self.eos], true);
            } else {
                let system = system.filter(|system| at == 0 && !system.is_empty());
                let system = system.map_or(String::new(), |system| format!("{system}\n\n"));
                chat.extend(
                    tokenizer.encode(&format!("[INST] {system}{} [/INST]", message.content))?,
                    false,
                );
            }
        }
        Ok(chat)
    }
}

/// User and assistant take turns, the user first; an answer has text.
fn check_turns(turns: &[ChatMessage]) -> Result<()> {
    let fault = |what: String, mend: &str| {
        Err(Error::Chat {
            what,
            mend: mend.into(),
        })
    };
    if turns.is_empty() {
        return fault("there is no user turn".into(), "leave the row out");
    }
    for (at, message) in turns.iter().enumerate() {
        let wanted = if at % 2 == 0 {
            Role::User
        } else {
            Role::Assistant
        };
        if message.role != wanted {
            let what = format!(
                "turn {} is of `{}` where `{}` speaks",
                at + 1,
                message.role.name(),
                wanted.name()
            );
            return fault(
                what,
                "join turns of one speaker: this model's form has user and assistant in turn",
            );
        }
        if message.role == Role::Assistant && message.content.is_empty() {
            return fault(
                format!("turn {} is an empty answer", at + 1),
                "leave the row out",
            );
        }
    }
    Ok(())
}

fn text(turns: &[ChatMessage]) -> String {
    let mut text = String::from("<s>");
    for message in turns {
        match message.role {
            Role::Assistant => text.extend([&message.content, "</s>"]),
            _ => text.extend(["[INST]", &message.content, "[/INST]"]),
        }
    }
    text
}

fn without_spaces(text: &str) -> String {
    text.replace(' ', "")
}
