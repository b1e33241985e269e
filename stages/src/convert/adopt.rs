//! From a foreign dialogue to one of our rows.
//!
//! Promises: the system prompt is gone, every call is ours or its own tool list comes
//! along, and the row would pass `validate`; else a reason. Must not know: files, formats.

use std::collections::BTreeSet;

use serde::Serialize;

use super::foreign::{Asked, Dropped, Foreign, Said, drop_for};
use super::map::{Otherwise, ToolMap, sentence};
use crate::conversation::{Call, Conversation, Kind, Message};
use crate::tools::{ToolSet, ToolSpec};
use crate::validate::Checker;

/// How rows are adopted.
pub(super) struct Adoption<'a> {
    pub(super) map: &'a ToolMap,
    pub(super) tools: &'a ToolSet,
    pub(super) checker: Checker<'a>,
    pub(super) otherwise: Otherwise,
    /// Letters of the longest row taken.
    pub(super) longest: usize,
    pub(super) source: &'a str,
}

/// Phrases that give away which functions the answer's author had.
const FOREIGN_TALK: [&str; 14] = [
    "my current function",
    "my current capabilit",
    "my capabilities",
    "my functions",
    "function i have",
    "functions i have",
    "functions available",
    "functions allow",
    "function allows",
    "i don't have the capability",
    "i don't have the ability",
    "i don't have access",
    "i'm currently only able",
    "i can only assist with",
];

