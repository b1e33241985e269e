//! A url: resume, truncation, checksums, busy servers, redirects, full disks.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{noise, part_path, run, sha};
use crate::contract::StageEvent;
use crate::http::testing::{Bench, Say, TestServer};

fn given(server: &TestServer, bytes: &[u8]) -> Value {
    json!({"url": format!("{}/folder/model.gguf?download=1", server.url), "sha256": sha(bytes)})
}

/// A server whose n-th answer comes from the n-th function; the last one stays.
fn script(bytes: &[u8], steps: Vec<fn(Say) -> Say>) -> TestServer {
    let bytes = bytes.to_vec();
    let count = AtomicUsize::new(0);
    TestServer::new(move |seen| {
        let at = count.fetch_add(1, Ordering::SeqCst);
        let plain = Say::file(seen, &bytes);
        steps.get(at).map_or(plain.clone(), |step| step(plain))
    })
}

#[test]
fn a_file_arrives_with_progress() {
    let bytes = noise(3 << 20);
    let server = script(&bytes, vec![]);
    let bench = Bench::new();
    let outcome = run(&bench, given(&server, &bytes), &[]).expect("a file");
    assert_eq!(bench.made("data/model.gguf"), bytes);
    assert_eq!(outcome.notes, [format!("1 file, {} bytes", bytes.len())]);
    let last = bench
        .events()
        .into_iter()
        .rev()
        .find_map(|event| match event {
            StageEvent::Progress {
                done, total, unit, ..
            } => Some((done, total, unit)),
            _ => None,
        });
    let size = bytes.len() as u64;
    assert_eq!(last, Some((size, Some(size), "bytes".to_owned())));
    let left: Vec<_> = std::fs::read_dir(bench.path("keep/partial"))
        .expect("a folder")
        .collect();
    assert!(left.is_empty(), "the part became the product");
}

#[test]
fn a_broken_transfer_goes_on_where_it_stopped() {
    let bytes = noise(300_000);
    let server = script(&bytes, vec![|say| say.cut(100_000), |say| say.cut(1_000)]);
    let bench = Bench::new();
    run(&bench, given(&server, &bytes), &[]).expect("a file in three pieces");
    assert_eq!(bench.made("data/model.gguf"), bytes);
    let ranges: Vec<_> = server
        .seen()
        .iter()
        .map(|seen| seen.header("range").map(str::to_owned))
        .collect();
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=100000-".to_owned()),
            Some("bytes=101000-".to_owned())
        ]
    );
}

#[test]
fn a_transfer_that_never_ends_is_kept_and_continued_by_the_next_run() {
    let bytes = noise(300_000);
    let server = script(
        &bytes,
        vec![|say| say.cut(70_000), |say| say.cut(0), |say| say.cut(0)],
    );
    let bench = Bench::new();
    let error = run(&bench, given(&server, &bytes), &[]).expect_err("it breaks three times");
    assert_eq!(error.code, "fetch::truncated");
    assert!(error.retryable);
    assert!(
        error
            .message
            .ends_with("breaks off after 70000 of 300000 bytes"),
        "{}",
        error.message
    );
    assert!(
        error.message.contains("/folder/model.gguf`"),
        "no query is shown: {}",
        error.message
    );
    run(&bench, given(&server, &bytes), &[]).expect("the rest");
    assert_eq!(bench.made("data/model.gguf"), bytes);
    assert_eq!(server.seen()[3].header("range"), Some("bytes=70000-"));
}

#[test]
fn a_server_without_ranges_starts_anew() {
    let bytes = noise(50_000);
    let copy = bytes.clone();
    let count = AtomicUsize::new(0);
    let server = TestServer::new(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Say::new(200, copy.clone()).cut(20_000),
        _ => Say::new(200, copy.clone()),
    });
    let bench = Bench::new();
    run(&bench, given(&server, &bytes), &[]).expect("a file");
    assert_eq!(bench.made("data/model.gguf"), bytes);
}

#[test]
fn a_whole_part_is_not_downloaded_again() {
    let bytes = noise(50_000);
    let server = script(
        &bytes,
        vec![|say| say, |_| unreachable!("one request is enough")],
    );
    let bench = Bench::new();
    let wanted = given(&server, &bytes);
    let identity = format!("{} {}", wanted["url"].as_str().expect("text"), sha(&bytes));
    let part = bench.run(|ctx| part_path(ctx, &identity));
    std::fs::create_dir_all(part.parent().expect("a folder")).expect("a folder");
    std::fs::write(&part, &bytes).expect("a part");
    run(&bench, wanted, &[]).expect("the kept file");
    assert_eq!(bench.made("data/model.gguf"), bytes);
}

#[test]
fn a_part_of_other_bytes_is_thrown_away_once() {
    let bytes = noise(50_000);
    let server = script(&bytes, vec![]);
    let bench = Bench::new();
    let wanted = given(&server, &bytes);
    let identity = format!("{} {}", wanted["url"].as_str().expect("text"), sha(&bytes));
    let part = bench.run(|ctx| part_path(ctx, &identity));
    std::fs::create_dir_all(part.parent().expect("a folder")).expect("a folder");
    std::fs::write(&part, b"another file's beginning").expect("a part");
    run(&bench, wanted, &[]).expect("a file");
    assert_eq!(bench.made("data/model.gguf"), bytes);
}

