//! The tools an assistant may call: `tools.yaml` and the JSON Schemas in it.
//!
//! Promises: schemas are compiled once; a call is either right or refused with the tool,
//! the parameter and the cause. Must not know: how tools are shown to a model (`prompt`),
//! how a call is written in text (`format`).

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::contract::StageError;
use crate::conversation::Call;

/// One tool as a person writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolSpec {
    /// The name in calls.
    pub name: String,
    /// When to use it, in a few words: it costs tokens on every request.
    #[serde(default)]
    pub description: String,
    /// A JSON Schema of type object.
    #[serde(default = "no_params")]
    pub params: Value,
}

fn no_params() -> Value {
    json!({"type": "object", "properties": {}, "required": [], "additionalProperties": false})
}

impl ToolSpec {
    /// The parameters in the order written: name, schema, whether it must be given.
    pub fn fields(&self) -> Vec<(&str, &Value, bool)> {
        let required: BTreeSet<&str> = self.params["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let Some(properties) = self.params["properties"].as_object() else {
            return Vec::new();
        };
        properties
            .iter()
            .map(|(name, schema)| (name.as_str(), schema, required.contains(name.as_str())))
            .collect()
    }

    /// The schema of one parameter.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.params["properties"].get(name)
    }
}

/// Why a tool list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The file cannot be read.
    #[error("`{path}`: {error}")]
    Io {
        /// The path.
        path: String,
        /// The cause.
        error: std::io::Error,
    },
    /// The text is not YAML of the right shape.
    #[error("`{path}`: {cause}")]
    Shape {
        /// The path.
        path: String,
        /// The parser's words, with line and column.
        cause: String,
    },
    /// Two tools of one name.
    #[error("tool `{0}` is declared twice")]
    Twice(String),
    /// No tool at all.
    #[error("the tool list is empty")]
    Empty,
    /// A schema that is not one.
    #[error("tool `{tool}`: its params are no JSON Schema of an object: {cause}")]
    Schema {
        /// The tool.
        tool: String,
        /// The cause.
        cause: String,
    },
}

impl From<ToolError> for StageError {
    fn from(error: ToolError) -> Self {
        let code = match &error {
            ToolError::Io { .. } => "tools::unreadable",
            ToolError::Shape { .. } => "tools::shape",
            ToolError::Twice(_) => "tools::declared-twice",
            ToolError::Empty => "tools::empty",
            ToolError::Schema { .. } => "tools::schema",
        };
        StageError::new(
            code,
            error.to_string(),
            "a tool file is `tools:` with a list of `name`, `description` and `params` (a JSON Schema)",
        )
        .at("inputs.tools")
    }
}

/// What is wrong with one call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFault {
    /// No such tool.
    #[error("unknown tool `{tool}`{}", did_you_mean(.near.as_deref()))]
    UnknownTool {
        /// The name called.
        tool: String,
        /// The nearest known name.
        near: Option<String>,
    },
    /// The parameters break the schema.
    #[error("`{tool}`{place}: {cause}")]
    Params {
        /// The tool.
        tool: String,
        /// `.dueDate`, or nothing for the whole.
        place: String,
        /// The cause.
        cause: String,
    },
}

fn did_you_mean(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!(", did you mean `{near}`?"))
}

struct Tool {
    spec: ToolSpec,
    schema: jsonschema::Validator,
}

