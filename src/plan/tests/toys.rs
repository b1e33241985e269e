//! Small built-in stages: one with parameters and inputs, one with an outside source.

use stages::{Context, Field, FieldType, Outcome, Params, Port, Product, Stage, StageError};

pub(super) struct Toy;
pub(super) struct Pull;

const ROWS: &[Product] = &[Product {
    name: "rows",
    path: "rows.jsonl",
    about: "rows",
}];

impl Stage for Toy {
    fn kind(&self) -> &'static str {
        "toy"
    }
    fn about(&self) -> &'static str {
        "a toy"
    }
    fn version(&self) -> u32 {
        3
    }
    fn shared(&self) -> &'static [(&'static str, u32)] {
        &[("tokenizer", 2), ("canonical", 1)]
    }
    fn fields(&self) -> &'static [Field] {
        &[
            Field {
                name: "lr",
                kind: FieldType::Float(0.0, 1.0),
                default: Some("0.1"),
                about: "rate",
            },
            Field {
                name: "more",
                kind: FieldType::Any,
                default: Some("null"),
                about: "anything",
            },
        ]
    }
    fn inputs(&self) -> &'static [Port] {
        &[Port {
            name: "rows",
            required: true,
            many: true,
            about: "rows",
        }]
    }
    fn products(&self) -> &'static [Product] {
        ROWS
    }
    fn run(&self, _: &Params, _: &Context<'_>) -> Result<Outcome, StageError> {
        unreachable!("plans never run a stage")
    }
}

impl Stage for Pull {
    fn kind(&self) -> &'static str {
        "pull"
    }
    fn about(&self) -> &'static str {
        "pulls"
    }
    fn version(&self) -> u32 {
        1
    }
    fn fields(&self) -> &'static [Field] {
        &[]
    }
    fn inputs(&self) -> &'static [Port] {
        &[]
    }
    fn products(&self) -> &'static [Product] {
        ROWS
    }
    fn source(&self, _: &Params) -> Option<String> {
        Some("hub:o/d@main".to_owned())
    }
    fn run(&self, _: &Params, _: &Context<'_>) -> Result<Outcome, StageError> {
        unreachable!("plans never run a stage")
    }
}
