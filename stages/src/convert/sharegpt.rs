//! ShareGPT: a list of turns with `from` and `value` (or `role` and `content`).
//!
//! Promises: the calls of its common dialects are read: `<functioncall> {..}`
//! (hypervariance), `<tool_call>..</tool_call>` with JSON or a Python literal (Hermes),
//! and turns of their own (`function_call`, `observation`: APIGen-MT, LLaMA-Factory).
//! Must not know: our tools.

use serde_json::Value;

use super::foreign::{Dropped, Foreign, Said, asked, declared, drop_for, specs};
use super::lenient;

/// Reads one row.
pub(super) fn read(row: &Value) -> Result<Foreign, Dropped> {
    Ok(dialogue(row)?.joined())
}

/// Reads one row, turn by turn as they stand.
pub(super) fn dialogue(row: &Value) -> Result<Foreign, Dropped> {
    let Some(turns) = turns(row) else {
        return drop_for("not-this-format", "no list `conversations` or `messages`");
    };
    let mut foreign = Foreign::default();
    if let Some(system) = text(row, "system") {
        foreign.tools = declared_in(system, &mut foreign.mended);
    }
    if let Some(tools) = row.get("tools").and_then(listed) {
        foreign.tools = specs(&tools, &mut foreign.mended);
    }
    for turn in turns {
        let (Some(role), Some(body)) = (role(turn), body(turn)) else {
            return drop_for("turn-without-text", turn.to_string());
        };
        take(&mut foreign, role, body.trim())?;
    }
    Ok(foreign)
}

fn turns(row: &Value) -> Option<&Vec<Value>> {
    let turns = row.get("conversations").or_else(|| row.get("messages"));
    turns.and_then(Value::as_array)
}

/// The system prompt of a row: a column, or a turn.
pub(super) fn system(row: &Value) -> Option<&str> {
    let said = || turns(row)?.iter().find(|turn| role(turn) == Some("system"));
    text(row, "system").or_else(|| body(said()?))
}

fn role(turn: &Value) -> Option<&str> {
    text(turn, "from").or_else(|| text(turn, "role"))
}

fn body(turn: &Value) -> Option<&str> {
    text(turn, "value").or_else(|| text(turn, "content"))
}

fn text<'a>(turn: &'a Value, key: &str) -> Option<&'a str> {
    turn.get(key).and_then(Value::as_str)
}

/// A `tools` column: a list, or a text that holds one (`"null"` holds none).
pub(super) fn listed(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(list) => Some(list.clone()),
        Value::String(text) => match lenient::read(text)? {
            Value::Array(list) => Some(list),
            _ => None,
        },
        _ => None,
    }
}

fn declared_in(system: &str, mended: &mut Vec<&'static str>) -> Vec<crate::tools::ToolSpec> {
    // The instructions name the tags too, with nothing inside.
    let inside = between(system, "<tools>", "</tools>").find_map(lenient::read);
    match inside {
        Some(Value::Array(list)) => specs(&list, mended),
        Some(one) => specs(&[one], mended),
        None => declared(system, mended),
    }
}

fn take(foreign: &mut Foreign, role: &str, body: &str) -> Result<(), Dropped> {
    let said = match role {
        "system" => {
            if foreign.tools.is_empty() {
                foreign.tools = declared_in(body, &mut foreign.mended);
            }
            return Ok(());
        }
        "human" | "user" => Said::User(without_thoughts(body, &mut foreign.mended)?),
        "gpt" | "assistant" | "function_call" => answer(role, body, foreign)?,
        "tool" | "function_response" | "observation" | "function" => {
            for value in results(body) {
                foreign.turns.push(Said::Tool(value));
            }
            return Ok(());
        }
        other => return drop_for("unknown-role", other),
    };
    foreign.turns.push(said);
    Ok(())
}

