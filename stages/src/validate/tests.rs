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
