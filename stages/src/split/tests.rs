//! The split: shares, groups, stability, leaks.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::Bench;

/// Rows with user texts that share no near-duplicates: words drawn from a hash.
fn row(number: usize, kind: &str, tool: Option<&str>, group: Option<&str>) -> Value {
    let words: Vec<String> = (0..6)
        .map(|k| {
            format!(
                "{:x}",
                crate::similarity::hash(&[number as u8, (number >> 8) as u8, k])
            )
        })
        .collect();
    let calls: Vec<Value> = tool
        .map(|tool| json!({"tool": tool, "params": {}}))
        .into_iter()
        .collect();
    let mut row = json!({
        "id": format!("r{number}"), "source": "hand", "type": kind,
        "messages": [
            {"role": "user", "content": words.join(" ")},
            {"role": "assistant", "content": "I'll do it.", "calls": calls},
        ]
    });
    if let Some(group) = group {
        row["group"] = json!(group);
    }
    row
}

fn lines(rows: &[Value]) -> String {
    rows.iter()
        .fold(String::new(), |text, row| text + &format!("{row}\n"))
}

fn ids(text: &str) -> BTreeSet<String> {
    text.lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            row["id"].as_str().unwrap().to_owned()
        })
        .collect()
}

fn split(rows: &[Value]) -> (BTreeSet<String>, BTreeSet<String>, Value) {
    let mut bench = Bench::new();
    bench.give("rows", "rows.jsonl", &lines(rows));
    bench.run(&Split, json!({})).unwrap();
    (
        ids(&bench.text("train.jsonl")),
        ids(&bench.text("val.jsonl")),
        bench.json("report.json"),
    )
}

fn many() -> Vec<Value> {
    let tools = [Some("createTask"), Some("getWeather"), None];
    (0..300)
        .map(|n| {
            let tool = tools[n % 3];
            let group = format!("g{}", n / 2);
            match n {
                0..100 => row(n, "contrastive", tool, Some(&group)),
                _ if tool.is_none() => row(n, "negative", None, None),
                _ => row(n, "single", tool, None),
            }
        })
        .collect()
}

#[test]
fn the_share_is_kept_in_every_stratum_and_groups_stay_together() {
    let rows = many();
    let (train, val, report) = split(&rows);
    assert_eq!(train.len() + val.len(), 300);
    assert!(train.is_disjoint(&val));
    let share = val.len() as f64 / 300.0;
    assert!((share - 0.15).abs() < 0.02, "{share}");
    for (name, sizes) in report["strata"].as_object().unwrap() {
        let (train, val) = (&sizes["train"], &sizes["val"]);
        let (train, val) = (train.as_f64().unwrap(), val.as_f64().unwrap());
        if !name.starts_with("contrastive") {
            assert!(
                (val - 0.15 * (train + val)).abs() <= 1.0,
                "{name}: {train} {val}"
            );
        }
    }
    for pair in (0..100).step_by(2) {
        let (a, b) = (format!("r{pair}"), format!("r{}", pair + 1));
        assert_eq!(val.contains(&a), val.contains(&b), "{a} {b}");
    }
}

#[test]
fn near_duplicates_and_repeated_texts_stay_together() {
    let mut rows = many();
    for n in 100..160 {
        let mut twin = rows[n].clone();
        twin["id"] = json!(format!("twin{n}"));
        let text = twin["messages"][0]["content"].as_str().unwrap().to_owned();
        twin["messages"][0]["content"] = json!(format!("{text} pls"));
        rows.push(twin);
    }
    let (_, val, report) = split(&rows);
    for n in 100..160 {
        assert_eq!(
            val.contains(&format!("r{n}")),
            val.contains(&format!("twin{n}")),
            "{n}"
        );
    }
    assert_eq!(report["leaks"], json!([]));
}

#[test]
fn new_rows_move_at_most_one_group_a_stratum() {
    let rows = many();
    let (_, before, report) = split(&rows);
    let strata = report["strata"].as_object().unwrap().len();
    let mut more = rows.clone();
    more.extend((300..330).map(|n| row(n, "single", Some("createTask"), None)));
    let (_, after, _) = split(&more);
    let old: BTreeSet<String> = after
        .iter()
        .filter(|id| id[1..].parse::<usize>().unwrap() < 300)
        .cloned()
        .collect();
    let moved = before.symmetric_difference(&old).count();
    assert!(
        moved <= 5,
        "{moved} of {} moved, {strata} strata",
        before.len()
    );
}

