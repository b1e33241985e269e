//! Proof that the adapter is applied.

use serde_json::{Value, json};

use super::server::{Service, State};
use super::{bench, given, made, run};
use crate::contract::StageEvent;

const CALL: &str = "Okay.\n\n```json\n{\"tool\": \"createTask\", \"params\": {}}\n```";

#[test]
fn both_answers_are_shown_side_by_side() {
    let (service, mut bench) = (Service::new(State::default()), bench());
    let system = bench.path("system.txt");
    std::fs::write(&system, "You are \"an assistant\".").expect("a file");
    bench.inputs.insert("system".to_owned(), vec![system]);
    let outcome = run(
        &bench,
        given(
            service.url(),
            json!({"prompts": ["hi", "ho"], "max_tokens": 300}),
        ),
    )
    .expect("an upload");
    let proof = made(&bench, "verification.json");
    assert_eq!(
        (&proof["verified"], &proof["differ"], &proof["with_call"]),
        (&json!(true), &json!(2), &json!(2))
    );
    assert_eq!(proof["form"], "messages");
    assert_eq!(proof["prompts"][0]["base"], "You should call John.");
    assert_eq!(outcome.metrics["verify.with_call"], 1.0);
    let inputs: Vec<Value> = service
        .server
        .seen()
        .iter()
        .filter(|seen| seen.path().contains("/ai/run/"))
        .map(|seen| serde_json::from_slice(&seen.body).expect("JSON"))
        .collect();
    let asked = &inputs[1];
    assert_eq!(
        asked["messages"],
        json!([{"role": "system", "content": "You are \"an assistant\"."}, {"role": "user", "content": "hi"}])
    );
    assert_eq!(
        (&asked["max_tokens"], &asked["temperature"], &asked["seed"]),
        (&json!(300), &json!(0), &json!(1))
    );
    assert!(asked.get("lora").is_none() && inputs[2]["lora"].is_string());
    let worker = String::from_utf8(bench.made("worker.ts")).expect("text");
    assert!(worker.contains("SYSTEM_PROMPT: string = \"You are \\\"an assistant\\\".\";"));
    assert!(worker.contains("RAW_FORM = false"));
}

#[test]
fn an_adapter_that_is_not_ready_is_waited_for() {
    let (service, bench) = (
        Service::new(State {
            unready: 4,
            ..State::default()
        }),
        bench(),
    );
    run(&bench, given(service.url(), json!({}))).expect("an upload");
    let waits = bench
        .events()
        .iter()
        .filter(|event| matches!(event, StageEvent::Progress { unit, .. } if unit == "seconds"))
        .count();
    assert_eq!(waits, 4);
}

#[test]
fn an_adapter_that_never_gets_ready_is_reported() {
    let (service, bench) = (
        Service::new(State {
            unready: usize::MAX,
            ..State::default()
        }),
        bench(),
    );
    let error =
        run(&bench, given(service.url(), json!({"wait_seconds": 0}))).expect_err("3037 for ever");
    assert_eq!(
        (error.code.as_str(), error.retryable),
        ("upload::not-ready", true)
    );
    assert!(error.message.contains("(code 3037)"), "{}", error.message);
    assert!(
        error.mend.contains("nothing is uploaded twice"),
        "{}",
        error.mend
    );
}

#[test]
fn an_adapter_that_changes_nothing_is_a_failure() {
    let state = State {
        model: Some(|_| "the same".to_owned()),
        ..State::default()
    };
    let (service, bench) = (Service::new(state), bench());
    let error = run(&bench, given(service.url(), json!({}))).expect_err("not applied");
    assert_eq!(error.code, "upload::not-applied");
    assert!(
        !bench.path("output/receipt.json").exists(),
        "no receipt without proof"
    );
}

#[test]
fn the_form_that_brings_calls_goes_into_the_worker() {
    fn model(input: &Value) -> String {
        match (input["lora"].is_string(), input["prompt"].as_str()) {
            (true, Some(prompt)) => {
                assert_eq!(prompt, "<s>[INST] call mum [/INST]");
                assert_eq!(input["raw"], true);
                CALL.to_owned()
            }
            (true, None) => "something else".to_owned(),
            _ => "base".to_owned(),
        }
    }
    let (service, bench) = (
        Service::new(State {
            model: Some(model),
            ..State::default()
        }),
        bench(),
    );
    run(
        &bench,
        given(service.url(), json!({"prompts": ["call mum"]})),
    )
    .expect("an upload");
    assert_eq!(made(&bench, "verification.json")["form"], "prompt");
    assert!(String::from_utf8_lossy(&bench.made("worker.ts")).contains("RAW_FORM = true"));
}

#[test]
fn no_call_at_all_is_a_warning() {
    fn model(input: &Value) -> String {
        if input["lora"].is_string() {
            "Sure!"
        } else {
            "No."
        }
        .to_owned()
    }
    let (service, bench) = (
        Service::new(State {
            model: Some(model),
            ..State::default()
        }),
        bench(),
    );
    run(&bench, given(service.url(), json!({}))).expect("an upload");
    assert!(bench.events().iter().any(
        |event| matches!(event, StageEvent::Warning { code, .. } if code == "upload::no-call")
    ));
}

#[test]
fn verification_can_be_left_out() {
    let (service, bench) = (Service::new(State::default()), bench());
    let outcome = run(&bench, given(service.url(), json!({"verify": false}))).expect("an upload");
    assert_eq!(
        made(&bench, "verification.json"),
        json!({"verified": false, "why": "`verify: false`"})
    );
    assert_eq!(service.count("POST", "/ai/run/"), 0);
    assert!(outcome.metrics.is_empty());
}
