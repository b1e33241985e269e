//! The schema that editors read agrees with the parser, both ways.

use serde_json::Value;

use super::{STAGES, good_input::FILE, open};
use crate::config::schema;

fn valid(yaml: &str) -> bool {
    let (tree, faults) = super::super::parse::parse(yaml);
    assert!(faults.is_empty(), "{faults:?}");
    let value: Value = tree.unwrap().value();
    jsonschema::draft7::new(&schema(&STAGES))
        .unwrap()
        .is_valid(&value)
}

#[test]
fn a_good_file_fits() {
    assert!(open(FILE).is_ok());
    assert!(valid(FILE));
}

#[test]
fn what_the_parser_refuses_by_shape_does_not_fit() {
    let raw = "name: a\nstages:\n  raw: { uses: fetch, with: { dataset: x } }\n";
    assert!(valid(raw));
    for (good, bad) in [
        ("name: a", "nmae: a"),
        ("uses: fetch", "uses: fetsh"),
        ("dataset: x", "datset: x"),
        ("dataset: x", "dataset: 7"),
        ("dataset: x", "dataset: x, take: 0"),
        ("dataset: x }", "dataset: x }, inputs: { rows: a }"),
        ("with: { dataset: x }", "retries: 1"),
        ("uses: fetch, with: { dataset: x }", "run: ls"),
        (
            "uses: fetch, with: { dataset: x }",
            "run: ls, outputs: { o: o }, with: {}",
        ),
        ("dataset: x }", "dataset: x }, effect: external"),
        ("dataset: x }", "dataset: x }, timeout: soon"),
        ("dataset: x }", "dataset: x }, gates: { a: 1 }"),
        ("dataset: x }", "dataset: x }, resources: { memory: 8 }"),
    ] {
        let yaml = raw.replace(good, bad);
        assert_ne!(yaml, raw);
        assert!(!valid(&yaml), "the schema lets pass: {yaml}");
        assert!(open(&yaml).is_err(), "the parser lets pass: {yaml}");
    }
}

/// `UPDATE_SCHEMA=1 cargo test schema` writes the file after a stage's table changed.
#[test]
fn the_file_that_editors_read_is_current() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/pipeline.schema.json");
    let current = crate::config::schema_text(stages::registry::all());
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(file, &current).unwrap();
    }
    let written = std::fs::read_to_string(file).unwrap();
    assert!(
        written == current,
        "run `UPDATE_SCHEMA=1 cargo test -p tunesmith schema`"
    );
}
