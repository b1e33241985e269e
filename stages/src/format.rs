//! The exact text of a turn: prose, then fenced JSON blocks with `tool` and `params`.
//!
//! Promises: `parse_turn(render_turn(t)) == t` for every turn without a fence in its
//! prose, and anything else than the exact format is a named fault. Must not know: which
//! tools exist, what a model or a tokenizer is.

use std::io;

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::conversation::{Call, Conversation, Message};

/// Raised whenever the text of a turn changes.
pub const FORMAT_VERSION: u32 = 1;

const OPEN: &str = "```json\n";
const CLOSE: &str = "\n```";

/// An assistant turn: prose and calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// The sentence before the calls; the whole answer when there are none.
    pub prose: String,
    /// The calls, in order.
    pub calls: Vec<Call>,
}

/// How a text breaks the format. `code` is stable; eval counts by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatFault {
    /// Nothing at all.
    #[error("the answer is empty")]
    Empty,
    /// A call without a sentence before it.
    #[error("no sentence before the first block")]
    NoProse,
    /// Not exactly one blank line before a block.
    #[error("block {0} is not separated by exactly one blank line")]
    Spacing(usize),
    /// The fence is missing or is not a json fence.
    #[error("a call stands outside a ```json block")]
    Fence,
    /// The closing fence is missing: a cut answer.
    #[error("block {0} is not closed")]
    Unclosed(usize),
    /// Text after a block.
    #[error("text after block {0}")]
    TextAfter(usize),
    /// Not JSON.
    #[error("block {block} is not JSON: {cause}")]
    Json {
        /// From 1.
        block: usize,
        /// The parser's words.
        cause: String,
    },
    /// JSON, but not an object with exactly `tool` (text) and `params` (object).
    #[error("block {block}: {cause}")]
    Keys {
        /// From 1.
        block: usize,
        /// Which key.
        cause: String,
    },
}

impl FormatFault {
    /// A stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "format::empty",
            Self::NoProse => "format::no-prose",
            Self::Spacing(_) => "format::spacing",
            Self::Fence => "format::fence",
            Self::Unclosed(_) => "format::unclosed",
            Self::TextAfter(_) => "format::text-after",
            Self::Json { .. } => "format::json",
            Self::Keys { .. } => "format::keys",
        }
    }
}

/// JSON on one line with `, ` and `: `, keys in the order they have.
pub fn json(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, Spaced);
    value
        .serialize(&mut writer)
        .expect("a JSON value writes into memory");
    String::from_utf8(bytes).expect("serde_json writes UTF-8")
}

struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, to: &mut W) -> io::Result<()> {
        to.write_all(b": ")
    }
}

/// The text of an assistant turn.
pub fn render_turn(prose: &str, calls: &[Call]) -> String {
    let mut text = prose.to_owned();
    for call in calls {
        text.push_str("\n\n");
        text.push_str(OPEN);
        text.push_str(&json(call));
        text.push_str(CLOSE);
    }
    text
}

/// Reads an assistant turn. Exact: what a strict program on the other side would accept.
pub fn parse_turn(text: &str) -> Result<Turn, FormatFault> {
    let Some(first) = fence_at(text) else {
        if text.trim().is_empty() {
            return Err(FormatFault::Empty);
        }
        if names_a_call(text) {
            return Err(FormatFault::Fence);
        }
        return Ok(Turn {
            prose: text.to_owned(),
            calls: Vec::new(),
        });
    };
    let prose = text[..first].trim_end_matches('\n');
    if prose.trim().is_empty() {
        return Err(FormatFault::NoProse);
    }
    if names_a_call(prose) {
        return Err(FormatFault::Fence);
    }
    let mut rest = &text[prose.len()..];
    let mut calls = Vec::new();
    while !rest.is_empty() {
        let block = calls.len() + 1;
        let (call, after) = take_block(rest, block)?;
        calls.push(call);
        rest = after;
    }
    Ok(Turn {
        prose: prose.to_owned(),
        calls,
    })
}

/// Where the first json fence begins: at the start of a line.
fn fence_at(text: &str) -> Option<usize> {
    let fence = OPEN.trim_end();
    text.match_indices(fence)
        .map(|(at, _)| at)
        .find(|&at| at == 0 || text[..at].ends_with('\n'))
}

