//! The schema of an answer, in the subset that structured output takes: every object is
//! closed, every key is required, what is optional may be null.
//!
//! Promises: a call in the answer can only name a tool that the batch wants. Must not
//! know: what the keys are used for.

use serde_json::{Map, Value, json};

use super::jobs::Stream;
use crate::conversation::Kind;
use crate::tools::{ToolSet, ToolSpec};

/// `{examples: [{now, pair, turns: [{user, prose, calls, results, after}]}]}`.
pub(super) fn answer(stream: &Stream, tools: &ToolSet) -> Value {
    let wanted: Vec<&ToolSpec> = match (stream.kind, stream.tool.as_deref()) {
        (Kind::Single, Some(tool)) => tools.specs().filter(|spec| spec.name == tool).collect(),
        (Kind::Contrastive, _) => tools
            .specs()
            .filter(|spec| ["createTask", "createCalendarEvent"].contains(&spec.name.as_str()))
            .collect(),
        (Kind::Negative | Kind::General, _) => Vec::new(),
        _ => tools.specs().collect(),
    };
    let mut turn = vec![
        ("user", json!({"type": "string"})),
        ("prose", json!({"type": "string"})),
    ];
    if !wanted.is_empty() {
        let calls: Vec<Value> = wanted.into_iter().map(call).collect();
        turn.push(("calls", json!({"type": "array", "items": {"anyOf": calls}})));
        turn.push((
            "results",
            json!({"type": "array", "items": {"type": "string"}}),
        ));
        turn.push((
            "after",
            json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ));
    }
    let example = closed(vec![
        ("now", json!({"type": "string"})),
        ("pair", json!({"type": "integer"})),
        ("turns", json!({"type": "array", "items": closed(turn)})),
    ]);
    closed(vec![(
        "examples",
        json!({"type": "array", "items": example}),
    )])
}

fn closed(fields: Vec<(&str, Value)>) -> Value {
    let required: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> = fields
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn call(spec: &ToolSpec) -> Value {
    let params = spec
        .fields()
        .into_iter()
        .map(|(name, schema, required)| {
            let plain = plain(schema);
            let schema = if required {
                plain
            } else {
                json!({"anyOf": [plain, {"type": "null"}]})
            };
            (name, schema)
        })
        .collect();
    closed(vec![
        ("tool", json!({"type": "string", "enum": [spec.name]})),
        ("params", closed(params)),
    ])
}

/// Only the keywords that structured output knows.
fn plain(schema: &Value) -> Value {
    let mut kept = Map::new();
    for key in ["type", "enum", "format", "description"] {
        if let Some(value) = schema.get(key) {
            kept.insert(key.to_owned(), value.clone());
        }
    }
    if let Some(items) = schema.get("items") {
        kept.insert("items".to_owned(), plain(items));
    }
    Value::Object(kept)
}
