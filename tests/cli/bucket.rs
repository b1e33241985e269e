//! A bucket: S3 as moto speaks it, also through a proxy that breaks half of all requests.
//!
//! Needs Python with `moto[server]`. Where that is missing the tests say so and pass, unless
//! `TUNESMITH_NEED_MOTO` is set, as `.ci/run` does.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::emulator::{Emulator, python};
use super::project::{Project, wait_until};
use super::proxy::Proxy;
use super::remote::{THREE, started};

/// Starts moto on a free port, says which, and ends with its standard input.
const SERVER: &str = "
import sys, logging
logging.getLogger('werkzeug').setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0)
server.start()
print('port', server.get_host_and_port()[1], flush=True)
sys.stdin.read()
";

/// Moto wants a name, and believes any signature.
const SIGNED: &str = "Authorization: AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request, \
                      SignedHeaders=host, Signature=any\r\n";

/// The server with a bucket called `bucket`; nothing where there is no moto, and that is said.
fn moto() -> Option<Emulator> {
    let mut command = python();
    command.args(["-c", SERVER]);
    let what = "moto (pip install 'moto[server]'): nothing is known of S3";
    let moto = Emulator::start(command, "TUNESMITH_NEED_MOTO", what)?;
    let made = moto.ask("PUT /bucket HTTP/1.1\r\n", b"");
    assert!(made.starts_with("HTTP/1.1 200"), "{made}");
    Some(moto)
}