/// The tools, in the order of the file, with their schemas compiled.
pub struct ToolSet {
    tools: Vec<Tool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolFile {
    tools: Vec<ToolSpec>,
}

impl ToolSet {
    /// Reads `tools.yaml`.
    pub fn read(path: &Path) -> Result<Self, ToolError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ToolError::Io {
            path: name.clone(),
            error,
        })?;
        Self::parse(&text).map_err(|error| match error {
            ToolError::Shape { cause, .. } => ToolError::Shape { path: name, cause },
            other => other,
        })
    }

    /// Reads the text of a `tools.yaml`.
    pub fn parse(text: &str) -> Result<Self, ToolError> {
        let file: ToolFile = serde_saphyr::from_str(text).map_err(|error| ToolError::Shape {
            path: "tools.yaml".to_owned(),
            cause: error.to_string(),
        })?;
        Self::new(file.tools)
    }

    /// Compiles a list of tools.
    pub fn new(specs: Vec<ToolSpec>) -> Result<Self, ToolError> {
        if specs.is_empty() {
            return Err(ToolError::Empty);
        }
        let mut seen = BTreeSet::new();
        let mut tools = Vec::with_capacity(specs.len());
        for spec in specs {
            if !seen.insert(spec.name.clone()) {
                return Err(ToolError::Twice(spec.name));
            }
            let schema = compile(&spec)?;
            tools.push(Tool { spec, schema });
        }
        Ok(Self { tools })
    }

    /// The tools as written.
    pub fn specs(&self) -> impl Iterator<Item = &ToolSpec> {
        self.tools.iter().map(|tool| &tool.spec)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.specs().map(|spec| spec.name.as_str())
    }

    /// The tool called `name`.
    pub fn get(&self, name: &str) -> Option<&ToolSpec> {
        self.specs().find(|spec| spec.name == name)
    }

    /// Checks a call: the tool is known and its parameters fit the schema. All faults.
    pub fn check(&self, call: &Call) -> Vec<CallFault> {
        let Some(tool) = self.tools.iter().find(|tool| tool.spec.name == call.tool) else {
            return vec![CallFault::UnknownTool {
                tool: call.tool.clone(),
                near: self.nearest(&call.tool),
            }];
        };
        let params = Value::Object(call.params.clone());
        tool.schema
            .iter_errors(&params)
            .map(|error| CallFault::Params {
                tool: call.tool.clone(),
                place: error.instance_path().to_string().replace('/', "."),
                cause: error.to_string(),
            })
            .collect()
    }

    fn nearest(&self, name: &str) -> Option<String> {
        self.names()
            .map(|known| {
                let (a, b) = (known.to_lowercase(), name.to_lowercase());
                (strsim::damerau_levenshtein(&a, &b), known)
            })
            .min()
            .filter(|(distance, _)| *distance <= 4)
            .map(|(_, known)| known.to_owned())
    }
}

fn compile(spec: &ToolSpec) -> Result<jsonschema::Validator, ToolError> {
    let refuse = |cause: String| ToolError::Schema {
        tool: spec.name.clone(),
        cause,
    };
    if spec.params["type"] != "object" {
        return Err(refuse("`type` is not `object`".to_owned()));
    }
    jsonschema::options()
        .should_validate_formats(true)
        .build(&spec.params)
        .map_err(|error| refuse(error.to_string()))
}

/// The ten tools of the assistant, for tests of every room.
#[cfg(test)]
pub(crate) fn assistant() -> ToolSet {
    ToolSet::parse(include_str!("../../data/tools.yaml")).expect("the tool file is right")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(tool: &str, params: Value) -> Call {
        Call {
            tool: tool.to_owned(),
            params: params.as_object().unwrap().clone(),
        }
    }

    #[test]
    fn right_calls_pass() {
        let tools = assistant();
        assert_eq!(tools.names().count(), 10);
        for right in [
            call("createTask", json!({"title": "Call John"})),
            call(
                "listTasks",
                json!({"status": "open", "dueBefore": "2026-03-03T00:00:00Z"}),
            ),
            call(
                "getWeather",
                json!({"location": "Oslo", "date": "2026-03-03"}),
            ),
        ] {
            assert_eq!(tools.check(&right), [], "{right:?}");
        }
    }

    #[test]
    fn wrong_calls_say_where() {
        let tools = assistant();
        let said = |tool, params| {
            tools
                .check(&call(tool, params))
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        };
        assert_eq!(
            said("create_task", json!({})),
            "unknown tool `create_task`, did you mean `createTask`?"
        );
        assert_eq!(
            said("createTask", json!({})),
            "`createTask`: \"title\" is a required property"
        );
        assert!(
            said("createTask", json!({"title": "x", "dueDate": "tomorrow"}))
                .starts_with("`createTask`.dueDate: "),
        );
        assert!(said("deleteTask", json!({"id": "a", "soft": true})).contains("'soft'"));
    }

    #[test]
    fn a_list_with_a_double_name_is_refused() {
        let text = "tools:\n  - {name: a}\n  - {name: a}\n";
        assert!(matches!(ToolSet::parse(text), Err(ToolError::Twice(name)) if name == "a"));
    }
}
