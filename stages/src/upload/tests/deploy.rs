//! From an adapter to a complete fine-tune: once, whole, and after every interruption.

use serde_json::{Value, json};

use super::server::{Service, State, Tune, parts, recorded, recorded_answer, refuse};
use super::{ACCOUNT, MODEL, TOKEN, adapter, bench, config, given, made, mistral, run, run_in};
use crate::contract::{Stage as _, StageEvent};
use crate::http::testing::{Bench, Say};
use crate::upload::Upload;

fn plain(service: &Service) -> Value {
    given(service.url(), json!({}))
}

#[test]
fn an_adapter_is_uploaded_as_wrangler_does_it() {
    let (service, bench) = (
        Service::new(State {
            lora: Some("true"),
            ..State::default()
        }),
        bench(),
    );
    let outcome = run(&bench, plain(&service)).expect("an upload");
    let tunes = service.tunes();
    let [tune] = &tunes[..] else {
        panic!("one fine-tune, not {tunes:?}")
    };
    assert_eq!(
        tune.files.keys().collect::<Vec<_>>(),
        ["adapter_config.json", "adapter_model.safetensors"]
    );
    let size = |name: &str| {
        std::fs::metadata(bench.path("adapter").join(name))
            .expect("a file")
            .len() as usize
    };
    assert!(
        tune.files
            .iter()
            .all(|(name, length)| *length == size(name)),
        "every byte arrived"
    );
    assert!(
        tune.name.starts_with("assistant-") && tune.name.len() == "assistant-".len() + 12,
        "{}",
        tune.name
    );
    assert_eq!(
        outcome.notes[0],
        format!("`{}` on `{MODEL}` is uploaded", tune.name)
    );

    let seen = service.server.seen();
    let of = |part: &str| {
        seen.iter()
            .filter(|one| one.method == "POST" && one.path().ends_with(part))
            .collect::<Vec<_>>()
    };
    let ours: Value = serde_json::from_slice(&of("/ai/finetunes")[0].body).expect("JSON");
    let theirs: Value =
        serde_json::from_str(recorded("ok", 1)["body"].as_str().expect("text")).expect("JSON");
    let keys = |value: &Value| {
        value
            .as_object()
            .expect("a map")
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&ours), keys(&theirs));
    assert_eq!(of("/ai/finetunes")[0].path(), recorded("ok", 1)["path"]);
    for (ours, n) in of("/finetune-assets").into_iter().zip([2, 3]) {
        let theirs = recorded("ok", n);
        let heads: Vec<_> = theirs["multipart"]
            .as_array()
            .expect("parts")
            .iter()
            .map(|part| {
                let lines = part["headers"].as_array().expect("headers").iter();
                let lines = lines.map(|line| {
                    format!(
                        "{}: {}",
                        line[0].as_str().expect("text"),
                        line[1].as_str().expect("text")
                    )
                });
                lines.collect::<Vec<_>>().join("\r\n")
            })
            .collect();
        let parts = parts(ours);
        assert_eq!(
            parts
                .iter()
                .map(|(head, _)| head.clone())
                .collect::<Vec<_>>(),
            heads
        );
        assert_eq!(
            String::from_utf8_lossy(&parts[0].1),
            theirs["multipart"][0]["text"].as_str().expect("text")
        );
        assert!(
            ours.header("content-length").is_some(),
            "nothing is chunked"
        );
    }
}

#[test]
fn the_receipt_holds_no_times_and_is_the_same_twice() {
    let (service, bench) = (Service::new(State::default()), bench());
    run(&bench, plain(&service)).expect("an upload");
    let first = bench.made("receipt.json");
    let receipt = made(&bench, "receipt.json");
    assert_eq!(receipt["account"], ACCOUNT);
    assert_eq!(receipt["id"], "id-0");
    assert_eq!(receipt["adapter"]["rank"], 8);
    assert_eq!(receipt["adapter"]["dtype"], "F16");
    let (creates, assets) = (
        service.count("POST", "finetunes"),
        service.count("POST", "finetune-assets"),
    );
    let outcome = run(&bench, plain(&service)).expect("nothing to do");
    assert_eq!(bench.made("receipt.json"), first);
    assert!(
        outcome.notes[0].ends_with("is already there"),
        "{:?}",
        outcome.notes
    );
    assert_eq!(service.count("POST", "finetunes"), creates);
    assert_eq!(service.count("POST", "finetune-assets"), assets);
    assert!(!String::from_utf8_lossy(&first).contains(TOKEN));
}

