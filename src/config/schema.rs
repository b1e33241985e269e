//! JSON Schema of `pipeline.yaml` for editors, made from the registry.
//!
//! Promises: whatever [`super::load()`] accepts, the schema accepts; names, types, ranges
//! and one line of help come from the same tables that the parser reads.
//! Source: JSON Schema draft-07, which every YAML language server knows.

use serde_json::{Map, Value, json};
use stages::{Field, FieldType, Port, Stage};

use super::resources::{MOST_SLOTS, POOLS, SIZES};

/// The schema.
pub fn schema(registry: &[&'static dyn Stage]) -> Value {
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "tunesmith pipeline",
        "type": "object",
        "required": ["name", "stages"],
        "additionalProperties": false,
        "patternProperties": { "^x-": { "description": "yours; a place for anchors" } },
        "properties": {
            "name": text("name of the pipeline"),
            "seed": whole("seed of every random choice; part of every key", 0, None),
            "params": {
                "description": "parameters and their defaults; written as ${name} below",
                "type": ["object", "null"],
                "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
            },
            "profiles": {
                "description": "sizes of the same graph: parameters that differ",
                "type": ["object", "null"],
                "additionalProperties": { "type": ["object", "null"] },
            },
            "default_profile": text("the profile of a plain run; else the first"),
            "default": texts("what a plain run makes; else every stage without an outside effect"),
            "pools": pools("sizes that win over the machine's; a new name makes a pool"),
            "checkpoints": {
                "description": "how long half-done work is kept",
                "type": ["object", "null"],
                "additionalProperties": false,
                "properties": {
                    "max_age": span("it goes when nothing in it changed for so long; 14d"),
                    "max_size": amount("the oldest goes while all together is larger; 50GiB"),
                    "keep": { "description": "whether it stays after success", "type": ["boolean", "string"] },
                },
            },
            "store": store(),
            "remote": remote(),
            "stages": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": { "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]*$" },
                "additionalProperties": { "$ref": "#/definitions/stage" },
            },
        },
        "definitions": {
            "stage": stage(registry),
            "expression": {
                "description": "${param}, with + - * / and parentheses",
                "type": "string",
                "pattern": "\\$\\{",
            },
        },
    })
}

fn store() -> Value {
    let measure = |about: &str, pattern: &str| json!({ "description": about, "type": "string", "pattern": pattern });
    json!({
        "description": "where results are kept, and how long; a path, or a map",
        "anyOf": [
            { "type": "string" },
            { "type": "null" },
            {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "path": text("a folder that several checkouts share"),
                    "max_size": measure("above it the longest unused results go, 100 GB", "^\\s*[0-9.]+ *([kKMGT]?B|[KMGT]iB)\\s*$"),
                    "max_age": measure("results that were not used for so long go, 30d", "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$"),
                    "gc": { "description": "whether runs collect by themselves", "type": "boolean" },
                },
            },
        ],
    })
}

fn remote() -> Value {
    json!({
        "description": "where results are fetched from and put; an address, or a map",
        "anyOf": [
            { "type": "string" },
            { "type": "null" },
            {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "url": text("s3://bucket/prefix, gs://, az://, https:// (only read), or a folder; credentials come from the environment"),
                    "push": {
                        "description": "whether results are put there; `true` means not by the CI of a pull request",
                        "enum": [true, false, "true", "false", "yes", "no", "0", "1", "always"],
                    },
                    "endpoint": text("where the service answers, if not at its own address"),
                    "region": text("of an S3 bucket; else AWS_REGION"),
                    "timeout": { "description": "how long an answer may take, 30s", "type": "string", "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$" },
                },
            },
        ],
    })
}

