//! The target `folder`.

use serde_json::{Value, json};

use super::{adapter, bench, config, made, mistral, run_in};
use crate::http::testing::Bench;

fn given(bench: &Bench) -> Value {
    json!({"target": "folder", "folder": bench.path("deploy/adapter").display().to_string()})
}

#[test]
fn the_adapter_appears_whole_and_replaces_an_older_one() {
    let bench = bench();
    std::fs::create_dir_all(bench.path("deploy")).expect("a folder");
    std::fs::write(bench.path("adapter/tokenizer.json"), "{}").expect("a file");
    run_in(&bench, given(&bench), &[]).expect("a copy");
    for name in [
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
    ] {
        let (from, to) = (
            bench.path("adapter").join(name),
            bench.path("deploy/adapter").join(name),
        );
        assert_eq!(
            std::fs::read(from).expect("a file"),
            std::fs::read(to).expect("a file")
        );
    }
    let first = made(&bench, "receipt.json");
    let outcome = run_in(&bench, given(&bench), &[]).expect("nothing to do");
    assert!(
        outcome.notes[0].ends_with("already holds the adapter"),
        "{:?}",
        outcome.notes
    );
    assert_eq!(made(&bench, "receipt.json"), first);
    adapter(&bench.path("adapter"), &config(), &mistral(8)[..2]);
    std::fs::remove_file(bench.path("adapter/tokenizer.json")).expect("a file");
    run_in(&bench, given(&bench), &[]).expect("another copy");
    assert!(
        !bench.path("deploy/adapter/tokenizer.json").exists(),
        "nothing of the old one is left"
    );
    let names: Vec<_> = std::fs::read_dir(bench.path("deploy"))
        .expect("a folder")
        .collect();
    assert_eq!(names.len(), 1, "no neighbour is left behind");
    assert_eq!(made(&bench, "verification.json")["verified"], false);
    assert!(bench.path("output/worker.ts").exists());
}

#[test]
fn a_folder_of_other_things_is_not_touched() {
    let bench = bench();
    std::fs::create_dir_all(bench.path("deploy/adapter")).expect("a folder");
    std::fs::write(bench.path("deploy/adapter/thesis.md"), "years of work").expect("a file");
    let error = run_in(&bench, given(&bench), &[]).expect_err("occupied");
    assert_eq!(error.code, "upload::occupied");
    assert!(bench.path("deploy/adapter/thesis.md").exists());
}

#[test]
fn the_limits_of_the_service_are_not_those_of_a_folder() {
    let bench = bench();
    std::fs::create_dir_all(bench.path("deploy")).expect("a folder");
    let mut changed = config();
    changed["r"] = json!(64);
    changed["use_rslora"] = json!(true);
    adapter(&bench.path("adapter"), &changed, &mistral(64));
    run_in(&bench, given(&bench), &[]).expect("a copy");
}
