//! The format, as golden texts, as faults and as a property.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn make(tool: &str, params: Value) -> Call {
    call(tool, params.as_object().unwrap().clone())
}

#[test]
fn the_plans_compound_example() {
    let calls = [
        make(
            "createTask",
            json!({"title": "Dentist", "dueDate": "2026-03-01T10:00:00Z", "priority": "high"}),
        ),
        make(
            "createCalendarEvent",
            json!({"summary": "Dentist appointment", "attendees": ["a", "b"]}),
        ),
    ];
    let text = render_turn("I'll create the task and add it to your calendar.", &calls);
    assert_eq!(
        text,
        "I'll create the task and add it to your calendar.\n\n```json\n\
         {\"tool\": \"createTask\", \"params\": {\"title\": \"Dentist\", \"dueDate\": \"2026-03-01T10:00:00Z\", \"priority\": \"high\"}}\n```\n\n\
         ```json\n{\"tool\": \"createCalendarEvent\", \"params\": {\"summary\": \"Dentist appointment\", \"attendees\": [\"a\", \"b\"]}}\n```"
    );
    let turn = parse_turn(&text).unwrap();
    assert_eq!(turn.calls, calls);
}

#[test]
fn every_deviation_has_a_name() {
    let good = "I'll do it.\n\n```json\n{\"tool\": \"a\", \"params\": {}}\n```";
    assert!(parse_turn(good).is_ok());
    let cases = [
        ("", "format::empty"),
        (" \n", "format::empty"),
        (&good[13..], "format::no-prose"),
        (&good.replace("\n\n```json", "\n```json"), "format::spacing"),
        (&good.replace("\n\n", "\n\n\n"), "format::spacing"),
        (&good.replace("```json", "```"), "format::fence"),
        ("Sure: {\"tool\": \"a\", \"params\": {}}", "format::fence"),
        (&good[..good.len() - 3], "format::unclosed"),
        (&format!("{good}\nDone."), "format::text-after"),
        (&format!("{good}\n"), "format::text-after"),
        (&good.replace("{}}", "{}"), "format::json"),
        (&good.replace("{}}", "{'x': 1}}"), "format::json"),
        (&good.replace("\"tool\"", "\"name\""), "format::keys"),
        (&good.replace("\"a\"", "7"), "format::keys"),
        (&good.replace("{}}", "[]}"), "format::keys"),
        (&good.replace("{}}", "{}, \"id\": 1}"), "format::keys"),
        (&good.replace("\"params\"", "\"arguments\""), "format::keys"),
    ];
    for (text, code) in cases {
        match parse_turn(text) {
            Err(fault) => assert_eq!(fault.code(), code, "{text:?}: {fault}"),
            Ok(turn) => panic!("{text:?} is taken for {turn:?}"),
        }
    }
}

#[test]
fn a_fence_of_another_language_is_prose() {
    let text = "Like this:\n\n```python\nprint(1)\n```";
    assert_eq!(parse_turn(text).unwrap().prose, text);
}

#[test]
fn a_chat_has_the_clock_once_and_joins_results() {
    let row: Conversation = serde_json::from_value(json!({
        "id": "x", "source": "hand", "type": "compound", "now": "2026-03-02T09:00",
        "messages": [
            {"role": "user", "content": "both please"},
            {"role": "assistant", "content": "I'll do both.", "calls": [{"tool": "a", "params": {}}]},
            {"role": "tool", "content": {"id": "task_1", "status": "created"}},
            {"role": "tool", "content": {"id": "evt_2"}},
            {"role": "assistant", "content": "Done."},
            {"role": "user", "content": "thanks"},
            {"role": "assistant", "content": "You're welcome."}
        ]
    }))
    .unwrap();
    let chat = chat("SYSTEM", &row);
    let texts: Vec<_> = chat
        .iter()
        .map(|m| (m.role.name(), m.content.as_str()))
        .collect();
    assert_eq!(
        texts,
        [
            ("system", "SYSTEM"),
            ("user", "[Mon 2026-03-02 09:00] both please"),
            (
                "assistant",
                "I'll do both.\n\n```json\n{\"tool\": \"a\", \"params\": {}}\n```"
            ),
            (
                "user",
                "Result: {\"id\": \"task_1\", \"status\": \"created\"}\nResult: {\"id\": \"evt_2\"}"
            ),
            ("assistant", "Done."),
            ("user", "thanks"),
            ("assistant", "You're welcome."),
        ]
    );
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(("[a-zA-Z]{1,6}", inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_rendered_turn_reads_back(
        prose in "[a-zA-Z][^`{]{0,40}[a-z.]",
        calls in proptest::collection::vec(("[a-zA-Z]{1,8}", values()), 0..4),
    ) {
        let calls: Vec<Call> = calls
            .into_iter()
            .map(|(tool, value)| {
                let mut params = Map::new();
                params.insert("v".to_owned(), value);
                Call { tool, params }
            })
            .collect();
        let text = render_turn(&prose, &calls);
        let turn = parse_turn(&text).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
        prop_assert_eq!(turn.prose, prose);
        prop_assert_eq!(turn.calls, calls);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = parse_turn(&text);
    }
}