#[test]
fn another_content_is_another_name() {
    let (service, bench) = (
        Service::new(State {
            nested: true,
            ..State::default()
        }),
        bench(),
    );
    run(&bench, plain(&service)).expect("an upload");
    let mut changed = config();
    changed["lora_alpha"] = json!(32);
    adapter(&bench.path("adapter"), &changed, &mistral(8));
    let outcome = run(&bench, plain(&service)).expect("another upload");
    let tunes = service.tunes();
    assert_eq!(tunes.len(), 2);
    assert_ne!(tunes[0].name, tunes[1].name);
    assert!(
        outcome
            .notes
            .contains(&"1 other versions of `assistant`".to_owned()),
        "{:?}",
        outcome.notes
    );
}

#[test]
fn a_half_made_upload_is_finished_by_the_next_run() {
    let (service, bench) = (Service::new(State::default()), bench());
    service.set(|state| {
        let answer = recorded_answer("asset413", 2);
        state.moods.push((
            format!("POST /client/v4/accounts/{ACCOUNT}/ai/finetunes/id-0"),
            recorded_answer("ok", 2),
        ));
        state.moods.push((
            format!("POST /client/v4/accounts/{ACCOUNT}/ai/finetunes/id-0"),
            answer,
        ));
        state.tunes.clear();
    });
    let error = run(&bench, plain(&service)).expect_err("the weights are refused");
    assert_eq!(error.code, "upload::too-large");
    assert!(
        error
            .message
            .starts_with("`adapter_model.safetensors` is not uploaded, and `assistant-"),
        "{}",
        error.message
    );
    assert!(
        error.message.contains("is left half-made"),
        "{}",
        error.message
    );
    assert!(
        error.mend.ends_with("run again to finish it"),
        "{}",
        error.mend
    );
    // The service took the configuration in that first exchange.
    service.set(|state| {
        state.tunes[0]
            .files
            .insert("adapter_config.json".to_owned(), 1);
    });
    let before = service.count("POST", "finetune-assets");
    run(&bench, plain(&service)).expect("the rest");
    assert_eq!(
        service.count("POST", "finetune-assets") - before,
        1,
        "only the weights are sent"
    );
    assert_eq!(service.tunes()[0].files.len(), 2);
    assert_eq!(service.tunes().len(), 1);
}

#[test]
fn a_half_made_upload_of_another_machine_is_finished_too() {
    let (service, first) = (Service::new(State::default()), bench());
    run(&first, plain(&service)).expect("an upload");
    // Another machine has no journal; the service holds one of the two files.
    service.set(|state| {
        state.tunes[0].files.remove("adapter_model.safetensors");
    });
    let second = bench();
    run(&second, plain(&service)).expect("the rest");
    assert_eq!(service.tunes().len(), 1);
    assert_eq!(service.tunes()[0].files.len(), 2);
}

#[test]
fn a_lost_answer_does_not_create_twice() {
    let (service, bench) = (Service::new(State::default()), bench());
    let name = {
        run(&bench, plain(&service)).expect("an upload");
        service.tunes()[0].name.clone()
    };
    // The fine-tune was made, but its answer was lost: the next look at the list finds it.
    let lost = Service::new(State::default());
    let tune = Tune {
        id: "id-7".to_owned(),
        name,
        model: MODEL.to_owned(),
        ..Tune::default()
    };
    lost.set(|state| {
        state.moods.push((
            "GET".to_owned(),
            Say::json(200, &json!({"success": true, "result": []})),
        ));
        state.moods.push((
            format!("POST /client/v4/accounts/{ACCOUNT}/ai/finetunes"),
            refuse(502, 0, "bad gateway"),
        ));
        state.tunes.push(tune);
    });
    run(&bench, plain(&lost)).expect("an upload");
    assert_eq!(lost.tunes().len(), 1);
    assert_eq!(lost.tunes()[0].files.len(), 2);
}

