//! The worker refuses what it cannot do, in its own protocol.

use assert_cmd::Command;
use serde_json::{Value, json};

fn ask(request: &str) -> (i32, Value) {
    let run = Command::new(env!("CARGO_BIN_EXE_tunesmith-worker"))
        .write_stdin(request)
        .output()
        .expect("the worker starts");
    let text = String::from_utf8(run.stdout).expect("messages are UTF-8");
    let last = text.lines().last().expect("a last message");
    let message = serde_json::from_str(last).expect("a JSON line");
    (run.status.code().expect("an exit code"), message)
}

fn request(program: &str, kind: &str) -> String {
    json!({
        "program": program, "kind": kind, "version": 1, "params": {}, "inputs": {},
        "output": "/nonexistent/o", "checkpoint": "/nonexistent/c", "keep": "/nonexistent/k",
        "seed": 0, "threads": 1, "pin": null, "network": false,
    })
    .to_string()
}

#[test]
fn another_version_is_refused() {
    let (code, message) = ask(&request("0.0.0-other", "train"));
    assert_eq!(code, 1);
    assert_eq!(message["failed"]["code"], "worker::refused");
    let cause = message["failed"]["message"].as_str().expect("a cause");
    assert!(cause.contains("`0.0.0-other`"), "{cause}");
}

#[test]
fn an_unknown_kind_is_refused() {
    let (code, message) = ask(&request(env!("CARGO_PKG_VERSION"), "no-such-stage"));
    assert_eq!(code, 1);
    let cause = message["failed"]["message"].as_str().expect("a cause");
    assert!(cause.contains("no-such-stage"), "{cause}");
}

#[test]
fn a_broken_request_is_refused() {
    for broken in ["", "{", "[]", "{\"program\": 1}"] {
        let (code, message) = ask(broken);
        assert_eq!(code, 1, "{broken}");
        assert_eq!(message["failed"]["code"], "worker::refused", "{broken}");
    }
}