#[test]
fn the_order_of_the_rows_decides_nothing() {
    let rows = many();
    let turned: Vec<Value> = rows.iter().rev().cloned().collect();
    assert_eq!(split(&rows).1, split(&turned).1);
}

#[test]
fn one_single_group_cannot_be_split() {
    let mut bench = Bench::new();
    let rows: Vec<Value> = (0..9)
        .map(|n| row(n, "contrastive", Some("createTask"), Some("all")))
        .collect();
    bench.give("rows", "rows.jsonl", &lines(&rows));
    let error = bench.run(&Split, json!({})).unwrap_err();
    assert_eq!(error.code, "split::empty-half");
}

#[test]
fn a_leaked_eval_prompt_stops_it() {
    let mut bench = Bench::new();
    let rows = many();
    let stolen = &rows[7]["messages"][0];
    let prompt = json!({"id": "e01", "category": "single", "messages": [stolen], "expect": []});
    bench.give("rows", "rows.jsonl", &lines(&rows));
    bench.give("eval", "eval.jsonl", &lines(&[prompt]));
    let error = bench.run(&Split, json!({})).unwrap_err();
    assert_eq!(error.code, "split::leak");
    assert!(error.message.contains("`r7`"), "{}", error.message);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_rows_are_split_whole(
        shape in proptest::collection::vec((0usize..4, 0usize..6), 2..60),
        fraction in 0.05f64..0.3,
        seed in any::<u64>(),
    ) {
        let rows: Vec<Conversation> = shape
            .iter()
            .enumerate()
            .map(|(n, (kind, group))| {
                let tool = [Some("a"), Some("b"), Some("c"), None][*kind];
                let name = format!("g{group}");
                let group = (*group > 2).then_some(name.as_str());
                serde_json::from_value(row(n, "single", tool, group)).unwrap()
            })
            .collect();
        let groups = groups::find(&rows, 0.8);
        let held = holdout::choose(&rows, &groups, fraction, seed);
        for members in groups.members.values() {
            let first = held[members[0]];
            prop_assert!(members.iter().all(|at| held[*at] == first));
        }
        prop_assert!(groups.members.len() < 2 || held.contains(&true));
        prop_assert_eq!(straddlers(&rows, &held, 0.8), Vec::<String>::new());
    }
}

/// Hand-written and drawn rows of this repository, through validate and split, as the
/// pipeline joins them.
#[test]
fn the_repositorys_own_rows_go_all_the_way() {
    let data = |name: &str| {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        vec![root.join("../data").join(name)]
    };
    let mut drawn = Bench::new();
    drawn.tools();
    drawn
        .inputs
        .insert("grammar".to_owned(), data("grammar.yaml"));
    drawn.inputs.insert("eval".to_owned(), data("eval"));
    let mix = json!({"single": 0.5, "contrastive": 0.16, "crud": 0.14, "compound": 0.1,
        "multi_turn": 0.06, "negative": 0.04});
    let with = json!({"count": 350, "mix": mix});
    drawn.run(&crate::synthesize::Synthesize, with).unwrap();

    let mut checked = Bench::new();
    checked.tools();
    let mut rows = data("examples");
    rows.push(drawn.out().join("rows.jsonl"));
    checked.inputs.insert("rows".to_owned(), rows);
    checked.inputs.insert("eval".to_owned(), data("eval"));
    let outcome = checked.run(&crate::validate::Validate, json!({})).unwrap();
    assert!(outcome.metrics["rows"] > 950.0, "{:?}", outcome.metrics);
    let negatives = outcome.metrics["negatives"];
    assert!((0.10..=0.15).contains(&negatives), "{negatives}");

    let mut halves = Bench::new();
    let rows = vec![checked.out().join("rows.jsonl")];
    halves.inputs.insert("rows".to_owned(), rows);
    halves.inputs.insert("eval".to_owned(), data("eval"));
    halves.run(&Split, json!({})).unwrap();
    let report = halves.json("report.json");
    let share = report["share"].as_f64().unwrap();
    assert!((share - 0.15).abs() < 0.02, "{report}");
    assert!(report["largest_group"].as_u64().unwrap() <= 12, "{report}");
}
