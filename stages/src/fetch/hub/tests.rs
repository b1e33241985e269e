//! The hub's protocol against a server on this machine that speaks it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::fetch::tests::{noise, run, sha};
use crate::http::testing::{Bench, Say, Seen, TestServer};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secretsecretsecret";

fn weights() -> Vec<u8> {
    noise(400_000)
}

fn listing(files: &Value, more: &Value) -> Value {
    let mut answer = json!({"id": "owner/name", "sha": COMMIT, "siblings": files, "tags": ["license:apache-2.0"]});
    for (name, value) in more.as_object().expect("a map") {
        answer[name] = value.clone();
    }
    answer
}

fn files() -> Value {
    json!([
        {"rfilename": ".gitattributes", "size": 3},
        {"rfilename": "README.md", "size": 3},
        {"rfilename": "config.json", "size": 2},
        {"rfilename": "consolidated.safetensors", "size": 400_000, "lfs": {"sha256": sha(&weights()), "size": 400_000}},
        {"rfilename": "model.safetensors", "size": 400_000, "lfs": {"sha256": sha(&weights()), "size": 400_000, "pointerSize": 134}},
        {"rfilename": "pytorch_model.bin", "size": 9},
        {"rfilename": "gguf/model Q4.gguf", "size": 4},
    ])
}

/// A hub and its store of large files, two servers as in life: a token must not reach
/// the second.
struct Hub {
    hub: TestServer,
    store: TestServer,
}

impl Hub {
    fn new(answer: Value) -> Self {
        let store = TestServer::new(|seen| Say::file(seen, &weights()));
        let far = store.url.clone();
        let hub = TestServer::new(move |seen| hub_answer(seen, &answer, &far));
        Self { hub, store }
    }

    fn fetch(&self, bench: &Bench, given: Value) -> Result<crate::Outcome, crate::StageError> {
        let home = bench.path("home").display().to_string();
        let endpoint = format!("{}/", self.hub.url);
        run(
            bench,
            given,
            &[
                ("HF_ENDPOINT", &endpoint),
                ("HF_TOKEN", TOKEN),
                ("HF_HOME", &home),
            ],
        )
    }
}

fn hub_answer(seen: &Seen, listing: &Value, store: &str) -> Say {
    match seen.path() {
        "/api/models/owner/name/revision/main"
        | "/api/datasets/owner/name/revision/refs%2Fpr%2F1"
        | "/api/models/owner/name/revision/0123456789abcdef0123456789abcdef01234567" => {
            Say::json(200, listing)
        }
        path if path.ends_with("/config.json") => Say::new(200, "{}"),
        path if path.ends_with("/model%20Q4.gguf") => Say::new(200, "GGUF"),
        path if path.ends_with(".safetensors") => Say::new(302, "")
            .with("Location", format!("{store}/blob?X-Amz-Signature=secret"))
            .with("X-Linked-Etag", format!("\"{}\"", sha(&weights())))
            .with("X-Linked-Size", "400000"),
        path if path.ends_with("README.md") || path.ends_with("rows.json") => Say::new(200, "abc"),
        _ => Say::new(404, "").with("X-Error-Code", "EntryNotFound"),
    }
}

fn made(bench: &Bench) -> Vec<String> {
    let root = bench.path("output/data");
    let walk = walkdir::WalkDir::new(&root).sort_by_file_name();
    let files = walk.into_iter().map(|entry| entry.expect("an entry"));
    files
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            entry
                .path()
                .strip_prefix(&root)
                .expect("below")
                .display()
                .to_string()
        })
        .collect()
}

