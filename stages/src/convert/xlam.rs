//! xlam-function-calling-60k: `query`, and `tools` and `answers` as texts of JSON.
//!
//! Promises: the flat parameters with Python-like types (`int, optional`, `List[str]`)
//! become JSON Schemas that depend on the declaration alone, never on the answer. A row
//! ends with its calls: the set holds no reply. Must not know: our tools.

use serde_json::{Map, Value, json};

use super::foreign::{Dropped, Foreign, Said, asked, drop_for, specs};
use super::sharegpt::listed;

/// Reads one row.
pub(super) fn read(row: &Value) -> Result<Foreign, Dropped> {
    let (Some(query), Some(tools), Some(answers)) =
        (row["query"].as_str(), row.get("tools"), row.get("answers"))
    else {
        return drop_for("not-this-format", "no `query`, `tools` and `answers`");
    };
    let Some(tools) = listed(tools) else {
        return drop_for("broken-tools", tools.to_string());
    };
    let Some(answers) = listed(answers) else {
        return drop_for("broken-call", answers.to_string());
    };
    if answers.is_empty() {
        return drop_for("no-answer", query);
    }
    let mut foreign = Foreign::default();
    let tools: Vec<Value> = tools.into_iter().map(with_schema).collect();
    foreign.tools = specs(&tools, &mut foreign.mended);
    let calls = answers
        .iter()
        .map(|answer| asked(answer, &mut foreign.mended))
        .collect::<Result<_, _>>()?;
    foreign.turns = vec![
        Said::User(query.trim().to_owned()),
        Said::Assistant(String::new(), calls),
    ];
    foreign.all_declared()
}

/// A declaration with a JSON Schema in place of the flat list of parameters. A parameter
/// may itself be called `type`: only a text `object` there marks a schema.
fn with_schema(mut tool: Value) -> Value {
    let flat = tool.get("parameters").and_then(Value::as_object);
    if let Some(flat) = flat.filter(|flat| flat.get("type") != Some(&json!("object"))) {
        tool["parameters"] = object(flat);
    }
    tool
}

fn object(flat: &Map<String, Value>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, param) in flat {
        let kind = param["type"].as_str().unwrap_or("");
        // Required ones have a default too, so a default says nothing.
        if !is_optional(kind) {
            required.push(name.as_str());
        }
        let mut property = schema(kind);
        for key in ["description", "default"] {
            if let Some(said) = param.get(key).filter(|said| says_something(said)) {
                property[key] = said.clone();
            }
        }
        properties.insert(name.clone(), property);
    }
    json!({"type": "object", "properties": properties, "required": required,
        "additionalProperties": false})
}

fn says_something(value: &Value) -> bool {
    !value.is_null() && value != ""
}

/// `int, optional` or `Optional[int]`.
fn is_optional(kind: &str) -> bool {
    let mut parts = parts(kind).into_iter();
    parts.next().is_some_and(|kind| head(kind).0 == "optional")
        || parts.any(|note| note.to_lowercase().starts_with("optional"))
}

/// The JSON Schema of a Python type; one that JSON has no word for takes anything.
fn schema(kind: &str) -> Value {
    let kind = parts(kind).first().copied().unwrap_or("");
    let (name, inner) = head(kind);
    match name.as_str() {
        "str" | "string" => json!({"type": "string"}),
        "int" | "integer" => json!({"type": "integer"}),
        "float" | "number" => json!({"type": "number"}),
        "bool" | "boolean" => json!({"type": "boolean"}),
        "dict" | "object" => json!({"type": "object"}),
        "list" | "set" | "tuple" | "array" => {
            let mut items: Vec<Value> = inner.into_iter().map(schema).collect();
            items.dedup();
            match items.as_slice() {
                [one] if *one != json!({}) => json!({"type": "array", "items": one}),
                _ => json!({"type": "array"}),
            }
        }
        "optional" => inner.first().map_or_else(|| json!({}), |one| schema(one)),
        "union" => {
            let kinds: Vec<Value> = inner.into_iter().map(schema).collect();
            if kinds.is_empty() || kinds.contains(&json!({})) {
                return json!({});
            }
            json!({"anyOf": kinds})
        }
        _ => json!({}),
    }
}

/// `List[int]` -> `list` and what stands in the brackets.
fn head(kind: &str) -> (String, Vec<&str>) {
    let (name, inner) = match kind.split_once('[') {
        Some((name, rest)) => (name, rest.trim_end().strip_suffix(']')),
        None => (kind, None),
    };
    (name.trim().to_lowercase(), inner.map_or(vec![], parts))
}

/// Splits at the commas outside brackets.
fn parts(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(|sign: char| {
        match sign {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        sign == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty() && *part != "...")
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_types_become_schemas() {
        let number = json!({"type": "number"});
        for (kind, expected) in [
            ("str", json!({"type": "string"})),
            ("int, optional", json!({"type": "integer"})),
            ("Optional[float]", number.clone()),
            (
                "List[int]",
                json!({"type": "array", "items": {"type": "integer"}}),
            ),
            (
                "List[Tuple[float, float]], optional",
                json!({"type": "array", "items": {"type": "array", "items": number}}),
            ),
            ("Tuple[str, int]", json!({"type": "array"})),
            (
                "Tuple[int, ...]",
                json!({"type": "array", "items": {"type": "integer"}}),
            ),
            ("set", json!({"type": "array"})),
            ("Dict[str, List[int]]", json!({"type": "object"})),
            (
                "Union[int, str]",
                json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
            ),
            ("Union[int, Any]", json!({})),
            ("Callable[[float], float]", json!({})),
            ("", json!({})),
        ] {
            assert_eq!(schema(kind), expected, "{kind}");
        }
    }

    #[test]
    fn only_the_word_optional_makes_a_parameter_optional() {
        let flat = json!({"parameters": {
            "type": {"type": "str", "default": "game", "description": "Kind"},
            "page": {"type": "int, optional", "default": ""},
            "box": {"type": "Optional[Tuple[int, int]]"}}});
        assert_eq!(
            with_schema(flat)["parameters"],
            json!({"type": "object", "properties": {
                "type": {"type": "string", "description": "Kind", "default": "game"},
                "page": {"type": "integer"},
                "box": {"type": "array", "items": {"type": "integer"}}},
                "required": ["type"], "additionalProperties": false})
        );
    }

    #[test]
    fn a_whole_schema_stays() {
        let whole = json!({"name": "f", "parameters": {"type": "object", "properties": {}}});
        assert_eq!(with_schema(whole.clone()), whole);
    }
}
