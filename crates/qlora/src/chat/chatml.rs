//! ChatML, exact: `<|im_start|>role\ncontent<|im_end|>\n` (SmolLM2, Qwen2).
//!
//! Header and content of an answer are tokenized apart, as they are when the model answers; everything else
//! as the tokenizer sees the whole text.

use super::jinja::Template;
use super::{ChatMessage, EncodedChat, Role, probes};
use crate::error::Result;
use crate::tokenizer::Tokenizer;

const START: &str = "<|im_start|>";
const END: &str = "<|im_end|>";

/// The ids of the markers, and the system prompt for conversations that bring none.
#[derive(Debug)]
pub(super) struct ChatMl {
    start: u32,
    end: u32,
    default_system: Option<String>,
}

impl ChatMl {
    /// This form, if `template` renders every probe as it would.
    pub(super) fn recognise(template: &Template, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let special = |text: &str| {
            tokenizer
                .specials()
                .iter()
                .find(|(name, _)| name == text)
                .map(|(_, id)| *id)
        };
        let (Some(start), Some(end)) = (special(START), special(END)) else {
            return Ok(None);
        };
        let system = ChatMessage::new(Role::System, " be  brief ");
        let mut default_system = None;
        for (at, (messages, prompt)) in probes().into_iter().enumerate() {
            let mut with_system = vec![system.clone()];
            with_system.extend_from_slice(&messages);
            if template.render(&with_system, prompt).ok() != Some(text(&with_system, prompt)) {
                return Ok(None);
            }
            let Ok(bare) = template.render(&messages, prompt) else {
                return Ok(None);
            };
            let Some(found) = default_before(&bare, &text(&messages, prompt)) else {
                return Ok(None);
            };
            if at > 0 && found != default_system {
                return Ok(None);
            }
            default_system = found;
        }
        Ok(Some(Self {
            start,
            end,
            default_system,
        }))
    }

    pub(super) fn end(&self) -> u32 {
        self.end
    }

    pub(super) fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<EncodedChat> {
        let mut chat = EncodedChat::default();
        let newline = tokenizer.encode("\n")?;
        let default = self
            .default_system
            .as_ref()
            .filter(|_| messages[0].role != Role::System);
        let default = default.map(|system| ChatMessage::new(Role::System, system));
        for message in default.iter().chain(messages) {
            let header = format!("{}\n", message.role.name());
            chat.extend([self.start], false);
            if message.role == Role::Assistant {
                chat.extend(tokenizer.encode(&header)?, false);
                chat.extend(tokenizer.encode(&message.content)?, true);
                chat.extend([self.end], true);
            } else {
                chat.extend(tokenizer.encode(&(header + &message.content))?, false);
                chat.extend([self.end], false);
            }
            chat.extend(newline.iter().copied(), false);
        }
        if add_generation_prompt {
            chat.extend([self.start], false);
            chat.extend(tokenizer.encode("assistant\n")?, false);
        }
        Ok(chat)
    }
}

/// The form as text, without a default system prompt.
fn text(messages: &[ChatMessage], add_generation_prompt: bool) -> String {
    let turns = messages
        .iter()
        .map(|m| format!("{START}{}\n{}{END}\n", m.role.name(), m.content));
    let prompt = add_generation_prompt.then(|| format!("{START}assistant\n"));
    turns.chain(prompt).collect()
}

/// What stands before `plain` in `rendered`: nothing, or one system turn. None where neither fits.
fn default_before(rendered: &str, plain: &str) -> Option<Option<String>> {
    let before = rendered.strip_suffix(plain)?;
    if before.is_empty() {
        return Some(None);
    }
    let inner = before
        .strip_prefix(&format!("{START}system\n"))?
        .strip_suffix(&format!("{END}\n"))?;
    (!inner.contains(START)).then(|| Some(inner.to_string()))
}