/// A call written as bare text or in another fence.
fn names_a_call(text: &str) -> bool {
    text.contains("{\"tool\":") || text.contains("{ \"tool\"") || text.contains("\"params\":")
}

/// Reads `\n\n```json\n{...}\n``` ` from the front of `rest`.
fn take_block(rest: &str, block: usize) -> Result<(Call, &str), FormatFault> {
    let body = rest.trim_start_matches('\n');
    let gap = rest.len() - body.len();
    let Some(body) = body.strip_prefix(OPEN) else {
        if fence_at(body).is_some_and(|at| at == 0) {
            return Err(FormatFault::Spacing(block));
        }
        return Err(FormatFault::TextAfter(block - 1));
    };
    if gap != 2 {
        return Err(FormatFault::Spacing(block));
    }
    let end = body.find(CLOSE).ok_or(FormatFault::Unclosed(block))?;
    let call = read_call(&body[..end], block)?;
    Ok((call, &body[end + CLOSE.len()..]))
}

fn read_call(text: &str, block: usize) -> Result<Call, FormatFault> {
    let wrong = |cause: &str| FormatFault::Keys {
        block,
        cause: cause.to_owned(),
    };
    let value: Value = serde_json::from_str(text).map_err(|error| FormatFault::Json {
        block,
        cause: error.to_string(),
    })?;
    let Value::Object(mut object) = value else {
        return Err(wrong("it is no object"));
    };
    let tool = match object.shift_remove("tool") {
        Some(Value::String(tool)) => tool,
        Some(_) => return Err(wrong("`tool` is no text")),
        None => return Err(wrong("`tool` is missing")),
    };
    let params = match object.shift_remove("params") {
        Some(Value::Object(params)) => params,
        Some(_) => return Err(wrong("`params` is no object")),
        None => return Err(wrong("`params` is missing")),
    };
    if let Some(extra) = object.keys().next() {
        return Err(wrong(&format!("`{extra}` is not expected")));
    }
    Ok(Call { tool, params })
}

/// Who speaks in a rendered chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The system prompt.
    System,
    /// The person, or a tool result.
    User,
    /// The model: what is trained.
    Assistant,
}

impl Role {
    /// The name chat templates use.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One rendered message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// The text, before any chat template.
    pub content: String,
}

/// Renders a conversation: the system prompt, then user and assistant in turn.
pub fn chat(system: &str, row: &Conversation) -> Vec<ChatMessage> {
    chat_of(system, row.now, &row.messages)
}

/// Renders messages that may end with a user turn or a tool result: what eval asks.
pub fn chat_of(system: &str, now: Option<DateTime>, messages: &[Message]) -> Vec<ChatMessage> {
    let mut chat = vec![ChatMessage {
        role: Role::System,
        content: system.to_owned(),
    }];
    let mut clock = now;
    for message in messages {
        match message {
            Message::User { content } => {
                let content = match clock.take() {
                    Some(now) => format!("{}{content}", clock_prefix(now)),
                    None => content.clone(),
                };
                say(&mut chat, Role::User, content);
            }
            Message::Assistant { content, calls } => {
                say(&mut chat, Role::Assistant, render_turn(content, calls));
            }
            Message::Tool { content } => {
                say(&mut chat, Role::User, format!("Result: {}", json(content)));
            }
        }
    }
    chat
}

/// Appends a message; neighbours of one role become one message, a line each.
fn say(chat: &mut Vec<ChatMessage>, role: Role, content: String) {
    match chat.last_mut() {
        Some(last) if last.role == role => {
            last.content.push('\n');
            last.content.push_str(&content);
        }
        _ => chat.push(ChatMessage { role, content }),
    }
}

/// `[Mon 2026-03-02 09:00] `: it stands in the first user turn, so that the system prompt
/// is the same for every row and can be a shared prefix.
pub fn clock_prefix(now: DateTime) -> String {
    now.strftime("[%a %Y-%m-%d %H:%M] ").to_string()
}

/// A call from its parts; for tests and converters.
pub fn call(tool: &str, params: Map<String, Value>) -> Call {
    Call {
        tool: tool.to_owned(),
        params,
    }
}

#[cfg(test)]
mod tests;