/// Puts other bytes under a name.
fn put(moto: &Emulator, path: &str, bytes: &[u8]) {
    let answer = moto.ask(&format!("PUT /bucket/{path} HTTP/1.1\r\n{SIGNED}"), bytes);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn remote(endpoint: SocketAddr) -> String {
    format!("remote: {{ url: s3://bucket/cache, push: true, endpoint: \"http://{endpoint}\" }}")
}

/// A command with credentials in its environment.
fn command(project: &Project, args: &[&str]) -> Command {
    let mut command = project.command(args);
    command.env("AWS_ACCESS_KEY_ID", "testing-key-id");
    command.env("AWS_SECRET_ACCESS_KEY", "testing-secret-key");
    command.env("AWS_REGION", "us-east-1");
    // Nobody is there: the endpoint in the pipeline wins.
    command.env("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9");
    command
}

fn says(project: &Project, args: &[&str]) -> String {
    let output = command(project, args).output().expect("it starts");
    project.page(&output)
}

fn ok(project: &Project, args: &[&str]) -> String {
    let said = says(project, args);
    assert!(said.starts_with("exit 0"), "{said}");
    said
}

fn checkout(endpoint: SocketAddr) -> Project {
    Project::new(&THREE.replace("REMOTE", &remote(endpoint)))
}

#[test]
fn a_second_checkout_restores_everything_from_s3() {
    let Some(moto) = moto() else { return };
    let one = checkout(moto.address);
    let said = ok(&one, &["run", "--json"]);
    assert_eq!(started(&said), 3, "{said}");
    assert_eq!(said.matches("\"stage-pushed\"").count(), 3, "{said}");

    let two = checkout(moto.address);
    let said = ok(&two, &["plan", "--json"]);
    assert_eq!(said.matches("\"remote\":true").count(), 3, "{said}");
    let said = ok(&two, &["run", "--json"]);
    assert_eq!(started(&said), 0, "{said}");
    assert_eq!(
        two.read("out/default/eval/score.txt"),
        one.read("out/default/eval/score.txt")
    );
    ok(&two, &["cache", "pull"]);
    two.verify();
    // Nothing is put twice.
    let said = ok(&two, &["cache", "push"]);
    assert!(
        said.contains("put 0 results (0 B)") && said.contains("3 there already"),
        "{said}"
    );
    let said = ok(&two, &["cache", "du", "--remote"]);
    assert!(said.contains("in 3 blobs, 3 records"), "{said}");

    // Other bytes under a blob's name.
    let score = one.read("out/default/eval/score.txt");
    let hex = cache::Digest::of(score.as_bytes()).hex();
    put(
        &moto,
        &format!("cache/v1/blobs/{}/{hex}", &hex[..2]),
        b"9999\n",
    );
    let three = checkout(moto.address);
    let said = ok(&three, &["run"]);
    assert!(said.contains("remote::corrupt"), "{said}");
    assert_eq!(three.read("out/default/eval/score.txt"), score);
    // The run that found it put it right.
    let four = checkout(moto.address);
    assert_eq!(started(&ok(&four, &["run", "--json"])), 0);
}

#[test]
fn half_of_all_requests_break_on_both_sides_and_nothing_is_lost() {
    let Some(moto) = moto() else { return };
    let proxy = Proxy::before(moto.address, 50, Duration::ZERO);
    let one = checkout(proxy.address);
    let said = ok(&one, &["run", "--json"]);
    assert_eq!(said.matches("\"stage-pushed\"").count(), 3, "{said}");
    let two = checkout(proxy.address);
    let said = ok(&two, &["run", "--json"]);
    assert_eq!(started(&said), 0, "{said}");
    ok(&two, &["cache", "pull"]);
    two.verify();
    assert_eq!(two.files(".tunesmith/store/blobs").len(), 3);
    let (passed, broken) = proxy.counts();
    assert!(
        broken > 10,
        "{broken} of {} requests broke",
        passed + broken
    );
}

#[test]
fn a_blob_in_parts_arrives_whole_though_requests_break() {
    let Some(moto) = moto() else { return };
    let proxy = Proxy::before(moto.address, 30, Duration::ZERO);
    let yaml = |endpoint| {
        format!(
            "name: big\n{}\nstages:\n  big: {{ run: \"seq 6000000 > ${{outputs.it}}\", outputs: {{ it: it.txt }} }}\n",
            remote(endpoint)
        )
    };
    let one = Project::new(&yaml(proxy.address));
    let said = ok(&one, &["run", "--json"]);
    assert!(said.contains("\"stage-pushed\""), "{said}");
    let parts = proxy.seen();
    assert!(
        parts.iter().any(|line| line.contains("partNumber=2")),
        "{parts:?}"
    );
    let two = Project::new(&yaml(proxy.address));
    assert_eq!(started(&ok(&two, &["run", "--json"])), 0);
    assert!(two.files("out") == one.files("out"), "other results");
    two.verify();
}

#[test]
fn two_writers_at_once_leave_one_record() {
    let Some(moto) = moto() else { return };
    // Slow enough that both write before either is done.
    let proxy = Proxy::before(moto.address, 0, Duration::from_millis(50));
    let projects = [(); 3].map(|()| checkout(proxy.address));
    let running = projects.each_ref().map(|project| {
        let mut command = command(project, &["run"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("it starts")
    });
    for mut child in running {
        assert!(child.wait().expect("it was started").success());
    }
    let conditional = proxy.seen();
    assert!(
        conditional
            .iter()
            .any(|line| line.starts_with("PUT /bucket/cache/v1/records/"))
    );
    let last = checkout(moto.address);
    assert_eq!(started(&ok(&last, &["run", "--json"])), 0);
    let said = ok(&last, &["cache", "du", "--remote"]);
    assert!(said.contains("in 3 blobs, 3 records"), "{said}");
}

#[test]
fn wrong_credentials_and_a_missing_bucket_fail_no_run_and_show_no_secret() {
    let Some(moto) = moto() else { return };
    let project = checkout(moto.address);
    project.edit("pipeline.yaml", "s3://bucket/", "s3://nobodys/");
    let said = ok(&project, &["run"]);
    assert!(said.contains("(remote::nowhere)"), "{said}");
    assert!(said.contains("make the bucket or folder"), "{said}");
    assert!(!said.contains("testing-secret-key"), "{said}");
}

#[test]
fn ctrl_c_ends_a_push_cleanly() {
    let Some(moto) = moto() else { return };
    let proxy = Proxy::before(moto.address, 0, Duration::from_secs(20));
    let project = checkout(proxy.address);
    let mut run = command(&project, &["run", "--json"]);
    // What was made is there before anything is put; the first question is slow, too.
    run.env("TUNESMITH_REMOTE_PUSH", "true");
    let fast = command(&project, &["run", "--no-remote"])
        .output()
        .expect("it starts");
    assert!(fast.status.success());
    let mut child = run.stdout(Stdio::piped()).spawn().expect("it starts");
    wait_until("the push began", || !proxy.seen().is_empty());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    wait_until("it ended", || {
        child.try_wait().expect("it was started").is_some()
    });
    assert_eq!(child.wait().expect("it was started").code(), Some(130));
    project.verify();
    assert_eq!(started(&ok(&project, &["run", "--json", "--no-remote"])), 0);
}

/// The pipeline of this repository under its smallest profile, with a bucket.
fn assistant(endpoint: SocketAddr) -> Project {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("pipeline.yaml")).expect("the pipeline");
    let project = Project::new(&format!("{}\n{text}", remote(endpoint)));
    for entry in walkdir::WalkDir::new(root.join("data"))
        .into_iter()
        .flatten()
    {
        if entry.file_type().is_file() {
            let below = entry.path().strip_prefix(root).expect("below the root");
            let place = project.at(&below.display().to_string());
            fs::create_dir_all(place.parent().expect("a folder")).expect("made");
            fs::copy(entry.path(), place).expect("copied");
        }
    }
    project
}

#[test]
fn all_nine_stages_come_from_s3_also_when_half_of_the_requests_break() {
    let Some(moto) = moto() else { return };
    let one = assistant(moto.address);
    let said = ok(&one, &["--profile", "smoke", "run", "--json"]);
    let ran = started(&said);
    assert!(ran >= 8, "{said}");
    assert_eq!(said.matches("\"stage-pushed\"").count(), ran, "{said}");
    for percent in [0, 50] {
        let proxy = Proxy::before(moto.address, percent, Duration::ZERO);
        let two = assistant(proxy.address);
        let said = ok(&two, &["--profile", "smoke", "run", "--json"]);
        assert_eq!(started(&said), 0, "{said}");
        assert_eq!(said.matches("\"remote\":true").count(), ran, "{said}");
        ok(&two, &["--profile", "smoke", "cache", "pull"]);
        two.verify();
        let said = ok(
            &two,
            &["--profile", "smoke", "run", "--no-remote", "--json"],
        );
        assert_eq!(started(&said), 0, "{said}");
        assert!(two.files("out") == one.files("out"), "other results");
        let (passed, broken) = proxy.counts();
        println!(
            "{percent} %: {broken} of {} requests broke",
            passed + broken
        );
    }
}
