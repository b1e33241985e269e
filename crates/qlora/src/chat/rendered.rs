//! Any other template: rendered whole, its answers found by rendering prefixes.
//!
//! The text before an answer is what the template renders for the messages before it with a generation
//! prompt. Where that is no prefix of the whole, the template is refused: guesses would mask the wrong tokens.

use super::jinja::Template;
use super::{ChatMessage, EncodedChat, Role};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

#[derive(Debug)]
pub(super) struct Rendered {
    template: Template,
}

/// Bytes of the rendered text that are to be predicted: an answer and the token that ends it.
struct Answer {
    start: usize,
    end: usize,
    end_token: u32,
}

impl Rendered {
    pub(super) fn new(template: Template) -> Self {
        Self { template }
    }

    pub(super) fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<EncodedChat> {
        refuse_specials(tokenizer, messages)?;
        let text = self.template.render(messages, add_generation_prompt)?;
        let answers = self.answers(tokenizer, messages, &text)?;
        let located = tokenizer.locate_with_specials(&text)?;
        // A token that straddles the start of an answer belongs to the prompt.
        let inside =
            |&(from, _): &(usize, usize)| answers.iter().any(|a| (a.start..a.end).contains(&from));
        let labels = located.ranges.iter().map(inside).collect();
        Ok(EncodedChat {
            ids: located.ids,
            labels,
        })
    }

    /// The end token of a one-question conversation.
    pub(super) fn stop_ids(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let messages = [
            ChatMessage::new(Role::User, "question"),
            ChatMessage::new(Role::Assistant, "answer"),
        ];
        let text = self.template.render(&messages, false)?;
        Ok(self
            .answers(tokenizer, &messages, &text)?
            .iter()
            .map(|answer| answer.end_token)
            .collect())
    }

    fn answers(
        &self,
        tokenizer: &Tokenizer,
        messages: &[ChatMessage],
        text: &str,
    ) -> Result<Vec<Answer>> {
        let answers = messages
            .iter()
            .enumerate()
            .filter(|(_, message)| message.role == Role::Assistant);
        answers
            .map(|(at, message)| {
                let before = match at {
                    0 => return refuse("an answer stands first"),
                    _ => self.template.render(&messages[..at], true)?,
                };
                if !text.starts_with(&before) {
                    return refuse("what stands before an answer changes once the answer is there");
                }
                let Some(found) = text[before.len()..].find(message.content.trim()) else {
                    return refuse("an answer's text is changed by the template");
                };
                let content_end = before.len() + found + message.content.trim().len();
                let Some((end, end_token)) = end_token(tokenizer, text, content_end) else {
                    return refuse("an answer is not followed by a special token that ends it");
                };
                Ok(Answer {
                    start: before.len(),
                    end,
                    end_token,
                })
            })
            .collect()
    }
}

/// The special token right after `from`, whitespace apart: where it ends, and its id.
fn end_token(tokenizer: &Tokenizer, text: &str, from: usize) -> Option<(usize, u32)> {
    let rest = text[from..].trim_start();
    let at = text.len() - rest.len();
    let longest = tokenizer
        .specials()
        .iter()
        .filter(|(name, _)| rest.starts_with(name.as_str()));
    let (name, id) = longest.max_by_key(|(name, _)| name.len())?;
    Some((at + name.len(), *id))
}

fn refuse<T>(why: &str) -> Result<T> {
    Err(Error::unsupported(
        "chat_template",
        why,
        "use a model with a ChatML or Mistral template",
    ))
}

/// In rendered text a special token written by a user cannot be told from the template's own.
fn refuse_specials(tokenizer: &Tokenizer, messages: &[ChatMessage]) -> Result<()> {
    for (at, message) in messages.iter().enumerate() {
        if let Some((name, _)) = tokenizer
            .specials()
            .iter()
            .find(|(name, _)| message.content.contains(name.as_str()))
        {
            return Err(Error::Chat {
                what: format!("message {} contains the special token `{name}`", at + 1),
                mend: "reword the message: this model's template cannot keep it apart".into(),
            });
        }
    }
    Ok(())
}