#[test]
fn a_busy_service_is_waited_for() {
    let (service, bench) = (Service::new(State::default()), bench());
    let busy = || recorded_answer("429", 1).with("Retry-After", "0");
    service.set(|state| {
        state.moods.push((
            format!("POST /client/v4/accounts/{ACCOUNT}/ai/finetunes"),
            busy(),
        ));
        state.moods.push((
            format!("GET /client/v4/accounts/{ACCOUNT}/ai/finetunes"),
            busy(),
        ));
    });
    run(&bench, plain(&service)).expect("an upload");
    assert_eq!(service.tunes().len(), 1);
}

#[test]
fn an_account_that_is_full_is_told_before_anything_is_made() {
    let (service, bench) = (Service::new(State::default()), bench());
    service.set(|state| {
        for at in 0..3 {
            state.tunes.push(Tune {
                id: format!("t{at}"),
                name: format!("other-{at}"),
                ..Tune::default()
            });
        }
    });
    let error = run(&bench, given(service.url(), json!({"limit": 3}))).expect_err("full");
    assert_eq!(error.code, "upload::adapter-limit");
    assert!(
        error.mend.contains("`other-0`, `other-1`, `other-2`"),
        "{}",
        error.mend
    );
    assert_eq!(service.tunes().len(), 3);
}

#[test]
fn the_catalog_has_the_last_word() {
    let bench = bench();
    let service = Service::new(State {
        lora: Some("false"),
        ..State::default()
    });
    let error = run(&bench, plain(&service)).expect_err("no LoRA");
    assert_eq!(error.code, "upload::no-lora");
    assert!(service.tunes().is_empty());
    let service = Service::new(State {
        lora: Some("absent"),
        ..State::default()
    });
    run(&bench, plain(&service)).expect("an upload");
    let warned = |event: &StageEvent| matches!(event, StageEvent::Warning { code, .. } if code == "upload::not-in-catalog");
    assert!(bench.events().iter().any(warned));
}

#[test]
fn half_made_orphans_are_named() {
    let (service, bench) = (Service::new(State::default()), bench());
    service.set(|state| {
        let name = "assistant-0123456789ab".to_owned();
        state.tunes.push(Tune {
            id: "id-orphan".to_owned(),
            name,
            model: MODEL.to_owned(),
            ..Tune::default()
        });
    });
    let outcome = run(&bench, plain(&service)).expect("an upload");
    let told = outcome
        .notes
        .iter()
        .any(|note| note.starts_with("`assistant-0123456789ab` (id-orphan) is half-made"));
    assert!(told, "{:?}", outcome.notes);
}

#[test]
fn refusals_become_codes_with_a_mend() {
    let path = format!("POST /client/v4/accounts/{ACCOUNT}/ai/finetunes");
    for (answer, code, mend) in [
        (refuse(400, 5005, "no lora"), "upload::no-lora", "LoRA"),
        (
            refuse(400, 5007, "no such model"),
            "upload::no-such-model",
            "`model`",
        ),
        (
            refuse(403, 5035, "paid"),
            "upload::needs-paid",
            "Workers Paid",
        ),
        (
            refuse(403, 10000, "Authentication error"),
            "upload::auth",
            "Workers AI - Edit",
        ),
        (
            refuse(400, 0, "MODEL_NOT_SUPPORTED"),
            "upload::no-lora",
            "LoRA",
        ),
        (refuse(429, 3036, "neurons"), "upload::quota", "00:00 UTC"),
        (
            Say::new(403, "<html>")
                .with("cf-mitigated", "challenge")
                .with("cf-ray", "8f-FRA"),
            "upload::auth",
            "8f-FRA",
        ),
        (
            Say::new(400, format!("no {TOKEN}")),
            "upload::refused",
            "words",
        ),
    ] {
        let (service, bench) = (Service::new(State::default()), bench());
        service.set(|state| state.moods.push((path.clone(), answer)));
        let error = run(&bench, plain(&service)).expect_err(code);
        assert_eq!(error.code, code, "{}", error.message);
        assert!(error.mend.contains(mend), "{code}: {}", error.mend);
        assert!(!format!("{error:?}").contains(TOKEN));
        assert_eq!(
            service.count("POST", "finetunes"),
            1,
            "{code} is not asked again"
        );
    }
}