fn answer(role: &str, body: &str, foreign: &mut Foreign) -> Result<Said, Dropped> {
    let mut body = without_thoughts(body, &mut foreign.mended)?;
    let bodies: Vec<String> = if role == "function_call" {
        vec![std::mem::take(&mut body)]
    } else if body.contains("<tool_call>") {
        let calls = between(&body, "<tool_call>", "</tool_call>").map(str::to_owned);
        let calls: Vec<String> = calls.collect();
        if calls.len() != body.matches("<tool_call>").count() {
            return drop_for("truncated-call", &body);
        }
        if text_after_calls(&body) {
            foreign.mended.push("text-after-call");
        }
        calls
    } else if let Some((_, call)) = body.split_once("<functioncall>") {
        let call = call.split("</functioncall>").next().unwrap_or(call);
        vec![call.to_owned()]
    } else {
        Vec::new()
    };
    let prose = ["<tool_call>", "<functioncall>"]
        .iter()
        .find_map(|mark| body.split_once(mark))
        .map_or(body.as_str(), |(prose, _)| bare(prose));
    if !prose.is_empty() && !bodies.is_empty() {
        foreign.mended.push("prose-before-call");
    }
    let mut calls = Vec::new();
    for text in &bodies {
        calls.push(call(text, foreign)?);
    }
    Ok(Said::Assistant(prose.to_owned(), calls))
}

/// A turn without its thoughts. Where turns were cut anew they also stand at the end of
/// what the user says.
fn without_thoughts(body: &str, mended: &mut Vec<&'static str>) -> Result<String, Dropped> {
    let mut kept = String::new();
    let mut rest = body;
    while let Some((before, after)) = rest.split_once("<think>") {
        let Some((_, after)) = after.split_once("</think>") else {
            return drop_for("broken-thought", body);
        };
        kept.push_str(before);
        rest = after;
        mended.push("thought-removed");
    }
    kept.push_str(rest);
    if kept.contains("</think>") {
        return drop_for("broken-thought", body);
    }
    Ok(kept.trim().to_owned())
}

/// Whether anything but blanks stands between the calls of a turn, or after the last.
fn text_after_calls(body: &str) -> bool {
    let ends = body.split("</tool_call>").skip(1);
    ends.map(|after| after.split("<tool_call>").next().unwrap_or(after))
        .any(|after| !bare(after).is_empty())
}

fn call(text: &str, foreign: &mut Foreign) -> Result<super::foreign::Asked, Dropped> {
    let text = text.trim();
    let inside = bare(text);
    // Around the body they are dirt; inside they may as well be the escapes of a text.
    let flat = || lenient::read(&inside.replace("\\n", " "));
    let read = lenient::read(inside);
    if inside.len() < text.len() || (read.is_none() && inside.contains("\\n")) {
        foreign.mended.push("literal-newlines");
    }
    let Some(mut value) = read.or_else(flat) else {
        return drop_for("broken-call", text);
    };
    if lenient::is_python(inside) {
        foreign.mended.push("python-literal");
    }
    // Some rows hold the name inside the arguments.
    if value.get("name").is_none()
        && let Some(arguments) = value.get_mut("arguments")
        && let Some(name) = arguments
            .as_object_mut()
            .and_then(|a| a.shift_remove("name"))
    {
        value["name"] = name;
        foreign.mended.push("name-in-arguments");
    }
    asked(&value, &mut foreign.mended)
}

/// The results in a tool turn: wrapped ones by `content`, else the whole text.
fn results(body: &str) -> Vec<Value> {
    let wrapped: Vec<&str> = ["tool_response", "functionresponse"]
        .iter()
        .flat_map(|tag| between(body, &format!("<{tag}>"), &format!("</{tag}>")))
        .collect();
    let read = |text: &str| {
        let text = bare(text);
        lenient::read(text).unwrap_or_else(|| text.into())
    };
    if wrapped.is_empty() {
        return vec![read(body)];
    }
    wrapped
        .into_iter()
        .map(|text| {
            let value = read(text);
            value.get("content").cloned().unwrap_or(value)
        })
        .collect()
}

/// A text without the blanks around it, those written out as `\n` too.
fn bare(text: &str) -> &str {
    let mut rest = text.trim();
    while let Some(less) = rest
        .strip_prefix("\\n")
        .or_else(|| rest.strip_suffix("\\n"))
    {
        rest = less.trim();
    }
    rest
}

/// The texts between two marks, in order.
pub(super) fn between<'a>(text: &'a str, open: &str, close: &str) -> std::vec::IntoIter<&'a str> {
    let parts: Vec<&str> = text
        .split(open)
        .skip(1)
        .filter_map(|part| part.split_once(close).map(|(inside, _)| inside))
        .collect();
    parts.into_iter()
}
