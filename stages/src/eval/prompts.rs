//! The evaluation prompts a person wrote: `data/eval/*.jsonl`.
//!
//! One object a line: `id`, `category`, optional `now`, `messages` ending with a user or
//! tool turn, and `expect`: the calls a right answer makes (empty: none). Every broken line
//! of the file is reported at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::civil::DateTime;
use serde::Deserialize;
use serde_json::Value;

use crate::contract::StageError;
use crate::conversation::{Message, read_lines};

/// One prompt and what a right answer does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvalPrompt {
    /// Unique name.
    pub(crate) id: String,
    /// `single`, `disambiguation`, `negative`, ...
    pub(crate) category: String,
    /// Local time of the user, `2026-03-02T09:00`.
    #[serde(default)]
    pub(crate) now: Option<DateTime>,
    /// The conversation so far.
    pub(crate) messages: Vec<Message>,
    /// Expected calls, in any order.
    pub(crate) expect: Vec<ExpectedCall>,
}

/// One expected call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectedCall {
    /// Tool name.
    pub(crate) tool: String,
    /// What its parameters should look like; those not named are free.
    #[serde(default)]
    pub(crate) params: BTreeMap<String, Matcher>,
}

/// How a parameter is compared: text without regard to case, other values by equality.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Matcher {
    /// The text contains this.
    Contains(String),
    /// The text starts with this.
    StartsWith(String),
    /// The value is this.
    Equals(Value),
    /// The value is one of these.
    OneOf(Vec<Value>),
}

impl Matcher {
    /// Whether `value` fits.
    pub(crate) fn accepts(&self, value: &Value) -> bool {
        let text = || match value {
            Value::String(text) => text.to_lowercase(),
            other => other.to_string().to_lowercase(),
        };
        match self {
            Self::Contains(part) => text().contains(&part.to_lowercase()),
            Self::StartsWith(part) => text().starts_with(&part.to_lowercase()),
            Self::Equals(wanted) => same(wanted, value),
            Self::OneOf(wanted) => wanted.iter().any(|one| same(one, value)),
        }
    }
}

fn same(wanted: &Value, value: &Value) -> bool {
    match (wanted, value) {
        (Value::String(a), Value::String(b)) => a.trim().eq_ignore_ascii_case(b.trim()),
        (a, b) => a == b,
    }
}

impl EvalPrompt {
    /// The last thing said, for people.
    pub(crate) fn asked(&self) -> String {
        match self.messages.last() {
            Some(Message::User { content } | Message::Assistant { content, .. }) => content.clone(),
            Some(Message::Tool { content }) => content.to_string(),
            None => String::new(),
        }
    }
}

/// Reads every file, in the order given; ids are unique over all of them.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<EvalPrompt>, StageError> {
    let mut prompts = Vec::new();
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for path in paths {
        for (prompt, place) in read_lines::<EvalPrompt>(path).map_err(StageError::from)? {
            match fault(&prompt, &mut seen) {
                Some(fault) => faults.push(format!("{place}: {fault}")),
                None => prompts.push(prompt),
            }
        }
    }
    if faults.is_empty() && prompts.is_empty() {
        faults.push("there is no prompt at all".to_owned());
    }
    if faults.is_empty() {
        return Ok(prompts);
    }
    let mend = "each line needs a unique `id`, `category`, `messages` ending with a user or tool turn, and `expect`";
    Err(StageError::new("eval::broken-prompts", faults.join("\n"), mend).at("inputs.prompts"))
}

fn fault(prompt: &EvalPrompt, seen: &mut BTreeSet<String>) -> Option<String> {
    if !seen.insert(prompt.id.clone()) {
        return Some(format!("id `{}` is used twice", prompt.id));
    }
    match prompt.messages.last() {
        Some(Message::User { .. } | Message::Tool { .. }) => None,
        _ => Some("the last message is not a user or tool turn".to_owned()),
    }
}
