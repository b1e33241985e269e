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
    let turns = row.get("conversations").or_else(|| row.get("messages"));
    let Some(turns) = turns.and_then(Value::as_array) else {
        return drop_for("not-this-format", "no list `conversations` or `messages`");
    };
    let mut foreign = Foreign::default();
    if let Some(system) = row.get("system").and_then(Value::as_str) {
        foreign.tools = declared_in(system, &mut foreign.mended);
    }
    if let Some(tools) = row.get("tools").and_then(listed) {
        foreign.tools = specs(&tools, &mut foreign.mended);
    }
    for turn in turns {
        let role = text(turn, "from").or_else(|| text(turn, "role"));
        let body = text(turn, "value").or_else(|| text(turn, "content"));
        let (Some(role), Some(body)) = (role, body) else {
            return drop_for("turn-without-text", turn.to_string());
        };
        take(&mut foreign, role, body.trim())?;
    }
    Ok(foreign)
}

fn text<'a>(turn: &'a Value, key: &str) -> Option<&'a str> {
    turn.get(key).and_then(Value::as_str)
}

/// A `tools` column: a list, or a text that holds one (`"null"` holds none).
fn listed(value: &Value) -> Option<Vec<Value>> {
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
        "human" | "user" => Said::User(body.to_owned()),
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
    let mut body = body.to_owned();
    if let Some(thought) = between(&body, "<think>", "</think>").next() {
        let whole = format!("<think>{thought}</think>");
        body = body.replace(&whole, "").trim().to_owned();
        foreign.mended.push("thought-removed");
    }
    let bodies: Vec<String> = if role == "function_call" {
        vec![std::mem::take(&mut body)]
    } else if body.contains("<tool_call>") {
        let calls = between(&body, "<tool_call>", "</tool_call>").map(str::to_owned);
        let calls: Vec<String> = calls.collect();
        if calls.len() != body.matches("<tool_call>").count() {
            return drop_for("truncated-call", &body);
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
        .map_or(body.as_str(), |(prose, _)| prose)
        .trim();
    if !prose.is_empty() && !bodies.is_empty() {
        foreign.mended.push("prose-before-call");
    }
    let mut calls = Vec::new();
    for text in &bodies {
        calls.push(call(text, foreign)?);
    }
    Ok(Said::Assistant(prose.to_owned(), calls))
}

fn call(text: &str, foreign: &mut Foreign) -> Result<super::foreign::Asked, Dropped> {
    let mut text = text.trim().to_owned();
    if text.starts_with("\\n") || text.ends_with("\\n") {
        text = text.replace("\\n", " ").trim().to_owned();
        foreign.mended.push("literal-newlines");
    }
    if serde_json::from_str::<Value>(&text).is_err() {
        foreign.mended.push("python-literal");
    }
    let Some(mut value) = lenient::read(&text) else {
        return drop_for("broken-call", &text);
    };
    // Some rows hold the name inside the arguments.
    if value.get("name").is_none()
        && let Some(name) = value["arguments"]
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
    let read = |text: &str| lenient::read(text).unwrap_or_else(|| text.trim().into());
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

/// The texts between two marks, in order.
fn between<'a>(text: &'a str, open: &str, close: &str) -> std::vec::IntoIter<&'a str> {
    let parts: Vec<&str> = text
        .split(open)
        .skip(1)
        .filter_map(|part| part.split_once(close).map(|(inside, _)| inside))
        .collect();
    parts.into_iter()
}
