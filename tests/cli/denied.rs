//! A remote store that says no.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::project::Project;
use super::remote::{checkout, started};

/// A server that answers every request with this status; counts them.
fn refusing(status: u16) -> (SocketAddr, Arc<AtomicUsize>) {
    let server = tiny_http::Server::http("127.0.0.1:0").expect("a port");
    let address = server.server_addr().to_ip().expect("an IP address");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for request in server.incoming_requests() {
            count.fetch_add(1, Ordering::SeqCst);
            let _client_went = request.respond(tiny_http::Response::empty(status));
        }
    });
    (address, asked)
}

fn with_a_token(project: &Project, args: &[&str]) -> String {
    let mut command = project.command(args);
    let output = command
        .env("TUNESMITH_REMOTE_TOKEN", "s3cret-t0ken")
        .output();
    let said = project.page(&output.expect("it starts"));
    assert!(!said.contains("s3cret"), "{said}");
    said
}

#[test]
fn a_server_that_refuses_fails_no_run_and_is_told_once() {
    for status in [401, 403] {
        let (address, asked) = refusing(status);
        let project = checkout(&format!("remote: http://{address}/x"));
        let said = with_a_token(&project, &["run"]);
        assert!(said.starts_with("exit 0"), "{said}");
        assert_eq!(said.matches("(remote::denied)").count(), 1, "{said}");
        assert_eq!(said.matches("(remote::left-alone)").count(), 1, "{said}");
        assert_eq!(
            asked.load(Ordering::SeqCst),
            3,
            "no is not asked again for ever"
        );
        // All ran here, and the next run asks nobody.
        let said = with_a_token(&project, &["run"]);
        assert!(said.contains("up to date: 3 stages"), "{said}");
        assert_eq!(asked.load(Ordering::SeqCst), 3);
        let said = project.ok(&["run", "--json", "--force", "eval"]);
        assert_eq!(started(&said), 1, "{said}");
    }
}

#[test]
fn a_command_that_is_about_the_remote_says_no_with_an_exit_code() {
    let (address, _) = refusing(403);
    let project = checkout(&format!("remote: http://{address}/x"));
    let shown = |said: String| said.replace(&address.to_string(), "[ADDRESS]");
    insta::assert_snapshot!(shown(with_a_token(&project, &["plan"])), @r"
    exit 0
    ----- stdout -----
      rows      run: it has no result yet
      train     not known before `rows` is done
      eval      not known before `rows` is done

    1 stage to run, 2 stages that may follow
    ----- stderr -----
    note: the remote `http://[ADDRESS]/x`, once: the server said 403 Forbidden; check the credentials in the environment (docs/remote.md) and what they may do (remote::denied)
    ");
    insta::assert_snapshot!(shown(with_a_token(&project, &["cache", "pull"])), @r"
    exit 1
    ----- stdout -----
    fetched 0 results (0 B) from http://[ADDRESS]/x; 0 here already
    ----- stderr -----
    note: the remote `http://[ADDRESS]/x`, once: the server said 403 Forbidden; check the credentials in the environment (docs/remote.md) and what they may do (remote::denied)
    ");
}
