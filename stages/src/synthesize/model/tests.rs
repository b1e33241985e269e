//! The model providers against a server on this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::contract::{Stage, canonical};
use crate::http::testing::{Bench, Say, Seen, TestServer, environment, hasty};
use crate::synthesize::Synthesize;
use crate::tools::assistant;

fn params(with: Value) -> Params {
    let given = with.as_object().unwrap().clone().into_iter().collect();
    canonical(Synthesize.fields(), &given).expect("the parameters are right")
}

fn with(extra: Value) -> Params {
    let mut with = json!({
        "provider": "anthropic", "model": "claude-test", "per_request": 4,
        "budget_usd": 5.0, "price_in": 3.0, "price_out": 15.0, "max_tokens": 2000
    });
    for (name, value) in extra.as_object().unwrap() {
        with[name] = value.clone();
    }
    params(with)
}

/// Ten words that no other number gives.
fn subject(number: usize) -> String {
    let words = (0..4).map(|k| format!("{:x}", crate::similarity::hash(&[number as u8, k, 9])));
    words.collect::<Vec<_>>().join(" ")
}

fn example(number: usize, tool: &str) -> Value {
    json!({"now": "2026-03-02T09:00", "pair": 0, "turns": [{
        "user": format!("note {}", subject(number)), "prose": "I'll add that to your tasks.",
        "calls": [{"tool": tool, "params": {"title": subject(number), "description": null,
            "dueDate": "2026-03-03T09:00:00Z", "priority": null}}],
        "results": [], "after": null}]})
}

fn answer(examples: &[Value], stop: &str) -> Value {
    let text = json!({"examples": examples}).to_string();
    json!({"type": "message", "stop_reason": stop, "content": [{"type": "text", "text": text}],
        "usage": {"input_tokens": 500, "cache_creation_input_tokens": 1000,
            "cache_read_input_tokens": 0, "output_tokens": 800}})
}

/// A server that numbers its requests and answers by number.
fn server(say: impl Fn(usize, &Seen) -> Say + Send + 'static) -> TestServer {
    let count = Arc::new(AtomicUsize::new(0));
    TestServer::new(move |seen| say(count.fetch_add(1, Ordering::SeqCst), seen))
}

/// Four fresh createTask examples for each request.
fn good(number: usize) -> Say {
    let examples: Vec<Value> = (0..4)
        .map(|k| example(number * 4 + k, "createTask"))
        .collect();
    Say::json(200, &answer(&examples, "end_turn"))
}

fn ask(bench: &Bench, url: &str, count: usize, params: &Params) -> Result<Written, StageError> {
    let tools = crate::tools::ToolSet::new(
        assistant()
            .specs()
            .filter(|s| s.name == "createTask")
            .cloned()
            .collect(),
    )
    .unwrap();
    let env = environment(&[
        ("ANTHROPIC_API_KEY", "sk-secret-1"),
        ("ANTHROPIC_BASE_URL", url),
    ]);
    bench.run(|ctx| {
        let desk = Desk {
            tools: &tools,
            eval: None,
            mix: [(Kind::Single, 1.0)].into(),
            count,
            environment: env.clone(),
            patience: hasty(),
        };
        write(params, &desk, ctx)
    })
}

#[test]
fn a_request_is_what_the_service_documents() {
    let server = server(|number, _| good(number));
    let bench = Bench::new();
    let written = ask(&bench, &server.url, 4, &with(json!({}))).unwrap();
    assert_eq!(written.rows.len(), 4);
    let seen = &server.seen()[0];
    assert_eq!(seen.path(), "/v1/messages");
    assert_eq!(seen.header("x-api-key"), Some("sk-secret-1"));
    assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(
        body["system"][0]["cache_control"],
        json!({"type": "ephemeral"})
    );
    assert!(body.get("temperature").is_none());
    let format = &body["output_config"]["format"];
    assert_eq!(format["type"], "json_schema");
    insta::assert_json_snapshot!(format["schema"]);
    let row = serde_json::to_value(&written.rows[0]).unwrap();
    let params = &row["messages"][1]["calls"][0]["params"];
    assert_eq!(params.as_object().unwrap().len(), 2, "nulls are left out");
    // 500 + 1.25 * 1000 tokens in at 3 USD, 800 out at 15 USD a million.
    assert!((written.spent_usd - (1750.0 * 3.0 + 800.0 * 15.0) / 1e6).abs() < 1e-12);
}

#[test]
fn what_was_answered_is_never_asked_again_and_more_rows_ask_only_for_more() {
    let server = server(|number, _| good(number));
    let bench = Bench::new();
    let first = ask(&bench, &server.url, 8, &with(json!({}))).unwrap();
    assert_eq!((first.asked, first.kept), (2, 0));
    let again = ask(&bench, &server.url, 8, &with(json!({}))).unwrap();
    assert_eq!((again.asked, again.kept), (0, 2));
    assert_eq!(again.rows, first.rows);
    assert_eq!(again.spent_usd, 0.0);
    let more = ask(&bench, &server.url, 10, &with(json!({}))).unwrap();
    assert_eq!((more.asked, more.rows.len()), (1, 10));
    assert_eq!(more.rows[..8], first.rows[..]);
}

#[test]
fn bad_examples_are_dropped_by_name() {
    let server = server(|number, _| {
        if number > 0 {
            return good(number);
        }
        let mut broken = example(1, "createTask");
        broken["turns"][0]["calls"][0]["params"]["priority"] = json!("urgent");
        let mut later = example(2, "createTask");
        later["now"] = json!("tomorrow");
        let examples = [
            example(0, "createTask"),
            example(0, "createTask"),
            broken,
            later,
        ];
        Say::json(200, &answer(&examples, "end_turn"))
    });
    let written = ask(&Bench::new(), &server.url, 4, &with(json!({}))).unwrap();
    assert_eq!(written.rows.len(), 4);
    assert_eq!(
        written.dropped,
        [("broken-now", 1), ("same-text", 1), ("validate::params", 1)].into()
    );
}

