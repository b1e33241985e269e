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
    pub(super) fn recognise(template: &Template, tokenizer: &Tokenizer) -> Option<Self> {
        let special = |text: &str| {
            tokenizer
                .specials()
                .iter()
                .find(|(name, _)| name == text)
                .map(|(_, id)| *id)
        };
        let (start, end) = (special(START)?, special(END)?);
        let system = ChatMessage::new(Role::System, " be  brief ");
        let mut before: Option<String> = None;
        for (messages, prompt) in probes() {
            let mut with_system = vec![system.clone()];
            with_system.extend_from_slice(&messages);
            if template.render(&with_system, prompt).ok()? != text(&with_system, prompt) {
                return None;
            }
            // What a conversation without a system prompt gets in front: nothing, or one system turn.
            let bare = template.render(&messages, prompt).ok()?;
            let found = bare.strip_suffix(&text(&messages, prompt))?;
            if found != before.get_or_insert_with(|| found.to_string()) {
                return None;
            }
        }
        let default_system = match before?.as_str() {
            "" => None,
            turn => Some(only_system_turn(turn)?.to_string()),
        };
        Some(Self {
            start,
            end,
            default_system,
        })
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

/// The content of `turn`, where it is one system turn and no more.
fn only_system_turn(turn: &str) -> Option<&str> {
    let content = turn
        .strip_prefix(&format!("{START}system\n"))?
        .strip_suffix(&format!("{END}\n"))?;
    (!content.contains(START)).then_some(content)
}
