//! The stage against servers on this machine.

mod pip;
mod web;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::contract::canonical;
use crate::http::testing::{Bench, environment, hasty};

/// Parameters from JSON.
pub(super) fn params(given: Value) -> Params {
    let given: BTreeMap<String, Value> = match given {
        Value::Object(map) => map.into_iter().collect(),
        other => panic!("a map, not {other}"),
    };
    canonical(params::FIELDS, &given).expect("known parameters")
}

/// Runs the stage in `bench`.
pub(super) fn run(
    bench: &Bench,
    given: Value,
    variables: &[(&str, &str)],
) -> Result<Outcome, StageError> {
    bench.run(|ctx| fetch(&params(given), ctx, environment(variables), hasty()))
}

pub(super) fn sha(bytes: &[u8]) -> String {
    sha256::of(bytes)
}

/// Bytes that no two places share.
pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn faults(given: Value, local: bool) -> Vec<String> {
    let mut site = Site::default();
    if local {
        site.inputs.insert("path".to_owned(), Vec::new());
    }
    let found = Fetch.check(&params(given), &site);
    found
        .iter()
        .map(|fault| format!("{} {}", fault.code, fault.field))
        .collect()
}

#[test]
fn exactly_one_source() {
    let one = "fetch::one-source with";
    assert_eq!(faults(json!({}), false), [one]);
    assert_eq!(
        faults(json!({"model": "a/b", "dataset": "a/b"}), false),
        [one]
    );
    assert_eq!(faults(json!({"model": "a/b"}), true), [one]);
    assert!(faults(json!({"model": "a/b"}), false).is_empty());
    assert!(faults(json!({}), true).is_empty());
}

#[test]
fn faults_are_found_before_anything_runs() {
    let zeros = "0".repeat(64);
    for (given, expected) in [
        (
            json!({"url": "https://h/x"}),
            vec!["fetch::no-checksum with"],
        ),
        (
            json!({"url": "ftp://h/x.pkl", "sha256": "12"}),
            vec![
                "fetch::bad-url with.url",
                "fetch::pickle with",
                "fetch::bad-checksum with.sha256",
            ],
        ),
        (
            json!({"url": "https://h/", "sha256": zeros}),
            vec!["fetch::bad-name with.name"],
        ),
        (
            json!({"url": "https://h/x", "sha256": zeros, "revision": "main"}),
            vec!["fetch::unused with.revision"],
        ),
        (
            json!({"pypi": "x>=1", "sha256": zeros}),
            vec!["fetch::bad-package with.pypi", "config::missing-field with"],
        ),
        (
            json!({"model": "https://hub/x/y"}),
            vec!["fetch::bad-repository with.model"],
        ),
        (
            json!({"model": "x/y", "files": ["*.bin"]}),
            vec!["fetch::pickle with.files"],
        ),
        (
            json!({"model": "x/y", "sha256": zeros}),
            vec!["config::wrong-type with.sha256"],
        ),
        (
            json!({"path": "data/x", "sha256": zeros}),
            vec!["fetch::unkeyed-path with.path"],
        ),
        (json!({"path": "/data/x"}), vec!["fetch::no-checksum with"]),
    ] {
        assert_eq!(faults(given.clone(), false), expected, "{given}");
    }
}

#[test]
fn only_a_full_commit_needs_no_pin() {
    let pin =
        |revision: Value| Fetch.source(&params(json!({"model": "o/n", "revision": revision})));
    assert_eq!(pin(json!(null)).as_deref(), Some("hf:model/o/n@main"));
    assert_eq!(
        pin(json!("e7f4b645")).as_deref(),
        Some("hf:model/o/n@e7f4b645")
    );
    assert_eq!(pin(json!("0123456789abcdef0123456789abcdef01234567")), None);
    let dataset = Fetch.source(&params(json!({"dataset": "o/n"})));
    assert_eq!(dataset.as_deref(), Some("hf:dataset/o/n@main"));
    assert_eq!(
        Fetch.source(&params(
            json!({"url": "https://h/x", "sha256": "0".repeat(64)})
        )),
        None
    );
}

#[test]
fn a_local_folder_is_copied_whole() {
    let mut bench = Bench::new();
    let from = bench.path("from");
    std::fs::create_dir_all(from.join("deep")).expect("a folder");
    std::fs::write(from.join("a.txt"), "a").expect("a file");
    std::fs::write(from.join("deep/b.txt"), "bb").expect("a file");
    bench.inputs.insert("path".to_owned(), vec![from]);
    let outcome = run(&bench, json!({}), &[]).expect("a copy");
    assert_eq!(bench.made("data/a.txt"), b"a");
    assert_eq!(bench.made("data/deep/b.txt"), b"bb");
    assert_eq!(outcome.notes, ["2 files, 3 bytes"]);
    assert_eq!(outcome.metrics["fetch.bytes"], 3.0);
}

#[test]
fn a_local_file_keeps_its_name_behind_a_link() {
    let mut bench = Bench::new();
    let blob = bench.path("blob");
    std::fs::write(&blob, "bytes").expect("a file");
    let link = bench.path("model.gguf");
    std::os::unix::fs::symlink(&blob, &link).expect("a link");
    bench.inputs.insert("path".to_owned(), vec![link]);
    run(&bench, json!({"sha256": sha(b"bytes")}), &[]).expect("a copy");
    assert_eq!(bench.made("data/model.gguf"), b"bytes");
    let error = run(&bench, json!({"sha256": sha(b"others")}), &[]).expect_err("other bytes");
    assert_eq!(error.code, "fetch::checksum");
    assert!(error.message.contains(&sha(b"bytes")), "{}", error.message);
}
