//! What validate lets through, and what it says about the rest.

use serde_json::{Value, json};

use super::*;
use crate::testing::Bench;

fn row(id: &str, kind: &str, messages: Value) -> Value {
    json!({"id": id, "source": "hand", "type": kind, "now": "2026-03-02T09:00", "messages": messages})
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn answer(text: &str, tool: &str, params: Value) -> Value {
    json!({"role": "assistant", "content": text, "calls": [{"tool": tool, "params": params}]})
}

fn run(rows: &[Value], with: Value) -> (Bench, Result<Outcome, StageError>) {
    let mut bench = Bench::new();
    let text = rows
        .iter()
        .fold(String::new(), |text, row| text + &format!("{row}\n"));
    bench.tools().give("rows", "rows.jsonl", &text);
    let result = bench.run(&Validate, with);
    (bench, result)
}

fn good() -> Value {
    let call = answer(
        "I'll add it.",
        "createTask",
        json!({"title": "Call John", "dueDate": "2026-03-03T09:00:00Z"}),
    );
    row(
        "a",
        "single",
        json!([user("remind me to call john tomorrow"), call]),
    )
}

#[test]
fn a_good_row_goes_through_and_a_double_is_dropped() {
    let mut double = good();
    double["id"] = json!("b");
    double["messages"][0]["content"] = json!("Remind me to call John tomorrow!");
    let (bench, result) = run(&[good(), double], json!({"min_examples": 1}));
    let outcome = result.unwrap();
    assert_eq!(outcome.metrics["rows"], 1.0);
    assert_eq!(bench.text("rows.jsonl").lines().count(), 1);
    let report = bench.json("report.json");
    assert_eq!(
        report["dropped_by_code"],
        json!({"validate::duplicate-text": 1})
    );
    assert_eq!(report["composition"]["tools"]["createTask"], 1);
}

#[test]
fn every_fault_of_every_row_is_told_at_once() {
    let say = |text: &str| json!({"role": "assistant", "content": text});
    let rows = [
        row(
            "a",
            "single",
            json!([
                user("one"),
                answer("I'll do it.", "creatTask", json!({"title": "x"}))
            ]),
        ),
        row(
            "b",
            "single",
            json!([
                user("two"),
                answer(
                    "I'll do it.",
                    "createTask",
                    json!({"title": "x", "priority": "urgent"})
                )
            ]),
        ),
        row(
            "c",
            "single",
            json!([
                user("three"),
                answer("", "createTask", json!({"title": "x"}))
            ]),
        ),
        row(
            "d",
            "crud",
            json!([
                user("done with task_81"),
                answer("I'll close it.", "completeTask", json!({"id": "task_8"}))
            ]),
        ),
        row(
            "e",
            "negative",
            json!([
                user("four"),
                answer("I'll do it.", "createTask", json!({"title": "x"}))
            ]),
        ),
        row(
            "f",
            "negative",
            json!([user("five"), say("Like {\"tool\": \"createTask\"}")]),
        ),
        row(
            "f",
            "negative",
            json!([user("six"), user("seven"), say("Yes.")]),
        ),
    ];
    let (_, result) = run(&rows, json!({"min_examples": 1}));
    let error = result.unwrap_err();
    assert_eq!(error.code, "validate::faults");
    insta::assert_snapshot!(error.message);
}

#[test]
fn broken_rows_may_be_dropped_and_counted() {
    let bad = row(
        "z",
        "single",
        json!([user("zzz"), answer("I'll do it.", "nothing", json!({}))]),
    );
    let (bench, result) = run(
        &[good(), bad],
        json!({"min_examples": 1, "on_fault": "drop"}),
    );
    result.unwrap();
    assert_eq!(
        bench.json("report.json")["dropped_by_code"],
        json!({"validate::tool": 1})
    );
    assert_eq!(
        bench.json("report.json")["findings"][0]["place"],
        "rows.jsonl:2"
    );
}

#[test]
fn too_few_rows_are_refused() {
    let (_, result) = run(&[good()], json!({}));
    let error = result.unwrap_err();
    assert_eq!(error.code, "validate::too-few");
    assert!(
        error.message.contains("`min_examples` is 300"),
        "{}",
        error.message
    );
}

#[test]
fn an_id_from_a_tool_result_is_known() {
    let messages = json!([
        user("what is open?"),
        answer("I'll look.", "listTasks", json!({})),
        {"role": "tool", "content": {"tasks": [{"id": "task_12", "title": "Buy milk"}]}},
        {"role": "assistant", "content": "Buy milk."},
        user("done"),
        answer("I'll close it.", "completeTask", json!({"id": "task_12"})),
    ]);
    let (_, result) = run(&[row("a", "crud", messages)], json!({"min_examples": 1}));
    result.unwrap();
}

#[test]
fn eval_prompts_are_kept_out() {
    let mut bench = Bench::new();
    let prompt = json!({"id": "e07", "category": "single", "messages": [user("remind me to call john tomorrow")], "expect": []});
    bench
        .tools()
        .give("rows", "rows.jsonl", &format!("{}\n", good()))
        .give("eval", "eval.jsonl", &format!("{prompt}\n"));
    let error = bench
        .run(&Validate, json!({"min_examples": 1}))
        .unwrap_err();
    assert_eq!(error.code, "validate::eval-leak");
    assert!(error.message.contains("`e07`"), "{}", error.message);
}

#[test]
fn a_row_longer_than_the_context_is_refused() {
    let (_, result) = run(&[good()], json!({"min_examples": 1, "context": 600}));
    assert_eq!(result.unwrap_err().code, "validate::too-long");
}

#[test]
fn a_row_with_its_own_tools_is_held_to_them() {
    let mut own = row(
        "a",
        "single",
        json!([
            user("rate?"),
            answer("I'll get the rate.", "getRate", json!({"from": "USD"}))
        ]),
    );
    own["tools"] = json!([{"name": "getRate", "description": "", "params": {
        "type": "object", "properties": {"from": {"type": "string"}}, "required": ["from", "to"]}}]);
    let (_, result) = run(&[own.clone()], json!({"min_examples": 1}));
    assert_eq!(result.unwrap_err().code, "validate::params");
    own["tools"][0]["params"]["required"] = json!(["from"]);
    let (_, result) = run(&[own], json!({"min_examples": 1}));
    result.unwrap();
}

/// The rows a person wrote for this repository pass, and keep clear of its eval prompts.
#[test]
fn the_hand_written_rows_are_right() {
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../data");
    let mut bench = Bench::new();
    bench.tools();
    bench
        .inputs
        .insert("rows".to_owned(), vec![data.join("examples")]);
    bench
        .inputs
        .insert("eval".to_owned(), vec![data.join("eval")]);
    let outcome = bench.run(&Validate, json!({"min_examples": 1})).unwrap();
    assert!(outcome.metrics["rows"] >= 100.0);
    assert_eq!(bench.json("report.json")["findings"], json!([]));
}

mod review {
    use super::*;
    use crate::review::{Choice, Decision, Decisions, row_id};

    /// Rows as a language model would have written them.
    fn written(count: usize) -> Vec<Value> {
        let rows = (0..count).map(|at| {
            let mut row = row(
                &format!("model-negative-{at}"),
                "negative",
                json!([
                    user(&format!("what is the capital of country number {at}?")),
                    {"role": "assistant", "content": "I do not know that country."},
                ]),
            );
            row["source"] = json!("model");
            row
        });
        rows.collect()
    }

    fn bench(rows: &[Value], decisions: Option<&Decisions>) -> Bench {
        let mut bench = Bench::new();
        let text = rows
            .iter()
            .fold(String::new(), |text, row| text + &format!("{row}\n"));
        bench.tools().give("rows", "rows.jsonl", &text);
        if let Some(decisions) = decisions {
            bench.give("decisions", "decisions.jsonl", &decisions.text());
        }
        bench
    }

    fn name(row: &Value) -> String {
        row_id(&serde_json::from_value(row.clone()).unwrap())
    }

    fn decision(choice: Choice, to: Option<Value>) -> Decision {
        Decision {
            choice,
            about: String::new(),
            to,
        }
    }

    const ALL: fn() -> Value = || json!({"min_examples": 1, "review": 1.0});

    #[test]
    fn without_decisions_it_waits_and_says_how_many() {
        let rows = written(40);
        let bench = bench(&rows, None);
        let error = bench.run(&Validate, ALL()).unwrap_err();
        assert_eq!(error.code, "validate::waiting-for-people");
        assert_eq!(error.message, "rows that wait for a decision: 40");
        // Rows of other sources are nobody's business.
        let with = json!({"min_examples": 1, "review": 1.0, "review_of": ["grammar"]});
        assert!(bench.run(&Validate, with).is_ok());
    }

    #[test]
    fn decisions_drop_replace_and_let_through() {
        let rows = written(4);
        let mut better = rows[2].clone();
        better["messages"][1]["content"] = json!("It has none.");
        better["id"] = json!("another");
        let mut decisions = Decisions::default();
        decisions.set(&name(&rows[0]), decision(Choice::Accept, None));
        decisions.set(&name(&rows[1]), decision(Choice::Reject, None));
        decisions.set(&name(&rows[2]), decision(Choice::Edit, Some(better)));
        decisions.set("0123456789ab", decision(Choice::Accept, None));
        let one_is_open = bench(&rows, Some(&decisions));
        let error = one_is_open.run(&Validate, ALL()).unwrap_err();
        assert_eq!(error.message, "rows that wait for a decision: 1");
        decisions.set(&name(&rows[3]), decision(Choice::Accept, None));
        let bench = bench(&rows, Some(&decisions));
        let outcome = bench.run(&Validate, ALL()).unwrap();
        assert_eq!(
            outcome.notes[1],
            "reviewed: 2 accepted, 1 edited, 1 rejected; 1 decisions are about rows that are no more"
        );
        assert_eq!(
            bench.json("report.json")["reviewed"],
            json!({"accepted": 2, "edited": 1, "rejected": 1, "of_no_row": 1})
        );
        let kept = bench.text("rows.jsonl");
        assert_eq!(kept.lines().count(), 3);
        assert!(
            kept.contains("model-negative-2") && kept.contains("It has none."),
            "{kept}"
        );
        assert!(!kept.contains("number 1?"), "{kept}");
    }

    #[test]
    fn an_edited_row_is_checked_like_any_other() {
        let rows = written(2);
        let mut wrong = rows[0].clone();
        wrong["type"] = json!("single");
        let mut decisions = Decisions::default();
        decisions.set(&name(&rows[0]), decision(Choice::Edit, Some(wrong)));
        decisions.set(&name(&rows[1]), decision(Choice::Accept, None));
        let error = bench(&rows, Some(&decisions))
            .run(&Validate, ALL())
            .unwrap_err();
        assert_eq!(error.code, "validate::kind");
    }

    #[test]
    fn more_rows_and_other_ids_leave_decisions_alone() {
        let few = written(20);
        let mut decisions = Decisions::default();
        for row in &few {
            decisions.set(&name(row), decision(Choice::Accept, None));
        }
        let mut more = written(22);
        more.reverse();
        for (at, row) in more.iter_mut().enumerate() {
            row["id"] = json!(format!("renumbered-{at}"));
        }
        let error = bench(&more, Some(&decisions))
            .run(&Validate, ALL())
            .unwrap_err();
        assert_eq!(error.message, "rows that wait for a decision: 2");
    }

    #[test]
    fn without_a_review_nothing_of_it_is_in_the_report() {
        let bench = bench(&written(2), None);
        bench.run(&Validate, json!({"min_examples": 1})).unwrap();
        assert!(!bench.text("report.json").contains("reviewed"));
    }
}
