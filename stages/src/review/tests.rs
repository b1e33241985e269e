//! The sample holds still, decisions count by content, the file reads back.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::sample::wanted;
use super::*;

fn row(id: &str, text: &str) -> Conversation {
    serde_json::from_value(json!({
        "id": id, "source": "model", "type": "negative",
        "messages": [
            {"role": "user", "content": text},
            {"role": "assistant", "content": "No tool for that."},
        ],
    }))
    .unwrap()
}

fn decided(choice: Choice) -> Decision {
    Decision {
        choice,
        about: "some words".to_owned(),
        to: None,
    }
}

#[test]
fn a_name_is_that_of_the_content() {
    let name = row_id(&row("a", "hello"));
    assert_eq!(name, row_id(&row("b", "hello")));
    assert_ne!(name, row_id(&row("a", "hello there")));
    // Pinned: names in committed files must mean the same rows next year.
    assert_eq!(name, "e4362cb4c4bc");
}

proptest! {
    /// More rows never take a row out of the sample, nor does another order; and the share of many
    /// rows is about what was asked.
    #[test]
    fn more_rows_ask_for_more_and_undo_nothing(
        share in 0.01f64..1.0,
        seed: u64,
        first in 20usize..200,
        more in 0usize..300,
    ) {
        let names: Vec<String> = (0..first + more).map(|at| format!("{at:012x}")).collect();
        let few = wanted(names[..first].iter().map(String::as_str), share, seed);
        let many = wanted(names.iter().rev().map(String::as_str), share, seed);
        // One alone may stand in for a share that hit nobody.
        if few.len() > 1 {
            prop_assert!(few.is_subset(&many));
        }
        let kept: BTreeSet<&str> = many.iter().copied().filter(|name| names[..first].iter().any(|n| n == name)).collect();
        prop_assert!(kept.is_subset(&few));
    }
}

#[test]
fn the_share_is_what_was_asked() {
    let names: Vec<String> = (0..10_000).map(|at| format!("row {at}")).collect();
    let names = || names.iter().map(String::as_str);
    for (share, least, most) in [(0.15, 1400, 1600), (0.5, 4850, 5150)] {
        let one = wanted(names(), share, 7);
        assert!(
            (least..=most).contains(&one.len()),
            "{share}: {}",
            one.len()
        );
        let other = wanted(names(), share, 8);
        assert_ne!(one, other, "the seed chooses");
    }
    assert_eq!(wanted(names(), 0.0, 7).len(), 0);
    assert_eq!(wanted(names(), 1.0, 7).len(), 10_000);
    // A share that hits nobody hits one.
    assert_eq!(wanted(names().take(3), 1e-9, 7).len(), 1);
}

#[test]
fn the_file_is_sorted_and_reads_back() {
    let mut all = Decisions::default();
    all.set("cc", decided(Choice::Reject));
    all.set("aa", decided(Choice::Accept));
    let edit = Decision {
        to: Some(serde_json::to_value(row("a", "hi")).unwrap()),
        ..decided(Choice::Edit)
    };
    all.set("bb", edit);
    let text = all.text();
    insta::assert_snapshot!(text, @r#"
    {"row":"aa","decision":"accept","about":"some words"}
    {"row":"bb","decision":"edit","about":"some words","to":{"id":"a","source":"model","type":"negative","messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"No tool for that."}]}}
    {"row":"cc","decision":"reject","about":"some words"}
    "#);
    assert_eq!(Decisions::parse(&text, "x").unwrap(), all);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data/review/x.jsonl");
    assert!(Decisions::read(&file).unwrap().is_empty());
    all.write(&file).unwrap();
    assert_eq!(Decisions::read(&file).unwrap(), all);
}

#[test]
fn two_minds_about_a_row_and_broken_lines_are_told_with_their_lines() {
    let text = concat!(
        "{\"row\":\"aa\",\"decision\":\"accept\"}\n",
        "<<<<<<< ours\n",
        "{\"row\":\"aa\",\"decision\":\"accept\"}\n",
        "{\"row\":\"aa\",\"decision\":\"reject\"}\n",
        "{\"row\":\"bb\",\"decision\":\"maybe\"}\n",
        "{\"row\":\"bb\",\"decision\":\"reject\",\"why\":\"wrong\"}\n",
    );
    let error = Decisions::parse(text, "review.jsonl").unwrap_err();
    insta::assert_snapshot!(error.message, @r#"
    review.jsonl:2: no decision: expected value at line 1 column 1
    review.jsonl:4: `aa` is decided otherwise in line 1
    review.jsonl:5: no decision: unknown variant `maybe`, expected one of `accept`, `reject`, `edit` at line 1 column 30
    review.jsonl:6: no decision: unknown field `why`, expected one of `row`, `decision`, `about`, `to` at line 1 column 37
    "#);
}