#[test]
fn credentials_are_asked_for_by_name() {
    let service = Service::new(State::default());
    let error = run_in(&bench(), plain(&service), &[]).expect_err("no token");
    assert_eq!(error.code, "upload::no-credentials");
    assert!(
        error.message.starts_with("CLOUDFLARE_API_TOKEN"),
        "{}",
        error.message
    );
    let error = run_in(
        &bench(),
        plain(&service),
        &[("CLOUDFLARE_API_TOKEN", "wrong-token")],
    )
    .expect_err("a wrong token");
    assert_eq!(error.code, "upload::auth");
    let value = given("http://api.example", json!({}));
    let error = run(&bench(), value).expect_err("not encrypted");
    assert_eq!(error.code, "upload::insecure-api");
}

/// Where to is in the file and in the key: an environment does not stand in, but the mend says what to
/// write.
#[test]
fn without_an_account_nothing_is_made_and_the_mend_names_the_tokens() {
    let service = Service::new(State::default());
    let mut value = plain(&service);
    value.as_object_mut().expect("a map").remove("account");
    let variables = [
        ("CLOUDFLARE_API_TOKEN", TOKEN),
        ("CLOUDFLARE_ACCOUNT_ID", ACCOUNT),
        (
            "CLOUDFLARE_API_BASE_URL",
            "https://elsewhere.example/client/v4",
        ),
    ];
    let bench: Bench = bench();
    let told = || run_in(&bench, value.clone(), &variables).expect_err("no account");
    let error = told();
    assert_eq!(
        (&*error.code, &*error.field),
        ("upload::no-account", "with")
    );
    assert_eq!(
        error.mend,
        format!("write `account: {ACCOUNT}` under `with`: the only account of the token (Stub)")
    );
    let memberships = |status, body: Value| {
        service.set(|state| {
            let answer = Say::json(status, &body);
            state.moods.push(("GET".to_owned(), answer));
        });
    };
    let two = json!([{"account": {"id": "a", "name": "A"}}, {"account": {"id": "b", "name": "B"}}]);
    memberships(200, json!({"success": true, "result": two}));
    assert_eq!(
        told().mend,
        "write `account:` under `with`, one of the token's: `a` (A), `b` (B)"
    );
    memberships(
        403,
        json!({"success": false, "errors": [{"code": 9109, "message": "no"}]}),
    );
    assert_eq!(told().mend, crate::upload::params::WRITE_ACCOUNT);
    assert_eq!(service.count("POST", "finetunes"), 0, "nothing was made");
    let elsewhere = service.server.seen().len();
    assert!(
        elsewhere >= 3,
        "the address of the file was asked: {elsewhere}"
    );
}

#[test]
fn only_who_uploads_needs_an_account() {
    let mut value = given("https://api.example", json!({}));
    value.as_object_mut().expect("a map").remove("account");
    let params = super::params(value);
    let looked_at = crate::contract::Site::default();
    assert_eq!(Upload.check(&params, &looked_at), []);
    let acts = crate::contract::Site {
        acts: true,
        ..looked_at
    };
    let codes: Vec<_> = Upload
        .check(&params, &acts)
        .into_iter()
        .map(|fault| fault.code)
        .collect();
    assert_eq!(codes, ["upload::no-account"]);
}