#[test]
fn a_model_is_its_config_and_its_weights_once() {
    let (hub, bench) = (Hub::new(listing(&files(), &json!({}))), Bench::new());
    let outcome = hub
        .fetch(
            &bench,
            json!({"model": "owner/name", "licenses": ["Apache-2.0"]}),
        )
        .expect("a model");
    assert_eq!(made(&bench), ["config.json", "model.safetensors"]);
    assert_eq!(bench.made("data/model.safetensors"), weights());
    assert_eq!(outcome.pin.as_deref(), Some(COMMIT));
    assert_eq!(
        outcome.notes[1..],
        [format!("commit {COMMIT}"), "licence: apache-2.0".to_owned()]
    );
    let bearer = format!("Bearer {TOKEN}");
    assert!(
        hub.hub
            .seen()
            .iter()
            .all(|seen| seen.header("authorization") == Some(&bearer))
    );
    assert!(
        hub.store
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
    let asked = hub.hub.asked();
    assert_eq!(
        asked[1],
        format!("GET /owner/name/resolve/{COMMIT}/config.json"),
        "of the commit, not the branch"
    );
}

#[test]
fn a_dataset_of_a_branch_with_a_slash() {
    let files = json!([{"rfilename": ".gitattributes", "size": 1}, {"rfilename": "data/rows.json", "size": 3}]);
    let (hub, bench) = (Hub::new(listing(&files, &json!({}))), Bench::new());
    hub.fetch(
        &bench,
        json!({"dataset": "owner/name", "revision": "refs/pr/1"}),
    )
    .expect("a dataset");
    assert_eq!(made(&bench), ["data/rows.json"]);
    assert_eq!(
        hub.hub.asked()[1],
        format!("GET /datasets/owner/name/resolve/{COMMIT}/data/rows.json")
    );
}

#[test]
fn patterns_choose_and_names_are_escaped() {
    let (hub, bench) = (Hub::new(listing(&files(), &json!({}))), Bench::new());
    hub.fetch(
        &bench,
        json!({"model": "owner/name", "files": ["**/*.gguf", "README.md"]}),
    )
    .expect("files");
    assert_eq!(made(&bench), ["README.md", "gguf/model Q4.gguf"]);
}

#[test]
fn the_pin_is_asked_for_instead_of_the_branch() {
    let (hub, mut bench) = (Hub::new(listing(&files(), &json!({}))), Bench::new());
    bench.pin = Some(COMMIT.to_owned());
    hub.fetch(
        &bench,
        json!({"model": "owner/name", "files": ["config.json"]}),
    )
    .expect("a file");
    assert_eq!(
        hub.hub.asked()[0],
        format!("GET /api/models/owner/name/revision/{COMMIT}")
    );
}

#[test]
fn refusals_are_told_apart() {
    let empty = json!({});
    let plain = listing(&files(), &empty);
    let pickles = json!([{"rfilename": "pytorch_model.bin", "size": 9}, {"rfilename": "config.json", "size": 2}]);
    let escape = json!([{"rfilename": "../../etc/x.json", "size": 9}]);
    let ggufs = json!([{"rfilename": "a.gguf", "size": 9}]);
    let model = json!({"model": "owner/name"});
    for (answer, given, code, mend) in [
        (
            plain.clone(),
            json!({"model": "owner/name", "files": ["confg.json"]}),
            "fetch::no-match",
            "did you mean `config.json`?",
        ),
        (
            plain.clone(),
            json!({"model": "owner/name", "files": ["*"]}),
            "fetch::pickle",
            "safetensors",
        ),
        (
            listing(&pickles, &empty),
            model.clone(),
            "fetch::pickle",
            "safetensors",
        ),
        (
            listing(&ggufs, &empty),
            model.clone(),
            "fetch::no-match",
            "`a.gguf`",
        ),
        (
            listing(&escape, &empty),
            model.clone(),
            "fetch::unsafe-name",
            "do not use",
        ),
        (
            plain.clone(),
            json!({"model": "owner/name", "licenses": ["mit"]}),
            "fetch::licence",
            "`licenses`",
        ),
        (
            listing(&files(), &json!({"tags": []})),
            json!({"model": "owner/name", "licenses": ["mit"]}),
            "fetch::licence",
            "`licenses`",
        ),
        (
            json!({"error": "?"}),
            model.clone(),
            "fetch::bad-answer",
            "HF_ENDPOINT",
        ),
        (
            plain.clone(),
            json!({"model": "owner/name", "sha256": {"config.json": "0".repeat(64)}}),
            "fetch::checksum",
            "do not use it",
        ),
        (
            plain.clone(),
            json!({"model": "owner/name", "sha256": {"x.json": "0".repeat(64)}}),
            "fetch::no-match",
            "correct its name",
        ),
    ] {
        let (hub, bench) = (Hub::new(answer), Bench::new());
        let error = hub.fetch(&bench, given.clone()).expect_err("a refusal");
        assert_eq!(error.code, code, "{given}: {}", error.message);
        assert!(error.mend.contains(mend), "{given}: {}", error.mend);
    }
}

/// A hub that answers every question with one status and error code.
fn refusal(status: u16, code: &'static str, token: Option<&str>) -> crate::StageError {
    let hub = TestServer::new(move |_| {
        Say::json(status, &json!({"error": format!("no {TOKEN}")})).with("X-Error-Code", code)
    });
    let bench = Bench::new();
    let home = bench.path("home").display().to_string();
    let mut variables = vec![("HF_ENDPOINT", hub.url.as_str()), ("HF_HOME", &home)];
    variables.extend(token.map(|token| ("HF_TOKEN", token)));
    run(&bench, json!({"model": "owner/name"}), &variables).expect_err("a refusal")
}

#[test]
fn a_gated_repository_says_how_to_get_in() {
    let error = refusal(401, "GatedRepo", None);
    assert_eq!(error.code, "fetch::gated");
    assert!(
        error
            .mend
            .contains("/owner/name, check the name, accept its conditions, then set HF_TOKEN"),
        "{}",
        error.mend
    );
    let error = refusal(403, "GatedRepo", Some(TOKEN));
    assert_eq!(error.code, "fetch::gated");
    assert!(
        error.message.contains("has not been let in"),
        "{}",
        error.message
    );
    let error = refusal(401, "", Some(TOKEN));
    assert!(
        error.message.contains("does not know the token"),
        "{}",
        error.message
    );
    let error = refusal(404, "RepoNotFound", Some(TOKEN));
    assert_eq!(error.code, "fetch::not-found");
    let error = refusal(404, "RevisionNotFound", None);
    assert!(
        error.message.starts_with("revision `main` is not found"),
        "{}",
        error.message
    );
    let error = refusal(418, "", Some(TOKEN));
    assert_eq!(error.code, "net::status");
    assert!(
        error.message.contains("no ***") && !error.message.contains(TOKEN),
        "{}",
        error.message
    );
}

#[test]
fn the_token_file_of_the_login_is_used() {
    let seen_token = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&seen_token);
    let hub = TestServer::new(move |seen| {
        let right = seen.header("authorization") == Some("Bearer hf_from_file");
        flag.store(right, Ordering::SeqCst);
        Say::new(404, "")
    });
    let bench = Bench::new();
    std::fs::create_dir_all(bench.path("home")).expect("a folder");
    std::fs::write(bench.path("home/token"), "hf_from_file\n").expect("a token");
    let home = bench.path("home").display().to_string();
    let variables = [("HF_ENDPOINT", hub.url.as_str()), ("HF_HOME", &home)];
    run(&bench, json!({"model": "owner/name"}), &variables).expect_err("404");
    assert!(seen_token.load(Ordering::SeqCst));
}

