//! Convert on real rows of glaive and on every known kind of dirt.

mod formats;

use serde_json::{Value, json};

use super::*;
use crate::testing::Bench;

const GLAIVE: &str = include_str!("../../tests/golden/rows/glaive.jsonl");
const HERMES: &str = include_str!("../../tests/golden/rows/hermes.jsonl");
const MAP: &str = include_str!("../../../data/maps/public.yaml");

/// A bench with rows of a format, the repository's map and tools.
fn bench(rows: &str) -> Bench {
    let mut bench = Bench::new();
    bench
        .tools()
        .give("rows", "rows.jsonl", rows)
        .give("map", "map.yaml", MAP);
    bench
}

fn rows(bench: &Bench) -> Vec<Value> {
    let text = bench.text("rows.jsonl");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A glaive row with one declared function and a chat.
fn glaive(chat: &str) -> Value {
    let tool = json!({"name": "create_task", "description": "Create a task", "parameters": {
        "type": "object", "properties": {"title": {"type": "string"}, "due_date": {"type": "string"},
        "priority": {"type": "string"}}, "required": ["title"]}});
    let system = format!(
        "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n{tool:#}\n\n"
    );
    json!({"system": system, "chat": chat})
}

fn asking(call: &str) -> Value {
    glaive(&format!(
        "USER: Add a task please\n\n\nASSISTANT: <functioncall> {call} <|endoftext|>\n\n\n\
         FUNCTION RESPONSE: {{\"id\": 1}}\n\n\nASSISTANT: It's done. <|endoftext|>\n\n\n"
    ))
}

/// What one row becomes: the first call, or the reason it is dropped for.
fn fate(row: &Value) -> Result<Value, String> {
    let bench = bench(&format!("{row}\n"));
    match bench.run(&Convert, json!({"format": "glaive"})) {
        Ok(_) => Ok(rows(&bench)[0]["messages"][1]["calls"][0].clone()),
        Err(error) => {
            assert_eq!(error.code, "convert::no-rows");
            Err(error.message.split(" x ").nth(1).unwrap_or("").to_owned())
        }
    }
}

#[test]
fn real_glaive_rows_keep_their_own_tools_when_asked_to() {
    let bench = bench(GLAIVE);
    let with = json!({"format": "glaive", "keep_tools": true});
    let outcome = bench.run(&Convert, with).unwrap();
    assert_eq!(outcome.metrics["looked_at"], 5.0);
    let mut report = bench.json("report.json");
    report["map_names_unused"] = Value::Null;
    insta::assert_json_snapshot!(report);
    let rows = rows(&bench);
    let news = rows
        .iter()
        .find(|row| row["tools"][0]["name"] == "get_news_headlines")
        .unwrap();
    assert_eq!(news["type"], "multi_turn");
    assert_eq!(
        news["messages"][1],
        json!({"role": "assistant", "content": "I'll get the news headlines.",
            "calls": [{"tool": "get_news_headlines", "params": {"country": "United States"}}]})
    );
    assert_eq!(
        news["messages"][2]["content"]["headlines"][3],
        "NASA's Perseverance rover collects first Mars rock sample"
    );
}

#[test]
fn real_glaive_rows_without_our_functions_are_dropped_with_reasons() {
    let bench = bench(GLAIVE);
    let error = bench
        .run(&Convert, json!({"format": "glaive"}))
        .unwrap_err();
    assert!(
        error.message.contains("4 x unmapped-function")
            && error.message.contains("1 x names-foreign-tools"),
        "{}",
        error.message
    );
}

#[test]
fn every_known_dirt_is_mended_or_dropped_by_name() {
    let task = |title: &str| json!({"tool": "createTask", "params": {"title": title}});
    let good = [
        (
            r#"{"name": "create_task", "arguments": '{"title": "Buy milk"}'}"#,
            "Buy milk",
        ),
        (
            r#"{"name": "create_task", "arguments": '{"title": "Feed Anna's cat"}'}"#,
            "Feed Anna's cat",
        ),
        (
            r#"{"name": "create_task", "arguments": '{"title": "Feed Anna\'s cat"}'}"#,
            "Feed Anna's cat",
        ),
        (
            r#"{"name": "create_task", "arguments": {"title": "Buy milk"}}"#,
            "Buy milk",
        ),
        (
            r#"{"name": "create_task", "parameters": {"title": "Buy milk"}}"#,
            "Buy milk",
        ),
        (
            r#"{"name": "create_task", "arguments": "{\"title\": \"Buy milk\"}"}"#,
            "Buy milk",
        ),
        (
            r#"{"name": "create_task", "arguments": '{"title": "Buy milk"}'}}"#,
            "Buy milk",
        ),
    ];
    for (call, title) in good {
        assert_eq!(fate(&asking(call)), Ok(task(title)), "{call}");
    }
    let bad = [
        (
            r#"{"name": "create_task", "arguments": ["Buy milk"]}"#,
            "arguments-list",
        ),
        (
            r#"{"name": "create_task", "arguments": '{"title": Infinity}'}"#,
            "not-a-number",
        ),
        (
            r#"{"name": "create_task", "arguments": '{"title": "<task title>"}'}"#,
            "placeholder",
        ),
        (
            r#"{"name": "create_task", "arguments": '{"title": "Bu"#,
            "truncated-call",
        ),
        (
            r#"{"name": "create_task", "arguments": null}"#,
            "unmappable-params",
        ),
        (
            r#"{"name": "create_task", "arguments": '{"title": "x", "due_date": "soon"}'}"#,
            "unmappable-params",
        ),
        (
            r#"{"name": "paint", "arguments": '{}'}"#,
            "undeclared-function",
        ),
    ];
    for (call, reason) in bad {
        assert_eq!(fate(&asking(call)), Err(reason.to_owned()), "{call}");
    }
}

#[test]
fn damaged_turns_are_dropped_and_a_last_question_goes() {
    let cut = "USER: What is <|endoftext|>\n\n\nASSISTANT: AI? <|endoftext|>";
    assert_eq!(fate(&glaive(cut)), Err("damaged-turn".to_owned()));
    let twice = "USER: Hi\n\n\nASSISTANT: Hello <|endoftext|>\n\n\nASSISTANT: Hi <|endoftext|>";
    assert_eq!(fate(&glaive(twice)), Err("damaged-turn".to_owned()));
    let open = "USER: Hi\n\nASSISTANT: Hello there! <|endoftext|>\n\n\nUSER: And now?";
    let bench = bench(&format!("{}\n", glaive(open)));
    bench.run(&Convert, json!({"format": "glaive"})).unwrap();
    let messages = rows(&bench)[0]["messages"].clone();
    assert_eq!(
        messages,
        json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there!"}])
    );
    assert_eq!(
        bench.json("report.json")["mended"],
        json!({"ends-without-answer": 1})
    );
}

#[test]
fn mapped_values_fit_our_schema() {
    let call = r#"{"name": "create_task", "arguments": '{"title": "Pay rent", "due_date": "15th June 2023", "priority": "Urgent"}'}"#;
    assert_eq!(
        fate(&asking(call)).unwrap()["params"],
        json!({"title": "Pay rent", "dueDate": "2023-06-15T09:00:00Z", "priority": "high"})
    );
}

#[test]
fn prose_before_a_call_stays_and_a_missing_one_is_made() {
    let call = r#"<functioncall> {"name": "create_task", "arguments": '{"title": "Buy milk"}'} <|endoftext|>"#;
    for (prose, kept) in [
        ("Sure, one moment.", "Sure, one moment."),
        ("", "I'll add that to your tasks."),
    ] {
        let chat = format!("USER: Milk!\n\n\nASSISTANT: {prose} {call}");
        let bench = bench(&format!("{}\n", glaive(&chat)));
        bench.run(&Convert, json!({"format": "glaive"})).unwrap();
        assert_eq!(rows(&bench)[0]["messages"][1]["content"], kept);
    }
}

#[test]
fn doubles_are_dropped_and_take_stops_early() {
    let row = |text: &str| {
        glaive(&format!(
            "USER: {text}\n\n\nASSISTANT: Here is a short answer. <|endoftext|>"
        ))
    };
    let texts = [
        "Tell me about the sea",
        "Tell me about the sea!",
        "Tell me about the seas",
        "Who painted this picture?",
        "How do I bake bread?",
        "What is a verb?",
    ];
    let lines = texts
        .iter()
        .fold(String::new(), |all, text| all + &format!("{}\n", row(text)));
    let bench = bench(&lines);
    bench
        .run(&Convert, json!({"format": "glaive", "take": 3}))
        .unwrap();
    let report = bench.json("report.json");
    assert_eq!(report["dropped"]["duplicate"]["rows"], 1);
    assert_eq!(report["dropped"]["near-duplicate"]["rows"], 1);
    assert_eq!(report["looked_at"], 5, "the sixth row is not read");
}

#[test]
fn a_json_array_reads_like_lines_and_a_cut_one_is_told() {
    let list: Vec<Value> = GLAIVE
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let array = serde_json::to_string_pretty(&list).unwrap();
    let with = json!({"format": "glaive", "keep_tools": true});
    let lines = bench(GLAIVE);
    lines.run(&Convert, with.clone()).unwrap();
    let whole = bench(&array);
    whole.run(&Convert, with.clone()).unwrap();
    assert_eq!(whole.text("rows.jsonl"), lines.text("rows.jsonl"));
    let error = bench(&array[..array.len() / 2])
        .run(&Convert, with)
        .unwrap_err();
    assert_eq!(error.code, "convert::broken-file");
}

#[test]
fn the_dialects_of_sharegpt_read() {
    let tools = json!([{"name": "get_weather", "description": "", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]);
    let system = format!("You can use these.\n<tools>\n{tools}\n</tools>");
    let flat = "Tools: {\"name\": \"get_weather\", \"parameters\": {\"type\": \"object\", \"properties\": {}}} To use these functions respond with: <functioncall> {...} </functioncall>";
    let two = "Sure.\n<tool_call>\n{'arguments': {'city': 'Rome'}, 'name': 'get_weather'}\n</tool_call>\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";
    let dialogues = [
        json!({"conversations": [
            {"from": "system", "value": system}, {"from": "human", "value": "Rome and Oslo?"},
            {"from": "gpt", "value": two},
            {"from": "tool", "value": "<tool_response>\n{\"name\": \"get_weather\", \"content\": {\"temp\": 9}}\n</tool_response>\n<tool_response>\n{\"name\": \"get_weather\", \"content\": {\"temp\": 3}}\n</tool_response>"},
            {"from": "gpt", "value": "9 and 3 degrees."}]}),
        json!({"conversations": [
            {"from": "system", "value": flat}, {"from": "human", "value": "How is it in Bern?"},
            {"from": "gpt", "value": "<functioncall> {\"name\": \"get_weather\", \"arguments\": {\"city\": \"Bern\"}} </functioncall>"},
            {"from": "function_response", "value": "{\"temp\": 4}"}, {"from": "gpt", "value": "4 degrees."}]}),
        json!({"system": "Be nice.", "tools": tools.to_string(), "conversations": [
            {"from": "human", "value": "Weather for my trip to Lyon, please"},
            {"from": "function_call", "value": "<think>\nI need it.\n</think>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Lyon\"}}"},
            {"from": "observation", "value": "{\"temp\": 7}"}, {"from": "gpt", "value": "7 degrees."}]}),
        json!({"messages": [{"role": "user", "content": "Name a fruit"}, {"role": "assistant", "content": "An apple."}]}),
        json!({"conversations": [{"from": "narrator", "value": "Once"}]}),
    ];
    let lines = dialogues
        .iter()
        .fold(String::new(), |all, row| all + &format!("{row}\n"));
    let bench = bench(&lines);
    bench.run(&Convert, json!({"format": "sharegpt"})).unwrap();
    let rows = rows(&bench);
    let brief: Vec<Value> = rows
        .iter()
        .map(|row| json!([row["type"], row["messages"]]))
        .collect();
    insta::assert_json_snapshot!(brief);
    assert_eq!(
        bench.json("report.json")["dropped"]["unknown-role"]["rows"],
        1
    );
}

#[test]
fn a_map_that_names_what_does_not_exist_is_refused() {
    let mut bench = Bench::new();
    let map = "functions:\n  a: {tool: createTsk}\n  b: {tool: createTask, params: {titel: x}}\n";
    bench
        .tools()
        .give("rows", "rows.jsonl", GLAIVE)
        .give("map", "map.yaml", map);
    let error = bench
        .run(&Convert, json!({"format": "glaive"}))
        .unwrap_err();
    assert_eq!(error.code, "convert::map");
    assert_eq!(
        error.message,
        "`a`: unknown tool `createTsk`\n`b`: `createTask` has no parameter `titel`"
    );
}

#[test]
fn own_rows_pass_as_they_are() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/examples");
    let mut bench = Bench::new();
    bench.inputs.insert("rows".to_owned(), vec![data.clone()]);
    bench.run(&Convert, json!({"format": "own"})).unwrap();
    let written = conversation::read(&data).unwrap();
    assert_eq!(rows(&bench).len(), written.len());
}
