//! A dialogue of any foreign dataset, read but not yet ours.
//!
//! Promises: one shape for all formats; dirt that could be mended is named, dirt that
//! could not is a reason. Must not know: our tools, maps, files.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::tools::ToolSpec;

/// A read dialogue.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Foreign {
    /// The functions it declares.
    pub(super) tools: Vec<ToolSpec>,
    pub(super) turns: Vec<Said>,
    /// Names of dirt that was mended, once for each time.
    pub(super) mended: Vec<&'static str>,
}

impl Foreign {
    /// Refuses a call of a function that the dialogue does not declare.
    pub(super) fn all_declared(self) -> Result<Self, Dropped> {
        let calls = self.turns.iter().filter_map(|said| match said {
            Said::Assistant(_, calls) => Some(calls),
            _ => None,
        });
        let declared = |call: &&Asked| self.tools.iter().any(|tool| tool.name == call.name);
        let stray = calls.flatten().find(|call| !declared(call));
        match stray.map(|call| call.name.clone()) {
            Some(name) => drop_for("undeclared-function", name),
            None => Ok(self),
        }
    }

    /// Joins a turn that is nothing but calls to the assistant's turn right before it:
    /// some sets write prose and call, or each of several calls, as turns of their own.
    pub(super) fn joined(mut self) -> Self {
        let mut turns: Vec<Said> = Vec::with_capacity(self.turns.len());
        for said in self.turns {
            match (turns.last_mut(), said) {
                (Some(Said::Assistant(_, before)), Said::Assistant(prose, calls))
                    if prose.is_empty() && !calls.is_empty() =>
                {
                    before.extend(calls);
                    self.mended.push("call-turn-joined");
                }
                (_, said) => turns.push(said),
            }
        }
        self.turns = turns;
        self
    }
}

/// One turn.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    User(String),
    Assistant(String, Vec<Asked>),
    Tool(Value),
}

/// A foreign call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) arguments: Map<String, Value>,
}

/// Why a row is left out, with what was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    /// A stable name, `truncated-call`.
    pub(super) reason: &'static str,
    pub(super) detail: String,
}

/// A reason with its detail, shortened.
pub(super) fn drop_for<T>(reason: &'static str, detail: impl AsRef<str>) -> Result<T, Dropped> {
    let detail: String = detail.as_ref().chars().take(160).collect();
    Err(Dropped { reason, detail })
}

/// Reads the functions that stand one after another in `text`, whatever is between them.
/// A name declared twice keeps its first body.
pub(super) fn declared(text: &str, mended: &mut Vec<&'static str>) -> Vec<ToolSpec> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let mut stream = serde_json::Deserializer::from_str(&rest[at..]).into_iter::<Value>();
        match stream.next() {
            Some(Ok(value)) => {
                rest = &rest[at + stream.byte_offset()..];
                found.push(value);
            }
            _ => rest = &rest[at + 1..],
        }
    }
    specs(&found, mended)
}

/// The functions of a list, plain or wrapped as `{"type": "function", "function": {..}}`.
pub(super) fn specs(values: &[Value], mended: &mut Vec<&'static str>) -> Vec<ToolSpec> {
    let mut tools: BTreeMap<String, usize> = BTreeMap::new();
    let mut list: Vec<ToolSpec> = Vec::new();
    for value in values {
        let value = value.get("function").unwrap_or(value);
        let Some(spec) = spec(value) else { continue };
        if tools.contains_key(&spec.name) {
            mended.push("declared-twice");
            continue;
        }
        tools.insert(spec.name.clone(), list.len());
        list.push(spec);
    }
    list
}

fn spec(value: &Value) -> Option<ToolSpec> {
    let name = value.get("name")?.as_str()?.to_owned();
    let description = value.get("description").and_then(Value::as_str);
    let mut spec = serde_json::json!({"name": name, "description": description.unwrap_or("")});
    let params = value.get("parameters").or_else(|| value.get("arguments"));
    if let Some(params) = params.filter(|params| params["type"] == "object") {
        spec["params"] = params.clone();
    }
    serde_json::from_value(spec).ok()
}

/// A call object: `name` with `arguments` or `parameters`.
pub(super) fn asked(value: &Value, mended: &mut Vec<&'static str>) -> Result<Asked, Dropped> {
    let Some(name) = value.get("name").and_then(Value::as_str) else {
        return drop_for("call-without-name", value.to_string());
    };
    let arguments = if let Some(arguments) = value.get("arguments") {
        arguments
    } else {
        let Some(arguments) = value.get("parameters") else {
            return drop_for("call-without-arguments", value.to_string());
        };
        mended.push("parameters-key");
        arguments
    };
    let arguments = match arguments {
        Value::Object(arguments) => arguments.clone(),
        Value::Null => {
            mended.push("arguments-null");
            Map::new()
        }
        Value::Array(_) => return drop_for("arguments-list", value.to_string()),
        Value::String(text) => match super::lenient::read(text) {
            Some(Value::Object(arguments)) => {
                mended.push("arguments-text");
                arguments
            }
            _ => return drop_for("broken-call", text),
        },
        other => return drop_for("broken-call", other.to_string()),
    };
    if let Some(held) = arguments.values().find_map(placeholder) {
        return drop_for("placeholder", held);
    }
    Ok(Asked {
        name: name.to_owned(),
        arguments,
    })
}

/// `<city>`, `[Your Name]`, `your_api_key`: a value nobody gave.
fn placeholder(value: &Value) -> Option<String> {
    let text = value.as_str()?.trim();
    let lower = text.to_lowercase();
    let bracketed = (text.starts_with('<') && text.ends_with('>'))
        || (text.starts_with('[') && text.ends_with(']') && text.contains(' '));
    let spoken = ["your_", "your ", "user's ", "user_", "insert ", "example_"];
    let held = bracketed
        || matches!(
            lower.as_str(),
            "placeholder" | "n/a" | "tbd" | "string" | "unknown"
        )
        || spoken.iter().any(|start| lower.starts_with(start)) && text.len() < 30;
    held.then(|| text.to_owned())
}