/// Puts `bytes` into the hub's own cache under `bench`, as its tools lay it out.
fn cached(bench: &Bench, blob: &str, bytes: &[u8]) {
    let root = bench.path("home/hub/models--owner--name");
    for folder in ["blobs", "refs"] {
        std::fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    let snapshot = root.join("snapshots").join(COMMIT);
    std::fs::create_dir_all(&snapshot).expect("a folder");
    std::fs::write(root.join("refs/main"), COMMIT).expect("a ref");
    std::fs::write(root.join("blobs").join(blob), bytes).expect("a blob");
    let link = snapshot.join("model.safetensors");
    std::os::unix::fs::symlink(format!("../../blobs/{blob}"), link).expect("a link");
}

#[test]
fn the_hub_cache_is_used_before_the_network() {
    let (hub, bench) = (Hub::new(listing(&files(), &json!({}))), Bench::new());
    cached(&bench, &sha(&weights()), &weights());
    hub.fetch(&bench, json!({"model": "owner/name"}))
        .expect("a model");
    assert_eq!(bench.made("data/model.safetensors"), weights());
    assert!(
        hub.store.seen().is_empty(),
        "the weights were not downloaded"
    );
}

#[test]
fn a_damaged_cache_is_passed_over() {
    let (hub, bench) = (Hub::new(listing(&files(), &json!({}))), Bench::new());
    let mut damaged = weights();
    damaged[7] ^= 1;
    cached(&bench, &sha(&weights()), &damaged);
    hub.fetch(&bench, json!({"model": "owner/name"}))
        .expect("a model");
    assert_eq!(bench.made("data/model.safetensors"), weights());
    assert_eq!(hub.store.seen().len(), 1);
}

#[test]
fn offline_the_cache_serves_alone() {
    let (hub, mut bench) = (Hub::new(listing(&files(), &json!({}))), Bench::new());
    bench.network = false;
    let error = hub
        .fetch(&bench, json!({"model": "owner/name"}))
        .expect_err("nothing is there");
    assert_eq!(error.code, "net::offline");
    cached(&bench, &sha(&weights()), &weights());
    let outcome = hub
        .fetch(&bench, json!({"model": "owner/name"}))
        .expect("the snapshot");
    assert_eq!(outcome.pin.as_deref(), Some(COMMIT));
    assert_eq!(made(&bench), ["model.safetensors"]);
    assert!(hub.hub.seen().is_empty());
}
