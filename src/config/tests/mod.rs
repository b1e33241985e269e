//! What people see for good and bad files: whole drawings, with small stages of our own.

mod bad_edges;
mod bad_names;
mod bad_values;
mod good_input;
mod properties;
mod schema;

use std::path::Path;

use stages::{
    Context, Effect, Field, FieldType, Outcome, Params, Pool, Port, Product, Stage, StageError,
};

use super::{Faults, Overrides, Pipeline};
use crate::graph::{self, Graph};
use crate::report::faults::{Look, draw};

/// Stages with the shapes of the real ones.
pub(crate) static STAGES: [&dyn Stage; 3] = [&Fetch, &Train, &Upload];

pub(crate) struct Fetch;
pub(crate) struct Train;
pub(crate) struct Upload;

const fn field(name: &'static str, kind: FieldType, default: Option<&'static str>) -> Field {
    let about = "a parameter of the test";
    Field {
        name,
        kind,
        default,
        about,
    }
}

const fn port(name: &'static str, required: bool, many: bool) -> Port {
    let about = "an input of the test";
    Port {
        name,
        required,
        many,
        about,
    }
}

const fn product(name: &'static str, path: &'static str) -> Product {
    let about = "a product of the test";
    Product { name, path, about }
}

impl Stage for Fetch {
    fn kind(&self) -> &'static str {
        "fetch"
    }
    fn about(&self) -> &'static str {
        "brings rows"
    }
    fn version(&self) -> u32 {
        1
    }
    fn fields(&self) -> &'static [Field] {
        const FIELDS: &[Field] = &[
            field("dataset", FieldType::Text, None),
            field("revision", FieldType::Text, Some("null")),
            field("take", FieldType::Int(1, 1000), Some("100")),
            field("files", FieldType::TextList, Some("[]")),
        ];
        FIELDS
    }
    fn inputs(&self) -> &'static [Port] {
        &[]
    }
    fn products(&self) -> &'static [Product] {
        const PRODUCTS: &[Product] = &[product("rows", "rows.jsonl"), product("card", "card.md")];
        PRODUCTS
    }
    fn pool(&self) -> Pool {
        Pool::Net
    }
    fn run(&self, _: &Params, _: &Context<'_>) -> Result<Outcome, StageError> {
        Ok(Outcome::default())
    }
}

impl Stage for Train {
    fn kind(&self) -> &'static str {
        "train"
    }
    fn about(&self) -> &'static str {
        "trains"
    }
    fn version(&self) -> u32 {
        1
    }
    fn fields(&self) -> &'static [Field] {
        const FIELDS: &[Field] = &[
            field(
                "method",
                FieldType::Choice(&["lora", "qlora"]),
                Some("\"qlora\""),
            ),
            field("r", FieldType::Int(1, 256), Some("16")),
            field("alpha", FieldType::Float(0.0, 1024.0), Some("32.0")),
            field("lr", FieldType::Float(0.0, 1.0), Some("0.0002")),
            field("resume", FieldType::Bool, Some("true")),
            field("schedule", FieldType::Map, Some("null")),
        ];
        FIELDS
    }
    fn inputs(&self) -> &'static [Port] {
        const PORTS: &[Port] = &[
            port("base", true, false),
            port("rows", true, true),
            port("val", false, false),
        ];
        PORTS
    }
    fn products(&self) -> &'static [Product] {
        const PRODUCTS: &[Product] = &[product("adapter", "adapter"), product("log", "log.jsonl")];
        PRODUCTS
    }
    fn check(&self, params: &Params, site: &stages::Site) -> Vec<stages::Fault> {
        let above: Vec<String> = site
            .upstream
            .iter()
            .flat_map(|(port, above)| above.iter().map(move |(kind, _)| format!("{port}<{kind}")))
            .collect();
        let local: usize = site.inputs.values().map(Vec::len).sum();
        if params.int("r") != Some(13) {
            return Vec::new();
        }
        let message = format!(
            "13 is refused: {} from {local} local files",
            above.join(" ")
        );
        vec![stages::Fault::new(
            "train::thirteen",
            "with.r",
            message,
            "take another rank",
        )]
    }
    fn run(&self, _: &Params, _: &Context<'_>) -> Result<Outcome, StageError> {
        Ok(Outcome::default())
    }
}

impl Stage for Upload {
    fn kind(&self) -> &'static str {
        "upload"
    }
    fn about(&self) -> &'static str {
        "uploads"
    }
    fn version(&self) -> u32 {
        1
    }
    fn fields(&self) -> &'static [Field] {
        const FIELDS: &[Field] = &[field("token", FieldType::Text, Some("null"))];
        FIELDS
    }
    fn inputs(&self) -> &'static [Port] {
        const PORTS: &[Port] = &[port("adapter", true, false)];
        PORTS
    }
    fn products(&self) -> &'static [Product] {
        const PRODUCTS: &[Product] = &[product("receipt", "receipt.json")];
        PRODUCTS
    }
    fn effect(&self) -> Effect {
        Effect::External
    }
    fn run(&self, _: &Params, _: &Context<'_>) -> Result<Outcome, StageError> {
        Ok(Outcome::default())
    }
}

/// A folder with a pipeline and the files that examples name.
pub(crate) fn folder(yaml: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::write(folder.path().join("data/rows.jsonl"), "{}\n").unwrap();
    std::fs::write(folder.path().join("train.py"), "").unwrap();
    std::fs::write(folder.path().join("pipeline.yaml"), yaml).unwrap();
    folder
}

pub(crate) fn open(yaml: &str) -> Result<(Pipeline, Graph), Faults> {
    open_with(yaml, None, &[])
}

pub(crate) fn open_with(
    yaml: &str,
    profile: Option<&str>,
    sets: &[&str],
) -> Result<(Pipeline, Graph), Faults> {
    let folder = folder(yaml.as_bytes());
    let overrides = Overrides {
        profile: profile.map(str::to_owned),
        sets: sets.iter().map(|set| (*set).to_owned()).collect(),
    };
    graph::open(&folder.path().join("pipeline.yaml"), &overrides, &STAGES)
}

/// The faults as a person sees them.
pub(crate) fn drawn(mut faults: Faults) -> String {
    let look = Look {
        colour: false,
        width: 100,
    };
    faults.file = Path::new("pipeline.yaml").to_owned();
    draw(&faults, look)
}

/// The faults of a file that has some.
pub(crate) fn refused(yaml: &str) -> String {
    drawn(open(yaml).err().expect("the file has a fault"))
}
