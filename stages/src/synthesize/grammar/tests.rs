//! The phrase book of this repository, drawn and checked as training data would be.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::*;
use crate::synthesize::Synthesize;
use crate::testing::Bench;
use crate::validate::Validate;

fn data(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../data")
        .join(name)
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.tools();
    for (port, name) in [("grammar", "grammar.yaml"), ("eval", "eval")] {
        bench.inputs.insert(port.to_owned(), vec![data(name)]);
    }
    bench
}

#[test]
fn the_same_seed_gives_the_same_rows_and_another_one_others() {
    let mut bench = bench();
    let with = json!({"count": 200});
    bench.run(&Synthesize, with.clone()).unwrap();
    let first = bench.text("rows.jsonl");
    bench.run(&Synthesize, with.clone()).unwrap();
    assert_eq!(bench.text("rows.jsonl"), first);
    bench.seed += 1;
    bench.run(&Synthesize, with).unwrap();
    assert_ne!(bench.text("rows.jsonl"), first);
}

#[test]
fn every_wording_of_the_book_makes_a_row_that_validates() {
    let bench = bench();
    // Enough rows that every lesson uses every wording of its own at least once.
    let outcome = bench.run(&Synthesize, json!({"count": 6000})).unwrap();
    let rows = outcome.metrics["rows"];
    assert!(rows >= 5000.0, "{rows}");
    let report = bench.json("report.json");
    let leaks = report["dropped"]["eval-leak"].as_f64().unwrap();
    assert!(
        leaks < rows * 0.02,
        "{leaks} of {rows} rows give eval prompts away"
    );
    for (tool, count) in report["tools"].as_object().unwrap() {
        assert!(count.as_u64().unwrap() > 150, "{tool}: {count}");
    }
    let mut second = Bench::new();
    second.tools();
    second
        .inputs
        .insert("rows".to_owned(), vec![bench.out().join("rows.jsonl")]);
    second.inputs.insert("eval".to_owned(), vec![data("eval")]);
    second.run(&Validate, json!({})).unwrap();
    let report = second.json("report.json");
    assert_eq!(report["dropped_by_code"], json!({}));
    assert_eq!(report["past_times"], 0);
}

#[test]
fn pairs_share_group_clock_and_subject() {
    let bench = bench();
    bench.run(&Synthesize, json!({"count": 300})).unwrap();
    let mut groups: BTreeMap<String, Vec<Conversation>> = BTreeMap::new();
    for line in bench.text("rows.jsonl").lines() {
        let row: Conversation = serde_json::from_str(line).unwrap();
        if let Some(group) = row.group.clone() {
            groups.entry(group).or_default().push(row);
        }
    }
    assert!(groups.len() > 10);
    for (group, rows) in groups {
        assert_eq!(rows.len(), 2, "{group}");
        assert_eq!(rows[0].now, rows[1].now);
        let tools: BTreeSet<_> = rows.iter().filter_map(Conversation::first_tool).collect();
        assert_eq!(tools.len(), 2, "{group}");
    }
}

#[test]
fn more_rows_keep_most_of_those_that_were_there() {
    let bench = bench();
    let texts = |count: usize| -> BTreeSet<String> {
        bench.run(&Synthesize, json!({"count": count})).unwrap();
        bench
            .text("rows.jsonl")
            .lines()
            .map(str::to_owned)
            .collect()
    };
    let (few, many) = (texts(400), texts(440));
    let kept = few.intersection(&many).count();
    assert!(kept * 100 >= few.len() * 98, "{kept} of {}", few.len());
}

#[test]
fn a_faulty_book_is_told_at_once_with_its_places() {
    let book = r#"
mix: {single: 1}
slots:
  todo: ["call {persn}"]
rows:
  - type: single
    call: createTask
    user: ["<plese> add {todo} (now", "add {todo} {due.noon}"]
    say: ["I'll add it."]
    params: { titel: "{todo|title}" }
"#;
    let mut bench = Bench::new();
    bench.tools().give("grammar", "grammar.yaml", book);
    let error = bench.run(&Synthesize, json!({})).unwrap_err();
    assert_eq!(error.code, "synthesize::grammar");
    insta::assert_snapshot!(error.message);
}