impl Adoption<'_> {
    /// Adopts one dialogue; beside the row stands what was mended.
    pub(super) fn row(
        &self,
        id: String,
        mut foreign: Foreign,
    ) -> Result<(Conversation, Vec<&'static str>), Dropped> {
        self.until_unknown(&mut foreign)?;
        trim(&mut foreign);
        let own = self.keeps_own(&foreign);
        let mut messages = Vec::new();
        for said in &foreign.turns {
            messages.push(self.message(said, own.then_some(foreign.tools.as_slice()))?);
        }
        if !messages.iter().any(|m| matches!(m, Message::User { .. })) {
            return drop_for("no-user-turn", "");
        }
        let mut row = Conversation {
            id,
            source: self.source.to_owned(),
            kind: Kind::General,
            group: None,
            now: None,
            tools: own.then(|| foreign.tools.clone()),
            weight: None,
            messages,
        };
        if self.narrow(&mut row) {
            foreign.mended.push("tools-narrowed");
        }
        row.kind = kind(&row, !foreign.tools.is_empty());
        self.check(&row)?;
        Ok((row, foreign.mended))
    }

    fn check(&self, row: &Conversation) -> Result<(), Dropped> {
        let answers = row.messages.iter().filter_map(|message| match message {
            Message::Assistant { content, .. } => Some(content.to_lowercase()),
            _ => None,
        });
        if row.tools.is_none() {
            for answer in answers {
                if let Some(talk) = FOREIGN_TALK.iter().find(|talk| answer.contains(**talk)) {
                    return drop_for("names-foreign-tools", talk);
                }
            }
        }
        let letters = letters(row);
        if letters > self.longest {
            return drop_for("too-long", format!("{letters} letters"));
        }
        match self.checker.faults(row).into_iter().next() {
            None => Ok(()),
            Some((code, cause)) => drop_for(code, cause),
        }
    }

    /// Takes tools that nobody calls out of the row's own list, from the last, until the
    /// row is short enough: the fifteen tools of an agent are longer than its dialogue.
    fn narrow(&self, row: &mut Conversation) -> bool {
        let over = letters(row).saturating_sub(self.longest);
        let called: BTreeSet<String> = row.calls().map(|call| call.tool.clone()).collect();
        let Some(tools) = row.tools.as_mut().filter(|_| over > 0) else {
            return false;
        };
        let before = tools.len();
        let mut saved = 0;
        while saved < over
            && let Some(at) = tools.iter().rposition(|tool| !called.contains(&tool.name))
        {
            saved += letters(&tools.remove(at)) + 1;
        }
        tools.len() < before
    }

    /// Whether a call of the row is none of ours, and such rows keep their tools.
    fn keeps_own(&self, foreign: &Foreign) -> bool {
        self.otherwise == Otherwise::KeepOwnTools && self.first_unknown(foreign).is_some()
    }

    fn first_unknown<'f>(&self, foreign: &'f Foreign) -> Option<(usize, &'f Asked)> {
        foreign.turns.iter().enumerate().find_map(|(at, said)| {
            let Said::Assistant(_, calls) = said else {
                return None;
            };
            let unknown = calls.iter().find(|call| !self.map.knows(&call.name))?;
            Some((at, unknown))
        })
    }

    /// Refuses or cuts a row at its first call of a function that is none of ours.
    fn until_unknown(&self, foreign: &mut Foreign) -> Result<(), Dropped> {
        let Some((at, call)) = self.first_unknown(foreign) else {
            return Ok(());
        };
        let name = call.name.clone();
        match self.otherwise {
            Otherwise::KeepOwnTools => Ok(()),
            Otherwise::Drop => drop_for("unmapped-function", name),
            Otherwise::Negative => {
                foreign.turns.truncate(at);
                while matches!(foreign.turns.last(), Some(Said::User(_))) {
                    foreign.turns.pop();
                }
                if foreign.turns.is_empty() {
                    return drop_for("unmapped-function", name);
                }
                foreign.mended.push("cut-before-foreign-call");
                Ok(())
            }
        }
    }

    fn message(&self, said: &Said, own: Option<&[ToolSpec]>) -> Result<Message, Dropped> {
        match said {
            Said::User(content) => Ok(Message::User {
                content: content.clone(),
            }),
            Said::Tool(content) => Ok(Message::Tool {
                content: content.clone(),
            }),
            Said::Assistant(prose, asked) => {
                let calls = asked
                    .iter()
                    .map(|asked| self.call(asked, own.is_some()))
                    .collect::<Result<Vec<Call>, _>>()?;
                let mut content = prose.trim().to_owned();
                if content.is_empty()
                    && let Some(first) = calls.first()
                {
                    let spec = own.and_then(|own| own.iter().find(|t| t.name == first.tool));
                    content = sentence(first, spec);
                }
                Ok(Message::Assistant { content, calls })
            }
        }
    }

    fn call(&self, asked: &Asked, own: bool) -> Result<Call, Dropped> {
        if own {
            return Ok(Call {
                tool: asked.name.clone(),
                params: asked.arguments.clone(),
            });
        }
        self.map
            .call(asked, self.tools)
            .or_else(|cause| drop_for("unmappable-params", cause))
    }
}

/// A dialogue ends with an answer: a last question without one goes, and a last result.
fn trim(foreign: &mut Foreign) {
    let before = foreign.turns.len();
    while !matches!(foreign.turns.last(), Some(Said::Assistant(..)) | None) {
        foreign.turns.pop();
    }
    if foreign.turns.len() < before {
        foreign.mended.push("ends-without-answer");
    }
}

fn letters(written: &impl Serialize) -> usize {
    serde_json::to_string(written).map_or(0, |text| text.chars().count())
}

fn kind(row: &Conversation, had_tools: bool) -> Kind {
    let calls = row.calls().count();
    let several = row
        .messages
        .iter()
        .any(|message| matches!(message, Message::Assistant { calls, .. } if calls.len() > 1));
    match (calls, row.user_texts().count()) {
        (0, _) if had_tools => Kind::Negative,
        (0, _) => Kind::General,
        _ if several => Kind::Compound,
        (1, 1) => Kind::Single,
        _ => Kind::MultiTurn,
    }
}

/// The text duplicates are looked for in: what the user says first.
pub(super) fn opening(row: &Conversation) -> &str {
    row.user_texts().next().unwrap_or("")
}
