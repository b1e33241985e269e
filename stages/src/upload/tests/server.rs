//! A stand-in for Cloudflare: it answers as recorded, remembers what it was given, and
//! does not insist on more than the real one does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{ACCOUNT, TOKEN};
use crate::http::testing::{Say, Seen, TestServer};

const RECORDED: &str = include_str!("golden/wrangler-recorded.json");

/// The recorded exchange of a scenario.
pub(super) fn recorded(scenario: &str, n: u64) -> Value {
    let all: Value = serde_json::from_str(RECORDED).expect("JSON");
    let requests = all["requests"].as_array().expect("a list").iter();
    let mut fitting = requests.filter(|one| one["scenario"] == scenario && one["n"] == n);
    fitting.next().expect("it was recorded").clone()
}

pub(super) fn recorded_answer(scenario: &str, n: u64) -> Say {
    let exchange = recorded(scenario, n);
    let status = exchange["response"]["status"].as_u64().expect("a status");
    Say::json(status as u16, &exchange["response"]["body"])
}

/// A refusal in the service's envelope.
pub(super) fn refuse(status: u16, code: i64, message: &str) -> Say {
    let errors = json!([{"code": code, "message": message}]);
    Say::json(
        status,
        &json!({"success": false, "errors": errors, "messages": [], "result": null}),
    )
}

fn accept(result: Value) -> Say {
    Say::json(
        200,
        &json!({"success": true, "errors": [], "messages": [], "result": result}),
    )
}

/// One fine-tune in the account.
#[derive(Clone, Debug, Default)]
pub(super) struct Tune {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) model: String,
    pub(super) files: BTreeMap<String, usize>,
}

/// What the service remembers, and its moods.
#[derive(Default)]
pub(super) struct State {
    pub(super) tunes: Vec<Tune>,
    /// Answers given before any other, by the start of `METHOD path`.
    pub(super) moods: Vec<(String, Say)>,
    /// How often a complete adapter still answers 3037.
    pub(super) unready: usize,
    /// Gives an answer from the input, instead of the usual ones.
    pub(super) model: Option<fn(&Value) -> String>,
    /// The list's shape: 0 flat, 1 nested.
    pub(super) nested: bool,
    pub(super) lora: Option<&'static str>,
}

pub(super) struct Service {
    pub(super) server: TestServer,
    pub(super) state: Arc<Mutex<State>>,
}

impl Service {
    pub(super) fn new(state: State) -> Self {
        let state = Arc::new(Mutex::new(state));
        let inner = Arc::clone(&state);
        let server = TestServer::new(move |seen| {
            answer(seen, &mut inner.lock().expect("no panic holds it"))
        });
        Self { server, state }
    }

    pub(super) fn url(&self) -> &str {
        &self.server.url
    }

    pub(super) fn tunes(&self) -> Vec<Tune> {
        self.state.lock().expect("no panic holds it").tunes.clone()
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no panic holds it"));
    }

    /// Requests whose path has `part`.
    pub(super) fn count(&self, method: &str, part: &str) -> usize {
        let fits = |seen: &&Seen| seen.method == method && seen.path().contains(part);
        self.server.seen().iter().filter(fits).count()
    }
}

fn answer(seen: &Seen, state: &mut State) -> Say {
    if seen.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
        return refuse(401, 10000, "Authentication error");
    }
    let line = format!("{} {}", seen.method, seen.path());
    if let Some(at) = state
        .moods
        .iter()
        .position(|(start, _)| line.starts_with(start))
    {
        return state.moods.remove(at).1;
    }
    let prefix = format!("/client/v4/accounts/{ACCOUNT}/ai/");
    let Some(path) = seen.path().strip_prefix(&prefix) else {
        return match seen.path() {
            "/client/v4/memberships" => {
                accept(json!([{"id": "m", "account": {"id": ACCOUNT, "name": "Stub"}}]))
            }
            _ => refuse(404, 7003, "Could not route"),
        };
    };
    match (seen.method.as_str(), path) {
        ("GET", "finetunes") => list(state),
        ("POST", "finetunes") => create(seen, state),
        ("GET", "models/search") => catalog(state),
        ("POST", path) if path.ends_with("/finetune-assets") => asset(seen, path, state),
        ("POST", path) if path.starts_with("run/") => run(seen, state),
        _ => refuse(404, 7003, "Could not route"),
    }
}

