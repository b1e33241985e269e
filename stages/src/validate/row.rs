//! Everything that can be wrong with one row.
//!
//! Promises: all faults of a row at once, each with a stable code. Must not know: files,
//! other rows.

use jiff::civil::DateTime;
use serde_json::Value;

use super::{CountTokens, leak};
use crate::conversation::{Call, Conversation, Kind, Message};
use crate::format::{ChatMessage, chat, json, parse_turn, render_turn};
use crate::prompt::system_prompt;
use crate::similarity::Guarded;
use crate::tools::ToolSet;

/// Tokens kept free for the answer.
const ANSWER: usize = 512;

/// Checks rows against one tool list.
pub(crate) struct Checker<'a> {
    tools: &'a ToolSet,
    system: String,
    eval: Option<&'a Guarded>,
    counter: &'a dyn CountTokens,
    limit: usize,
}

type Found = (&'static str, String);

impl<'a> Checker<'a> {
    pub(crate) fn new(
        tools: &'a ToolSet,
        eval: Option<&'a Guarded>,
        counter: &'a dyn CountTokens,
        limit: usize,
    ) -> Self {
        Self {
            tools,
            system: system_prompt(tools.specs()),
            eval,
            counter,
            limit,
        }
    }

    pub(crate) fn faults(&self, row: &Conversation) -> Vec<Found> {
        let mut found: Vec<Found> = row
            .shape_faults()
            .into_iter()
            .map(|cause| ("validate::shape", cause))
            .collect();
        let own = row.tools.as_ref().map(|specs| ToolSet::new(specs.clone()));
        let tools = match &own {
            None => self.tools,
            Some(Ok(own)) => own,
            Some(Err(error)) => {
                found.push(("validate::tool", error.to_string()));
                return found;
            }
        };
        found.extend(format_faults(row));
        for call in row.calls() {
            for fault in tools.check(call) {
                let code = match fault {
                    crate::tools::CallFault::UnknownTool { .. } => "validate::tool",
                    crate::tools::CallFault::Params { .. } => "validate::params",
                };
                found.push((code, fault.to_string()));
            }
        }
        found.extend(ids_from_nowhere(row));
        found.extend(kind_fault(row));
        if let Some(cause) = self.eval.and_then(|eval| leak(row, eval)) {
            found.push(("validate::eval-leak", cause));
        }
        found
    }

    /// Tokens of the whole rendered row, system prompt included.
    pub(super) fn tokens(&self, row: &Conversation) -> usize {
        let own = row.tools.as_ref().map(system_prompt);
        let system = own.as_deref().unwrap_or(&self.system);
        chat(system, row)
            .iter()
            .map(|ChatMessage { content, .. }| self.counter.count(content) + 4)
            .sum()
    }

    pub(super) fn too_long(&self, tokens: usize) -> Option<String> {
        (tokens + ANSWER > self.limit).then(|| {
            format!(
                "it takes {tokens} tokens, and {ANSWER} for the answer; the context holds {}",
                self.limit
            )
        })
    }
}

/// Renders each assistant turn, parses the text, and compares.
fn format_faults(row: &Conversation) -> Vec<Found> {
    let mut found = Vec::new();
    for (at, message) in row.messages.iter().enumerate() {
        let Message::Assistant { content, calls } = message else {
            continue;
        };
        let place = at + 1;
        match parse_turn(&render_turn(content, calls)) {
            Err(fault) => found.push((
                "validate::format",
                format!("message {place}: {fault} ({})", fault.code()),
            )),
            Ok(turn) if turn.prose != *content || turn.calls != *calls => found.push((
                "validate::format",
                format!("message {place}: its text does not read back as it was written"),
            )),
            Ok(_) if content.trim() != content => found.push((
                "validate::format",
                format!("message {place}: blanks around the prose"),
            )),
            Ok(_) => {}
        }
    }
    found
}

/// An `id` that stands in no earlier user turn and no earlier tool result is invented. A
/// user may also give its number alone: `393, typo`.
fn ids_from_nowhere(row: &Conversation) -> Vec<Found> {
    let (mut said, mut results) = (String::new(), String::new());
    let mut found = Vec::new();
    for message in &row.messages {
        match message {
            Message::User { content } => said.push_str(&format!("{content}\n").to_lowercase()),
            Message::Tool { content } => results.push_str(&json(content).to_lowercase()),
            Message::Assistant { calls, .. } => {
                for call in calls {
                    let Some(id) = used_id(call) else { continue };
                    let plain = id.to_lowercase();
                    let number = plain.rsplit('_').next().unwrap_or(&plain);
                    let known = holds_id(&results, &plain)
                        || holds_id(&said, &plain)
                        || holds_id(&said, number);
                    if !known {
                        found.push((
                            "validate::id-from-nowhere",
                            format!("`{}` uses the id `{id}`, which nobody gave it", call.tool),
                        ));
                    }
                }
            }
        }
    }
    found
}

fn used_id(call: &Call) -> Option<&str> {
    call.params.get("id").and_then(Value::as_str)
}

/// Whether `id` stands in `text` as a whole: `task_8` is not in `task_81`.
fn holds_id(text: &str, id: &str) -> bool {
    let part_of_id = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(id).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + id.len()..].chars().next();
        !before.is_some_and(part_of_id) && !after.is_some_and(part_of_id)
    })
}

/// A row says what it teaches; that has to be true.
fn kind_fault(row: &Conversation) -> Option<Found> {
    let calls = row.calls().count();
    let users = row.user_texts().count();
    let together = row
        .messages
        .iter()
        .any(|message| matches!(message, Message::Assistant { calls, .. } if calls.len() > 1));
    let wrong = match row.kind {
        Kind::Negative | Kind::General if calls > 0 => "but it calls a tool",
        Kind::Single if calls != 1 => "but it has not exactly one call",
        Kind::Compound if !together => "but no answer of it has several calls",
        Kind::MultiTurn if users < 2 && calls < 2 => "but it holds a single request",
        Kind::Crud if !row.calls().any(|call| used_id(call).is_some()) => "but it uses no id",
        Kind::Contrastive if row.group.is_none() => "but it names no `group`",
        _ => return None,
    };
    Some((
        "validate::kind",
        format!("its type is `{}`, {wrong}", row.kind),
    ))
}

/// Whether a call sets a time before `now`; counted, not refused: people do say `today`
/// late in the day.
pub(super) fn acts_in_the_past(row: &Conversation) -> bool {
    let Some(now) = row.now else { return false };
    row.calls().any(|call| {
        ["dueDate", "startTime"].iter().any(|name| {
            let text = call.params.get(*name).and_then(Value::as_str);
            text.and_then(|text| DateTime::strptime("%Y-%m-%dT%H:%M:%SZ", text).ok())
                .is_some_and(|time| time < now)
        })
    })
}
