//! glaive-function-calling-v2: `system` and `chat` as two texts.
//!
//! Promises: each known kind of dirt is mended or dropped by name (docs: the dataset's
//! card; kinds counted in the raw file): arguments in single quotes with apostrophes
//! inside, as object, list or null, `parameters`, `\'`, Infinity, a brace too many, cut
//! calls, prose before a call, turns cut by `<|endoftext|>`. Must not know: our tools.

use serde_json::Value;

use super::foreign::{Asked, Dropped, Foreign, Said, asked, declared, drop_for};

const END: &str = "<|endoftext|>";
const CALL: &str = "<functioncall>";

/// Reads one row.
pub(super) fn read(row: &Value) -> Result<Foreign, Dropped> {
    let (Some(system), Some(chat)) = (row["system"].as_str(), row["chat"].as_str()) else {
        return drop_for("not-this-format", "no texts `system` and `chat`");
    };
    let mut foreign = Foreign::default();
    foreign.tools = declared(system, &mut foreign.mended);
    for (role, body) in turns(chat) {
        let said = match role {
            Role::User => user(body)?,
            Role::Response => response(body)?,
            Role::Assistant => assistant(body, &mut foreign)?,
        };
        let damaged = match (foreign.turns.last(), &said) {
            (Some(Said::Assistant(..)), Said::Assistant(..))
            | (Some(Said::User(_)), Said::User(_)) => true,
            (Some(Said::Assistant(_, calls)), Said::Tool(_)) => calls.is_empty(),
            _ => false,
        };
        if damaged {
            return drop_for("damaged-turn", body);
        }
        foreign.turns.push(said);
    }
    foreign.all_declared()
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    User,
    Assistant,
    Response,
}

const MARKS: [(&str, Role); 3] = [
    ("USER:", Role::User),
    ("ASSISTANT:", Role::Assistant),
    ("FUNCTION RESPONSE:", Role::Response),
];

/// Cuts the chat at the marks that begin a line; two or three newlines stand between turns.
fn turns(chat: &str) -> Vec<(Role, &str)> {
    let mut starts: Vec<(usize, usize, Role)> = Vec::new();
    for (mark, role) in MARKS {
        for (at, _) in chat.match_indices(mark) {
            if chat[..at].trim_end_matches(' ').is_empty() || chat[..at].ends_with('\n') {
                starts.push((at, at + mark.len(), role));
            }
        }
    }
    starts.sort_by_key(|(at, ..)| *at);
    let ends = starts.iter().skip(1).map(|(at, ..)| *at);
    let ends: Vec<usize> = ends.chain([chat.len()]).collect();
    starts
        .iter()
        .zip(ends)
        .map(|((_, from, role), end)| (*role, chat[*from..end].trim()))
        .collect()
}

fn user(body: &str) -> Result<Said, Dropped> {
    if body.contains(END) {
        return drop_for("damaged-turn", body);
    }
    Ok(Said::User(body.to_owned()))
}

fn response(body: &str) -> Result<Said, Dropped> {
    if body.contains(END) {
        return drop_for("damaged-turn", body);
    }
    match serde_json::from_str(body) {
        Ok(value) => Ok(Said::Tool(value)),
        Err(_) if body.starts_with(['{', '[']) => drop_for("broken-result", body),
        Err(_) => Ok(Said::Tool(Value::String(body.to_owned()))),
    }
}

fn assistant(body: &str, foreign: &mut Foreign) -> Result<Said, Dropped> {
    let text = body.strip_suffix(END).unwrap_or(body).trim();
    if text.contains(END) {
        return drop_for("damaged-turn", body);
    }
    let Some((prose, call)) = text.split_once(CALL) else {
        return Ok(Said::Assistant(text.to_owned(), Vec::new()));
    };
    if call.contains(CALL) {
        return drop_for("several-calls-in-a-turn", call);
    }
    let prose = prose.trim();
    if !prose.is_empty() {
        foreign.mended.push("prose-before-call");
    }
    let call = read_call(call.trim(), &mut foreign.mended)?;
    Ok(Said::Assistant(prose.to_owned(), vec![call]))
}

/// Reads `{"name": "f", "arguments": '{...}'}`, which is no JSON.
fn read_call(text: &str, mended: &mut Vec<&'static str>) -> Result<Asked, Dropped> {
    if text.contains("Infinity") || text.contains("NaN") {
        return drop_for("not-a-number", text);
    }
    for (text, extra) in [
        (text, false),
        (text.strip_suffix('}').unwrap_or(text), true),
    ] {
        let value = serde_json::from_str(text)
            .ok()
            .or_else(|| quoted(text, mended));
        let Some(value) = value else { continue };
        if extra {
            mended.push("extra-brace");
        } else if value["arguments"].is_object() && text.contains("\": {") {
            mended.push("arguments-object");
        }
        return asked(&value, mended);
    }
    if !text.ends_with('}') {
        return drop_for("truncated-call", text);
    }
    drop_for("broken-call", text)
}

/// The body between `"arguments": '` and the last `'}`; apostrophes inside are not escaped.
fn quoted(text: &str, mended: &mut Vec<&'static str>) -> Option<Value> {
    let (head, rest) = text.split_once('\'')?;
    let key = ["\"arguments\"", "\"parameters\""]
        .into_iter()
        .find(|key| {
            head.trim_end()
                .trim_end_matches(':')
                .trim_end()
                .ends_with(key)
        })?;
    let inner = rest
        .trim_end()
        .strip_suffix('}')?
        .trim_end()
        .strip_suffix('\'')?;
    let arguments = serde_json::from_str::<Value>(inner).or_else(|error| {
        if inner.contains("\\'") {
            mended.push("escaped-apostrophe");
            return serde_json::from_str(&inner.replace("\\'", "'"));
        }
        Err(error)
    });
    let name = head.split_once("\"name\"")?.1;
    let name = name.split('"').nth(1)?;
    let mut value = serde_json::json!({"name": name});
    value[key.trim_matches('"')] = arguments.ok()?;
    Some(value)
}