fn list(state: &State) -> Say {
    let tunes: Vec<Value> = state
        .tunes
        .iter()
        .map(|tune| {
            let mut one = recorded("ok", 1)["response"]["body"]["result"].clone();
            one["id"] = json!(tune.id);
            one["name"] = json!(tune.name);
            one["model"] = json!(tune.model);
            one
        })
        .collect();
    accept(if state.nested {
        json!([tunes])
    } else {
        json!(tunes)
    })
}

fn create(seen: &Seen, state: &mut State) -> Say {
    let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
    let name = body["name"].as_str().expect("a name").to_owned();
    if state.tunes.iter().any(|tune| tune.name == name) {
        return recorded_answer("dup", 1);
    }
    let id = format!("id-{}", state.tunes.len());
    let mut result = recorded("ok", 1)["response"]["body"]["result"].clone();
    result["id"] = json!(id);
    result["name"] = json!(name);
    let model = body["model"].as_str().expect("a model").to_owned();
    state.tunes.push(Tune {
        id,
        name,
        model,
        ..Tune::default()
    });
    accept(result)
}

fn asset(seen: &Seen, path: &str, state: &mut State) -> Say {
    let id = path.split('/').nth(1).unwrap_or_default();
    let Some(tune) = state.tunes.iter_mut().find(|tune| tune.id == id) else {
        return refuse(404, 3037, "Finetune not found");
    };
    let parts = parts(seen);
    let name = String::from_utf8(parts[0].1.clone()).expect("text");
    if tune.files.contains_key(&name) {
        return refuse(400, 3000, "asset already exists");
    }
    tune.files.insert(name, parts[1].1.len());
    recorded_answer("ok", 2)
}

fn catalog(state: &State) -> Say {
    let value = state.lora.unwrap_or("true");
    let properties = json!([{"property_id": "lora", "value": value}]);
    match state.lora {
        Some("absent") => accept(json!([])),
        _ => accept(json!([{"name": super::MODEL, "properties": properties}])),
    }
}

fn run(seen: &Seen, state: &mut State) -> Say {
    let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
    if let Some(lora) = body["lora"].as_str() {
        match state.tunes.iter().find(|tune| tune.name == lora) {
            None => return refuse(400, 3037, &format!("Finetune {lora} not found")),
            Some(tune) if tune.files.len() < 2 => {
                return refuse(400, 3039, "missing required files");
            }
            Some(_) if state.unready > 0 => {
                state.unready -= 1;
                return refuse(400, 3037, &format!("Finetune {lora} not found"));
            }
            Some(_) => {}
        }
    }
    let plain = |body: &Value| {
        if body["lora"].is_string() {
            "Okay.\n\n```json\n{\"tool\": \"createTask\", \"params\": {\"title\": \"Call John\"}}\n```".to_owned()
        } else {
            "You should call John.".to_owned()
        }
    };
    let response = state
        .model
        .map_or_else(|| plain(&body), |model| model(&body));
    accept(json!({"response": response, "usage": {"total_tokens": 9}}))
}

/// The parts of a multipart body: headers and bytes.
pub(super) fn parts(seen: &Seen) -> Vec<(String, Vec<u8>)> {
    let kind = seen.header("content-type").expect("a type");
    let boundary = kind
        .strip_prefix("multipart/form-data; boundary=")
        .expect("multipart");
    let mark = format!("--{boundary}");
    let mut found = Vec::new();
    let mut rest = seen.body.as_slice();
    while let Some(start) = find(rest, mark.as_bytes()) {
        rest = &rest[start + mark.len()..];
        if rest.starts_with(b"--\r\n") {
            break;
        }
        let head_end = find(rest, b"\r\n\r\n").expect("headers");
        let end = find(rest, format!("\r\n{mark}").as_bytes()).expect("an end");
        let head = String::from_utf8(rest[2..head_end].to_vec()).expect("text");
        found.push((head, rest[head_end + 4..end].to_vec()));
    }
    found
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