/// The schema as the text of `docs/pipeline.schema.json`.
pub fn schema_text(registry: &[&'static dyn Stage]) -> String {
    let text = serde_json::to_string_pretty(&schema(registry));
    text.expect("a JSON value can be written") + "\n"
}

fn stage(registry: &[&'static dyn Stage]) -> Value {
    let kinds: Vec<Value> = registry
        .iter()
        .map(|stage| json!({ "const": stage.kind(), "description": stage.about() }))
        .collect();
    let by_kind: Vec<Value> = registry.iter().map(|stage| by_kind(*stage)).collect();
    let uses = if kinds.is_empty() {
        text("a built-in stage")
    } else {
        json!({ "oneOf": kinds })
    };
    json!({
        "type": "object",
        "additionalProperties": false,
        "oneOf": [
            { "required": ["uses"], "not": { "anyOf": [
                { "required": ["outputs"] }, { "required": ["effect"] }, { "required": ["fingerprint"] },
            ] } },
            { "required": ["run"], "anyOf": [
                { "required": ["outputs"] }, { "required": ["effect"] },
            ], "not": { "required": ["with"] } },
        ],
        "allOf": by_kind,
        "properties": {
            "uses": uses,
            "with": { "description": "parameters of the built-in stage", "type": ["object", "null"] },
            "run": text("a shell command; its folder holds only the inputs, ${inputs.x} and ${outputs.x} are their paths"),
            "outputs": {
                "description": "what the command writes: name and path below its folder; the first is the default",
                "type": ["object", "null"],
                "additionalProperties": { "type": "string" },
            },
            "inputs": {
                "description": "a stage, `stage:product`, or a path (with a `/`)",
                "type": ["object", "null"],
                "additionalProperties": reference(true),
            },
            "about": text("one line for people"),
            "env": {
                "description": "environment of the stage; part of the key",
                "type": ["object", "null"],
                "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
                "additionalProperties": { "type": ["string", "number", "boolean"] },
            },
            "secrets": texts("names of environment variables handed through; never keyed, masked in logs"),
            "resources": pools("what the stage takes while it runs; never keyed"),
            "retries": whole("further tries after a failure that may pass by itself", 0, Some(100)),
            "timeout": span("90s, 10m, 1h30m"),
            "gates": {
                "description": "bounds on the stage's metrics; in no key",
                "type": ["object", "null"],
                "additionalProperties": { "anyOf": [
                    { "type": "string", "pattern": "^\\s*(>=|<=)" },
                    { "$ref": "#/definitions/expression" },
                ] },
            },
            "seed": whole("another seed than the pipeline's", 0, None),
            "profiles": texts("the profiles it is part of; else all"),
            "matrix": matrix(),
            "pick": {
                "description": "which cell of the sweep above goes on, by a metric of a stage: val-eval.loss",
                "type": "object",
                "additionalProperties": false,
                "minProperties": 1,
                "maxProperties": 1,
                "properties": {
                    "max": text("the cell with the largest value of this metric"),
                    "min": text("the cell with the smallest value of this metric"),
                },
            },
            "fingerprint": {
                "description": "programs whose output is a part of the key: python --version",
                "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
            },
            "effect": {
                "description": "external: it changes something outside and runs only when named",
                "enum": ["external", "none"],
            },
        },
    })
}

fn matrix() -> Value {
    let single = json!({ "type": ["string", "number", "boolean"] });
    let number = json!({ "anyOf": [{ "type": "number" }, { "$ref": "#/definitions/expression" }] });
    let cells = json!({
        "type": "array",
        "items": { "type": "object", "additionalProperties": single },
    });
    json!({
        "description": "a sweep: parameters and the values that they take, in every combination",
        "type": ["object", "null"],
        "properties": { "exclude": cells, "include": cells },
        "additionalProperties": { "anyOf": [
            { "type": "array", "minItems": 1, "items": single },
            { "$ref": "#/definitions/expression" },
            {
                "type": "object",
                "additionalProperties": false,
                "required": ["from", "to"],
                "properties": {
                    "from": number,
                    "to": number,
                    "step": number,
                    "factor": number,
                    "count": number,
                    "scale": { "enum": ["linear", "log"] },
                },
            },
        ] },
    })
}

/// What `with` and `inputs` hold where `uses` names this stage.
fn by_kind(stage: &'static dyn Stage) -> Value {
    let fields: Map<String, Value> = stage
        .fields()
        .iter()
        .map(|f| (f.name.to_owned(), field(f)))
        .collect();
    let ports: Map<String, Value> = stage
        .inputs()
        .iter()
        .map(|p| (p.name.to_owned(), port(p)))
        .collect();
    let required_fields = stage
        .fields()
        .iter()
        .filter(|field| field.default.is_none());
    let required_fields: Vec<&str> = required_fields.map(|field| field.name).collect();
    let required_ports = stage.inputs().iter().filter(|port| port.required);
    let required_ports: Vec<&str> = required_ports.map(|port| port.name).collect();
    let mut needed = Vec::new();
    needed.extend((!required_fields.is_empty()).then_some("with"));
    needed.extend((!required_ports.is_empty()).then_some("inputs"));
    json!({
        "if": { "properties": { "uses": { "const": stage.kind() } }, "required": ["uses"] },
        "then": {
            "required": needed,
            "properties": {
                "with": block(fields, &required_fields),
                "inputs": block(ports, &required_ports),
            },
        },
    })
}

fn block(properties: Map<String, Value>, required: &[&str]) -> Value {
    let mut block = json!({
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    });
    if required.is_empty() {
        block["type"] = json!(["object", "null"]);
    } else {
        block["type"] = json!("object");
    }
    block
}

fn field(field: &Field) -> Value {
    let own = match field.kind {
        FieldType::Bool => json!({ "type": "boolean" }),
        FieldType::Int(low, high) => json!({ "type": "integer", "minimum": low, "maximum": high }),
        FieldType::Float(low, high) => {
            json!({ "type": "number", "minimum": low, "maximum": high })
        }
        FieldType::Text => json!({ "type": "string" }),
        FieldType::Choice(words) => json!({ "enum": words }),
        FieldType::TextList => json!({ "type": "array", "items": { "type": "string" } }),
        FieldType::IntList(low, high) => json!({
            "type": "array",
            "items": { "type": "integer", "minimum": low, "maximum": high },
        }),
        FieldType::Names { all, names } => json!({ "anyOf": [
            { "const": all },
            { "type": "array", "items": { "anyOf": [{ "enum": names }, { "type": "string" }] } },
        ] }),
        FieldType::Map => json!({ "type": "object" }),
        FieldType::Any => json!({}),
    };
    let mut kinds = vec![own, json!({ "$ref": "#/definitions/expression" })];
    let default: Option<Value> = field
        .default
        .and_then(|text| serde_json::from_str(text).ok());
    if default == Some(Value::Null) {
        kinds.push(json!({ "type": "null" }));
    }
    let mut schema = json!({ "description": field.about, "anyOf": kinds });
    if let Some(default) = default.filter(|default| !default.is_null()) {
        schema["default"] = default;
    }
    schema
}

fn port(port: &Port) -> Value {
    let mut schema = reference(port.many);
    schema["description"] = json!(port.about);
    schema
}

fn reference(many: bool) -> Value {
    if many {
        json!({ "type": ["string", "array", "null"], "items": { "type": ["string", "null"] } })
    } else {
        json!({ "type": ["string", "null"] })
    }
}

fn text(about: &str) -> Value {
    json!({ "description": about, "type": "string" })
}

fn texts(about: &str) -> Value {
    json!({
        "description": about,
        "type": ["string", "array", "null"],
        "items": { "type": "string" },
    })
}

fn whole(about: &str, low: u64, high: Option<u64>) -> Value {
    let mut own = json!({ "type": "integer", "minimum": low });
    if let Some(high) = high {
        own["maximum"] = json!(high);
    }
    json!({ "description": about, "anyOf": [own, { "$ref": "#/definitions/expression" }] })
}

fn span(about: &str) -> Value {
    json!({
        "description": about,
        "anyOf": [
            { "type": "string", "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$" },
            { "$ref": "#/definitions/expression" },
        ],
    })
}

fn amount(about: &str) -> Value {
    json!({
        "description": about,
        "anyOf": [
            { "type": "string", "pattern": "^\\s*[0-9.]+\\s*([kMGT]?B|[KMGT]iB)\\s*$" },
            { "$ref": "#/definitions/expression" },
        ],
    })
}

fn pools(about: &str) -> Value {
    let slots = POOLS.iter();
    let slots = slots.map(|(name, _)| ((*name).to_owned(), whole("slots", 1, Some(MOST_SLOTS))));
    let sizes = SIZES.iter();
    let sizes = sizes.map(|name| ((*name).to_owned(), amount("a size, 8GiB")));
    json!({
        "description": about,
        "type": ["object", "null"],
        "propertyNames": { "pattern": "^[A-Za-z][A-Za-z0-9_-]*$" },
        "properties": slots.chain(sizes).collect::<Map<String, Value>>(),
        "additionalProperties": whole("slots of a pool of yours", 1, Some(MOST_SLOTS)),
    })
}
