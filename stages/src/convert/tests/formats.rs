//! Hermes, xLAM, APIGen-MT and Alpaca: real rows, and the known dirt of each.

use serde_json::{Value, json};

use super::{HERMES, bench, rows};
use crate::convert::Convert;
use crate::testing::Bench;

const XLAM: &str = include_str!("../../../tests/golden/rows/xlam.jsonl");
const APIGEN: &str = include_str!("../../../tests/golden/rows/apigen-mt.jsonl");
const ALPACA: &str = include_str!("../../../tests/golden/rows/alpaca.jsonl");

/// What one row of a format becomes: its messages, or the reason it is dropped for.
fn fate(format: &str, row: &Value) -> Result<Value, String> {
    let bench = bench(&format!("{row}\n"));
    match bench.run(&Convert, json!({"format": format})) {
        Ok(_) => Ok(rows(&bench)[0]["messages"].clone()),
        Err(error) => {
            assert_eq!(error.code, "convert::no-rows");
            Err(error.message.split(" x ").nth(1).unwrap_or("").to_owned())
        }
    }
}

fn dropped(bench: &Bench, reason: &str) -> Value {
    bench.json("report.json")["dropped"][reason]["rows"].clone()
}

const MAIL: &str = "{'name': 'send_email', 'description': '', 'parameters': {'type': 'object', \
    'properties': {'to': {'type': 'string'}, 'subject': {'type': 'string'}, 'body': {'type': \
    'string'}, 'urgent': {'type': 'boolean', 'default': False}}, 'required': ['to']}}";

/// A row of Hermes with one declared function, in Python's spelling.
fn hermes(answer: &str) -> Value {
    let system = format!(
        "You are given signatures within <tools> </tools> XML tags.\n<tools>\n[{{'type': \
         'function', 'function': {MAIL}}}]\n</tools>\nFor each call return a json object within \
         <tool_call> </tool_call> tags:\n<tool_call>\n{{'arguments': <args-dict>, 'name': \
         <function-name>}}\n</tool_call>"
    );
    json!({"id": "x", "tools": "null", "conversations": [
        {"from": "system", "value": system},
        {"from": "human", "value": "Mail Ann that it's done"},
        {"from": "gpt", "value": answer}]})
}

#[test]
fn real_hermes_rows_are_taken_or_dropped_by_name() {
    let bench = bench(HERMES);
    let with = json!({"format": "hermes", "keep_tools": true, "longest": 20000});
    bench.run(&Convert, with).unwrap();
    let report = bench.json("report.json");
    assert_eq!(report["taken"], 1);
    assert_eq!(report["mended"], json!({"python-literal": 1}));
    assert_eq!(dropped(&bench, "json-mode"), 1);
    // Its call reads, but gives `queries` where `application_questions` is declared.
    let wrong = report["dropped"]["validate::params"]["samples"][0].as_str();
    assert!(wrong.unwrap().starts_with("row 2: `ExpertQAExtractor`"));
    let row = &rows(&bench)[0];
    assert_eq!(row["source"], "hermes");
    assert_eq!(row["tools"][0]["name"], "search_flights");
    let call = &row["messages"][1]["calls"][0]["params"];
    assert_eq!(call["flexible_cancellation"], true);
    let result = &row["messages"][2]["content"];
    assert_eq!(result["flights"][0]["flight_number"], "AA118");
}