#[test]
fn a_wrong_checksum_leaves_nothing_behind() {
    let server = script(b"evil", vec![]);
    let bench = Bench::new();
    let error = run(&bench, given(&server, b"good"), &[]).expect_err("other bytes");
    assert_eq!(error.code, "fetch::checksum");
    assert!(error.message.contains(&sha(b"evil")) && error.message.contains(&sha(b"good")));
    assert!(!bench.path("output/data/model.gguf").exists());
    let left: Vec<_> = std::fs::read_dir(bench.path("keep/partial"))
        .expect("a folder")
        .collect();
    assert!(left.is_empty());
}

#[test]
fn a_busy_server_is_asked_again() {
    let bytes = noise(1_000);
    let server = script(
        &bytes,
        vec![|_| Say::new(503, "wait"), |_| {
            Say::new(429, "wait").with("Retry-After", "0")
        }],
    );
    let bench = Bench::new();
    run(&bench, given(&server, &bytes), &[]).expect("the third answer");
    assert_eq!(server.seen().len(), 3);
    let told = bench
        .events()
        .iter()
        .filter(|event| matches!(event, StageEvent::Log { .. }))
        .count();
    assert_eq!(told, 2, "each wait is told");
}

#[test]
fn a_server_that_asks_for_a_day_is_not_waited_for() {
    let server = TestServer::new(|_| Say::new(503, "later").with("Retry-After", "86400"));
    let error = run(&Bench::new(), given(&server, b"x"), &[]).expect_err("503");
    assert_eq!(
        (error.code.as_str(), error.retryable),
        ("net::status", true)
    );
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_server_that_stays_broken_is_given_up() {
    let server = TestServer::new(|_| Say::new(500, "out of order\nmore"));
    let bench = Bench::new();
    let error = run(&bench, given(&server, b"x"), &[]).expect_err("500");
    assert_eq!(
        (error.code.as_str(), error.retryable),
        ("net::status", true)
    );
    assert!(
        error.message.ends_with("answers 500: out of order"),
        "{}",
        error.message
    );
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn a_missing_file_is_not_asked_for_twice() {
    let server = TestServer::new(|_| Say::new(404, ""));
    let error = run(&Bench::new(), given(&server, b"x"), &[]).expect_err("404");
    assert_eq!(error.code, "fetch::not-found");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn redirects_are_followed_but_not_for_ever() {
    let bytes = noise(1_000);
    let copy = bytes.clone();
    let server = TestServer::new(move |seen| match seen.path() {
        "/folder/model.gguf" => Say::new(302, "").with("Location", "/there"),
        "/there" => Say::file(seen, &copy),
        _ => Say::new(302, "").with("Location", "/loop"),
    });
    let bench = Bench::new();
    run(&bench, given(&server, &bytes), &[]).expect("a redirected file");
    assert_eq!(bench.made("data/model.gguf"), bytes);
    let endless = json!({"url": format!("{}/loop", server.url), "sha256": sha(b"x")});
    let error = run(&bench, endless, &[]).expect_err("a loop");
    assert_eq!(error.code, "net::redirect-loop");
}

#[test]
fn a_full_disk_is_named() {
    let server = script(b"bytes", vec![]);
    let bench = Bench::new();
    let wanted = given(&server, b"bytes");
    let identity = format!(
        "{} {}",
        wanted["url"].as_str().expect("text"),
        sha(b"bytes")
    );
    let part = bench.run(|ctx| part_path(ctx, &identity));
    std::fs::create_dir_all(part.parent().expect("a folder")).expect("a folder");
    // A device that is always full, in the place of the part.
    std::os::unix::fs::symlink("/dev/full", &part).expect("a link");
    let error = run(&bench, wanted, &[]).expect_err("a full disk");
    assert_eq!(error.code, "fetch::disk-full");
    assert!(
        error.mend.starts_with("free some disk space"),
        "{}",
        error.mend
    );
}

#[test]
fn without_the_network_nothing_is_sent() {
    let server = script(b"bytes", vec![]);
    let mut bench = Bench::new();
    bench.network = false;
    let error = run(&bench, given(&server, b"bytes"), &[]).expect_err("offline");
    assert_eq!(error.code, "net::offline");
    assert!(server.seen().is_empty());
}

#[test]
fn a_cancelled_run_stops_and_keeps_what_came() {
    let bytes = noise(5 << 20);
    let server = script(&bytes, vec![]);
    let bench = Bench::new();
    bench.cancel.store(true, Ordering::SeqCst);
    let error = run(&bench, given(&server, &bytes), &[]).expect_err("cancelled");
    assert_eq!(error.code, "stage::cancelled");
}

#[test]
fn an_unreachable_host_is_named_without_its_password() {
    let closed = TestServer::new(|_| Say::new(200, ""));
    let address = closed.url.replace("http://", "http://me:hunter2@");
    drop(closed);
    let wanted = json!({"url": format!("{address}/x?sig=abc"), "sha256": sha(b"x")});
    let bench = Bench::new();
    let error = run(&bench, wanted, &[]).expect_err("nobody listens");
    assert_eq!(
        (error.code.as_str(), error.retryable),
        ("net::unreachable", true)
    );
    let told = format!("{} {:?}", error.message, bench.events());
    assert!(
        !told.contains("hunter2") && !told.contains("sig=abc"),
        "{told}"
    );
}