#[test]
fn a_refusal_and_a_cut_answer_are_asked_again_then_given_up() {
    let server = server(|number, _| match number {
        0 => Say::json(200, &answer(&[], "refusal")),
        1 => Say::json(200, &answer(&[example(0, "createTask")], "max_tokens")),
        _ => good(number),
    });
    let written = ask(&Bench::new(), &server.url, 4, &with(json!({}))).unwrap();
    assert_eq!(written.rows.len(), 4);
    assert_eq!(written.dropped, [("refusal", 1), ("truncated", 1)].into());
    let server = TestServer::new(|_| Say::json(200, &answer(&[], "refusal")));
    let written = ask(&Bench::new(), &server.url, 4, &with(json!({}))).unwrap();
    assert_eq!(written.short, [("single/createTask".to_owned(), 4, 0)]);
}

#[test]
fn busy_servers_are_asked_again() {
    let server = server(|number, _| match number {
        0 => Say::json(
            429,
            &json!({"error": {"type": "rate_limit_error", "message": "slow"}}),
        )
        .with("retry-after", "0"),
        1 => Say::json(
            529,
            &json!({"error": {"type": "overloaded_error", "message": "busy"}}),
        ),
        _ => good(number),
    });
    let written = ask(&Bench::new(), &server.url, 4, &with(json!({}))).unwrap();
    assert_eq!(written.rows.len(), 4);
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn a_wrong_key_is_told_without_showing_it() {
    let server = TestServer::new(|_| {
        let said =
            json!({"error": {"type": "authentication_error", "message": "invalid sk-secret-1"}});
        Say::json(401, &said)
    });
    let error = ask(&Bench::new(), &server.url, 4, &with(json!({})))
        .err()
        .unwrap();
    assert_eq!(server.asked().len(), 1);
    assert!(
        error.message.contains("authentication_error: invalid ***"),
        "{}",
        error.message
    );
    assert!(error.mend.contains("ANTHROPIC_API_KEY"));
}

#[test]
fn nothing_is_spent_without_a_budget_or_beyond_it() {
    let server = server(|number, _| good(number));
    let refused = |extra: Value, count: usize| {
        let bench = Bench::new();
        ask(&bench, &server.url, count, &with(extra))
            .err()
            .unwrap()
            .code
    };
    assert_eq!(
        refused(json!({"budget_usd": null}), 4),
        "synthesize::no-budget"
    );
    assert_eq!(
        refused(json!({"price_out": null}), 4),
        "synthesize::no-price"
    );
    assert_eq!(
        refused(json!({"budget_usd": 0.01}), 400),
        "synthesize::over-budget"
    );
    assert_eq!(server.asked().len(), 0);
    // Enough for what is expected, not for the worst case of a third request.
    let bench = Bench::new();
    let tight = with(json!({"budget_usd": 0.063}));
    let error = ask(&bench, &server.url, 12, &tight).err().unwrap();
    assert_eq!(error.code, "synthesize::budget-spent");
    let asked = server.asked().len();
    assert!((1..3).contains(&asked), "{asked}");
    let rest = ask(&bench, &server.url, 12, &with(json!({}))).unwrap();
    assert_eq!(rest.kept, asked, "what was paid for is used");
}

#[test]
fn openai_hosts_are_refused_by_name() {
    for base in [
        "https://api.openai.com",
        "https://API.OpenAI.com:443/v1",
        "https://user@eu.api.openai.com./v1",
        "https://mine.openai.azure.com",
    ] {
        let with = json!({"provider": "openai-compatible", "model": "m", "base_url": base});
        let error = check(&params(with)).unwrap_err();
        assert_eq!(error.code, "synthesize::openai-terms", "{base}");
    }
    for base in [
        "http://localhost:8000",
        "https://notopenai.com",
        "https://openai.com.example",
    ] {
        let with = json!({"provider": "openai-compatible", "model": "m", "base_url": base});
        assert!(check(&params(with)).is_ok(), "{base}");
    }
}

#[test]
fn a_server_of_ones_own_needs_no_budget() {
    let server = server(|number, _| {
        let examples: Vec<Value> = (0..4)
            .map(|k| example(number * 4 + k, "createTask"))
            .collect();
        let text = json!({"examples": examples}).to_string();
        Say::json(
            200,
            &json!({"choices": [{"finish_reason": "stop", "message": {"content": text}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 20}}),
        )
    });
    let with = json!({"provider": "openai-compatible", "model": "m", "base_url": server.url, "per_request": 4});
    let written = ask(&Bench::new(), "unused", 4, &params(with)).unwrap();
    assert_eq!(written.rows.len(), 4);
    assert_eq!(server.asked(), ["POST /v1/chat/completions"]);
    assert_eq!(written.spent_usd, 0.0);
}

#[test]
fn a_model_that_calls_another_tool_is_not_believed() {
    let tools = assistant();
    let stream = Stream {
        kind: Kind::Single,
        tool: Some("createTask".to_owned()),
        want: 4,
    };
    let batch = stream.batch(0, 4, 1, &tools);
    let mut accepted = Accepted::new(&tools, None);
    let mut other = example(0, "deleteTask");
    other["turns"][0]["calls"][0]["params"] = json!({"id": "task_1"});
    accepted.take(&batch, &json!({"examples": [other]}).to_string(), 4);
    accepted.take(&batch, "{\"examples\": 3}", 4);
    assert_eq!(
        accepted.dropped,
        [("wrong-tool", 1), ("not-the-schema", 1)].into()
    );
}