#[test]
fn every_dirt_of_hermes_calls_is_mended() {
    let mail = |body: &str| {
        json!([{"role": "user", "content": "Mail Ann that it's done"},
            {"role": "assistant", "content": "I'll send the email.", "calls": [{"tool": "sendEmail",
                "params": {"to": "ann@x.example", "subject": "Done", "body": body}}]}])
    };
    let json = r#"{"to": "ann@x.example", "subject": "Done", "body": "It's\ndone"}"#;
    let python = r"{'to': 'ann@x.example', 'subject': 'Done', 'body': 'It\'s\ndone'}";
    let text = Value::from(json).to_string();
    let open = json.trim_end_matches('}');
    for call in [
        format!(r#"{{"name": "send_email", "arguments": {json}}}"#),
        format!(r#"{{"arguments": {json}, "name": "send_email"}}"#),
        format!("{{'arguments': {python}, 'name': 'send_email'}}"),
        format!(r#"{{'name': "send_email", "arguments": {python}}}"#),
        format!(r#"\n{{"name": "send_email", "arguments": {json}}}\n"#),
        format!(r#"{{"arguments": {open}, "name": "send_email"}}}}"#),
        format!(r#"{{"name": "send_email", "arguments": {text}}}"#),
    ] {
        let row = hermes(&format!("<tool_call>\n{call}\n</tool_call>\n"));
        assert_eq!(fate("hermes", &row), Ok(mail("It's\ndone")), "{call}");
    }
    // A literal `\n` between the keys: then one inside a text cannot be told from it.
    let call = format!(r#"{{"name": "send_email",\n "arguments": {json}}}"#);
    let row = hermes(&format!("<tool_call>\n{call}\n</tool_call>\n"));
    assert_eq!(fate("hermes", &row), Ok(mail("It's done")));
}

#[test]
fn what_hermes_cannot_mean_is_dropped_by_name() {
    for (answer, reason) in [
        (
            "<tool_call>\n{'name': 'send_email', 'arguments': {'to'",
            "truncated-call",
        ),
        (
            "<tool_call>\n{name: send_email, arguments: {}}\n</tool_call>",
            "broken-call",
        ),
        (
            "<tool_call>\n{'name': 'paint', 'arguments': {}}\n</tool_call>",
            "undeclared-function",
        ),
        (
            "<tool_call>\n{'arguments': {'to': 'a'}}\n</tool_call>",
            "call-without-name",
        ),
        (
            "<tool_call>\n[{'arguments': {}, 'name': 'send_email'}]\n</tool_call>",
            "call-without-name",
        ),
        (
            "<tool_call>\n{'name': 'send_email', 'arguments': {'to': 'ann@x.example'}}\n</tool_call>",
            "unmappable-params",
        ),
    ] {
        assert_eq!(fate("hermes", &hermes(answer)), Err(reason.to_owned()));
    }
    let mut row = hermes("It is done, Ann will read it.");
    let system = row["conversations"][0]["value"].as_str().unwrap();
    row["conversations"][0]["value"] = system.replace("'required': ", "'required' ").into();
    assert_eq!(fate("hermes", &row), Err("broken-tools".to_owned()));
    row["tools"] = json!(r#"[{"name": "send_email", "parameters": {"type": "object"}}]"#);
    assert!(fate("hermes", &row).is_ok(), "the column reads");
}

#[test]
fn several_hermes_calls_and_results_stand_in_one_turn() {
    let call = |to: &str| format!("{{'to': '{to}', 'subject': 's', 'body': 'b'}}");
    let (ann, bob) = (
        call("ann@x.example"),
        call("bob@x.example").replace('\'', "\""),
    );
    let answer = format!(
        "One moment.\\n<tool_call>\n{{'arguments': {ann}, 'name': 'send_email'}}\n</tool_call>\n\
         <tool_call>\\n{{\"name\": \"send_email\", \"arguments\": {bob}}}\\n</tool_call> Wait."
    );
    let mut row = hermes(&answer);
    let turns = row["conversations"].as_array_mut().unwrap();
    let results = "<tool_response>\n{\"name\": \"send_email\", \"content\": {\"sent\": true}}\n\
        </tool_response>\n<tool_response>\\n{'name': 'send_email', 'content': None}\\n</tool_response>";
    turns.push(json!({"from": "tool", "value": results}));
    turns.push(json!({"from": "gpt", "value": "Both know."}));
    let bench = bench(&format!("{row}\n"));
    bench.run(&Convert, json!({"format": "hermes"})).unwrap();
    let row = &rows(&bench)[0];
    assert_eq!(row["type"], "compound");
    assert_eq!(row["messages"][1]["content"], "One moment.");
    assert_eq!(
        row["messages"][1]["calls"][0]["params"]["to"],
        "ann@x.example"
    );
    assert_eq!(
        row["messages"][1]["calls"][1]["params"]["to"],
        "bob@x.example"
    );
    assert_eq!(row["messages"][2]["content"], json!({"sent": true}));
    assert_eq!(row["messages"][3]["content"], Value::Null);
    assert_eq!(
        bench.json("report.json")["mended"],
        json!({"literal-newlines": 1, "prose-before-call": 1, "python-literal": 1, "text-after-call": 1})
    );
}

#[test]
fn a_real_xlam_row_becomes_a_compound_with_a_schema() {
    let bench = bench(XLAM);
    let with = json!({"format": "xlam", "keep_tools": true});
    bench.run(&Convert, with).unwrap();
    let row = &rows(&bench)[0];
    assert_eq!(row["type"], "compound");
    assert_eq!(
        row["tools"][0]["params"],
        json!({"type": "object", "properties": {"type": {"type": "string",
            "description": "The type of giveaways to retrieve (e.g., game, loot, beta).",
            "default": "game"}}, "required": ["type"], "additionalProperties": false})
    );
    assert_eq!(
        row["messages"][1],
        json!({"role": "assistant", "content": "I'll use `live_giveaways_by_type` for that.",
            "calls": [{"tool": "live_giveaways_by_type", "params": {"type": "beta"}},
                {"tool": "live_giveaways_by_type", "params": {"type": "game"}}]})
    );
}

/// A row of xLAM with one declared function.
fn xlam(answers: &str) -> Value {
    let tools = json!([{"name": "get_weather", "description": "", "parameters": {
        "city": {"type": "str", "description": ""}, "days": {"type": "int, optional", "default": 1}}}]);
    json!({"id": 1, "query": "Weather in Rome?", "tools": tools.to_string(), "answers": answers})
}

#[test]
fn xlam_calls_go_through_the_map_or_are_dropped_by_name() {
    let good = r#"[{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}]"#;
    let messages = fate("xlam", &xlam(good)).unwrap();
    assert_eq!(
        messages[1],
        json!({"role": "assistant", "content": "I'll check the weather.",
            "calls": [{"tool": "getWeather", "params": {"location": "Rome"}}]})
    );
    for (answers, reason) in [
        ("[]", "no-answer"),
        (r#"[{"name": "get_weather", "#, "broken-call"),
        (
            r#"[{"name": "rain", "arguments": {}}]"#,
            "undeclared-function",
        ),
        (
            r#"[{"name": "get_weather", "arguments": {}}]"#,
            "unmappable-params",
        ),
    ] {
        assert_eq!(fate("xlam", &xlam(answers)), Err(reason.to_owned()));
    }
    let mut row = xlam(good);
    row["tools"] = json!("[{");
    assert_eq!(fate("xlam", &row), Err("broken-tools".to_owned()));
}

#[test]
fn an_own_list_of_xlam_is_checked_too() {
    let good = r#"[{"name": "get_weather", "arguments": {"city": "Rome"}}]"#;
    let bad = good.replace("\"Rome\"", "\"Rome\", \"days\": \"two\"");
    // A second, unmapped function makes the row keep its list.
    let with_own = |answers: &str| {
        let mut row = xlam(&answers.replace("get_weather", "rain_in"));
        row["tools"] = json!(
            row["tools"]
                .as_str()
                .unwrap()
                .replace("get_weather", "rain_in")
        );
        let bench = bench(&format!("{row}\n"));
        let run = bench.run(&Convert, json!({"format": "xlam", "keep_tools": true}));
        run.map(|_| rows(&bench)[0]["messages"][1]["calls"][0]["tool"].clone())
            .map_err(|error| error.message)
    };
    assert_eq!(with_own(good), Ok(json!("rain_in")));
    assert!(with_own(&bad).unwrap_err().contains("1 x validate::params"));
}

#[test]
fn real_apigen_dialogues_lose_policy_thoughts_and_idle_tools() {
    let bench = bench(APIGEN);
    let with = json!({"format": "apigen-mt", "keep_tools": true, "longest": 9000});
    bench.run(&Convert, with).unwrap();
    assert_eq!(
        bench.json("report.json")["mended"],
        json!({"call-turn-joined": 1, "thought-removed": 6, "tools-narrowed": 2})
    );
    let text = bench.text("rows.jsonl");
    assert!(text.lines().all(|line| line.chars().count() <= 9000));
    assert!(!text.contains("think>") && !text.contains("policy>"));
    let rows = rows(&bench);
    assert_eq!(rows[0]["type"], "multi_turn");
    let user = rows[1]["messages"][4]["content"].as_str().unwrap();
    assert!(user.ends_with("the most convenient option will be fine."));
    assert_eq!(rows[0]["messages"][4]["content"], "Error: user not found");
    let names = |row: &Value| -> Vec<String> {
        let tools = row["tools"].as_array().unwrap().iter();
        tools
            .map(|tool| tool["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(names(&rows[0]).contains(&"return_delivered_order_items".to_owned()));
    assert!(names(&rows[0]).len() > 4, "some stay that nobody calls");
    assert!(names(&rows[1]).contains(&"book_reservation".to_owned()));
    let joined = &rows[1]["messages"][11];
    assert_eq!(joined["calls"][0]["tool"], "book_reservation");
    assert!(
        joined["content"]
            .as_str()
            .unwrap()
            .starts_with("Thank you for the information.")
    );
}

#[test]
fn the_tool_that_only_thinks_is_forgotten_with_its_observation() {
    let tools = json!([
        {"name": "think", "description": "", "parameters": {"type": "object", "properties": {"thought": {"type": "string"}}}},
        {"name": "get_weather", "description": "", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]);
    let row = json!({"system": "<policy>Be brief.</policy>", "tools": tools.to_string(), "conversations": [
        {"from": "human", "value": "Rain in Rome?"},
        {"from": "function_call", "value": "{\"name\": \"think\", \"arguments\": {\"thought\": \"I look.\"}}"},
        {"from": "observation", "value": ""},
        {"from": "function_call", "value": "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}"},
        {"from": "observation", "value": "Dry"},
        {"from": "function_call", "value": "{\"name\": \"think\", \"arguments\": {\"thought\": \"So no.\"}}"},
        {"from": "observation", "value": ""},
        {"from": "gpt", "value": "No, it is dry."}]});
    assert_eq!(
        fate("apigen-mt", &row),
        Ok(json!([
            {"role": "user", "content": "Rain in Rome?"},
            {"role": "assistant", "content": "I'll check the weather.",
                "calls": [{"tool": "getWeather", "params": {"location": "Rome"}}]},
            {"role": "tool", "content": "Dry"},
            {"role": "assistant", "content": "No, it is dry."}]))
    );
}

#[test]
fn a_thought_that_does_not_end_drops_the_row() {
    for answer in ["<think>\nHm. It is dry.", "Hm.\n</think>\nIt is dry."] {
        let row = json!({"conversations": [
            {"from": "human", "value": "Rain in Rome?"}, {"from": "gpt", "value": answer}]});
        assert_eq!(fate("apigen-mt", &row), Err("broken-thought".to_owned()));
    }
}

#[test]
fn real_alpaca_rows_are_general_and_refusals_go() {
    let bench = bench(ALPACA);
    bench.run(&Convert, json!({"format": "alpaca"})).unwrap();
    let rows = rows(&bench);
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row["type"] == "general"));
    assert_eq!(
        rows[1]["messages"],
        json!([{"role": "user", "content": "Identify the odd one out.\n\nTwitter, Instagram, Telegram"},
            {"role": "assistant", "content": "Telegram"}])
    );
    assert_eq!(dropped(&bench, "no-answer"), 1);
    let none =
        json!({"instruction": "Name a sea", "input": "<No Input>", "output": "The Red Sea."});
    assert_eq!(fate("alpaca", &none).unwrap()[0]["content"], "Name a sea");
}

#[test]
fn a_row_of_another_format_is_no_crash() {
    for format in [
        "glaive",
        "sharegpt",
        "hermes",
        "xlam",
        "apigen-mt",
        "alpaca",
    ] {
        for row in [
            json!({"a": 1}),
            json!([1]),
            json!("text"),
            json!({"conversations": {}}),
        ] {
            assert_eq!(
                fate(format, &row),
                Err("not-this-format".to_owned()),
                "{format}"
            );
        }
    }
}
