//! Azure, as Microsoft's Azurite speaks it, and Google, as `google.py` does over moto: the same
//! promises for both, each with its own ways to sign and to refuse.
//!
//! Needs `npm install azurite` (TUNESMITH_AZURITE names its `node_modules`), and `pip install
//! 'moto[server]'`. Where one is missing the tests say so and pass, unless `TUNESMITH_NEED_AZURITE` or
//! `TUNESMITH_NEED_MOTO` is set, as `.ci/run` does.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::emulator::{Emulator, python};
use super::project::Project;
use super::proxy::{Proxy, Such};
use super::remote::{THREE, started};

type Variables = Vec<(&'static str, String)>;

/// A service and what a test must know of it.
struct Cloud {
    server: Emulator,
    scheme: &'static str,
    /// The endpoint's path.
    below: &'static str,
    /// The variable that names an endpoint.
    at: &'static str,
    /// Every way to sign; the first one is used where nothing else is said.
    ways: Vec<Variables>,
    /// Credentials of somebody else.
    wrong: Variables,
    /// Query and header lines that let a test put an object.
    leave: (String, String),
    /// First line of the request that makes one object of parts.
    completes: Such,
}

fn script(name: &str) -> String {
    format!("{}/tests/cli/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn azure() -> Option<Cloud> {
    let mut command = Command::new("node");
    command.arg(script("azurite.js"));
    if let Some(modules) = std::env::var_os("TUNESMITH_AZURITE") {
        command.env("NODE_PATH", modules);
    }
    let what = "Azurite (npm install azurite): nothing is known of Azure";
    let server = Emulator::start(command, "TUNESMITH_NEED_AZURITE", what)?;
    let account = || ("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1".to_owned());
    let (key, sas) = (server.said("key"), server.said("sas"));
    let ways = vec![
        vec![account(), ("AZURE_STORAGE_ACCOUNT_KEY", key.to_owned())],
        vec![
            ("AZURE_STORAGE_ACCOUNT", account().1),
            ("AZURE_STORAGE_KEY", key.to_owned()),
        ],
        vec![account(), ("AZURE_STORAGE_SAS_TOKEN", sas.to_owned())],
    ];
    let wrong = "c29tZWJvZHkgZWxzZSdzIGtleSwgYWxsIG9mIGl0".to_owned();
    Some(Cloud {
        scheme: "az",
        below: "/devstoreaccount1",
        at: "AZURE_STORAGE_ENDPOINT",
        ways,
        wrong: vec![account(), ("AZURE_STORAGE_ACCOUNT_KEY", wrong)],
        leave: (format!("?{sas}"), "x-ms-blob-type: BlockBlob\r\n".into()),
        completes: |line| line.contains("comp=blocklist"),
        server,
    })
}

fn google() -> Option<Cloud> {
    let mut command = python();
    command.arg(script("google.py"));
    let what = "moto (pip install 'moto[server]'): nothing is known of Google";
    let server = Emulator::start(command, "TUNESMITH_NEED_MOTO", what)?;
    let said = |word| server.said(word).to_owned();
    let token = said("token");
    let ways = vec![
        vec![("GOOGLE_SERVICE_ACCOUNT_KEY", said("account"))],
        vec![("GOOGLE_BEARER_TOKEN", token.clone())],
    ];
    Some(Cloud {
        scheme: "gs",
        below: "",
        at: "GOOGLE_BASE_URL",
        ways,
        wrong: vec![("GOOGLE_SERVICE_ACCOUNT_KEY", said("stranger"))],
        leave: (String::new(), format!("Authorization: Bearer {token}\r\n")),
        completes: |line| line.starts_with("POST") && line.contains("uploadId="),
        server,
    })
}

impl Cloud {
    /// Lines about the remote in this container, reached at this address.
    fn remote(&self, bucket: &str, at: SocketAddr) -> String {
        let Self { scheme, below, .. } = self;
        format!(
            "remote: {{ url: {scheme}://{bucket}/cache, push: true, endpoint: \"http://{at}{below}\" }}"
        )
    }

    fn checkout_at(&self, at: SocketAddr) -> Project {
        Project::new(&THREE.replace("REMOTE", &self.remote("bucket", at)))
    }

    fn checkout(&self) -> Project {
        self.checkout_at(self.server.address)
    }

    /// The command with these variables and no others that a cloud's credentials could come from.
    fn signed(variables: &Variables, project: &Project, args: &[&str]) -> Command {
        let mut command = project.command(args);
        for (name, _) in std::env::vars() {
            if name.starts_with("AZURE_") || name.starts_with("GOOGLE_") {
                command.env_remove(name);
            }
        }
        command.envs(variables.iter().map(|(name, value)| (*name, value)));
        command
    }

    fn says_with(variables: &Variables, project: &Project, args: &[&str]) -> String {
        let output = Self::signed(variables, project, args).output();
        project.page(&output.expect("it starts"))
    }

    /// What the command says, which must end well though requests break: each of them in the end was
    /// answered.
    fn gets_through(&self, project: &Project, args: &[&str]) -> String {
        let said = Self::says_with(&self.ways[0], project, args);
        assert!(said.starts_with("exit 0"), "{said}");
        let other = said.replace("remote::busy", "");
        assert!(!other.contains("remote::"), "{said}");
        said
    }

    /// What the command says, which must end well and have nothing to say against the remote.
    fn ok(&self, project: &Project, args: &[&str]) -> String {
        let said = Self::says_with(&self.ways[0], project, args);
        assert!(said.starts_with("exit 0"), "{said}");
        assert!(!said.contains("remote::"), "{said}");
        said
    }

    /// Puts other bytes under a name.
    fn leave(&self, path: &str, bytes: &[u8]) {
        let (query, lines) = &self.leave;
        let path = format!("{}/bucket/{path}{query}", self.below);
        let answer = self
            .server
            .ask(&format!("PUT {path} HTTP/1.1\r\n{lines}"), bytes);
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    }
}

/// One test a promise and a service.
macro_rules! promises {
    ($($promise:ident),* $(,)?) => {
        mod azure {
            $(#[test] fn $promise() { if let Some(cloud) = super::azure() { super::$promise(&cloud) } })*
        }
        mod google {
            $(#[test] fn $promise() { if let Some(cloud) = super::google() { super::$promise(&cloud) } })*
        }
    };
}

promises!(
    a_second_checkout_restores_everything,
    the_address_may_come_from_the_environment,
    a_damaged_blob_is_found_and_mended,
    who_comes_second_overwrites_nothing,
    writers_at_once_leave_one_record,
    half_of_all_requests_break_and_nothing_is_lost,
    a_large_blob_is_put_though_the_answer_to_its_last_request_is_lost,
    two_put_one_large_blob_at_once,
    wrong_credentials_fail_no_run_and_show_no_secret,
    a_missing_bucket_and_a_dead_server_fail_no_run,
);

fn a_second_checkout_restores_everything(cloud: &Cloud) {
    let one = cloud.checkout();
    let said = cloud.ok(&one, &["run", "--json"]);
    assert_eq!(started(&said), 3, "{said}");
    assert_eq!(said.matches("\"stage-pushed\"").count(), 3, "{said}");
    for way in &cloud.ways {
        let two = cloud.checkout();
        let ok = |args: &[&str]| {
            let said = Cloud::says_with(way, &two, args);
            assert!(said.starts_with("exit 0"), "{said}");
            said
        };
        let said = ok(&["plan", "--json"]);
        assert_eq!(said.matches("\"remote\":true").count(), 3, "{said}");
        let said = ok(&["run", "--json"]);
        assert_eq!(started(&said), 0, "{said}");
        ok(&["cache", "pull"]);
        two.verify();
        ok(&["run", "--no-remote", "rows", "train", "eval"]);
        assert!(two.files("out") == one.files("out"), "other results");
        let said = ok(&["cache", "push"]);
        assert!(
            said.contains("put 0 results (0 B)") && said.contains("3 there already"),
            "{said}"
        );
        let said = ok(&["cache", "du", "--remote"]);
        assert!(said.contains("in 3 blobs, 3 records"), "{said}");
    }
}

/// Without an endpoint in the pipeline, and with these variables: a first checkout puts, a second one
/// runs nothing.
fn goes_without_an_endpoint(cloud: &Cloud, variables: &Variables) {
    let remote = format!(
        "remote: {{ url: {}://bucket/cache, push: true }}",
        cloud.scheme
    );
    for ran in [3, 0] {
        let project = Project::new(&THREE.replace("REMOTE", &remote));
        let said = Cloud::says_with(variables, &project, &["run", "--json"]);
        assert!(said.starts_with("exit 0"), "{said}");
        assert_eq!(started(&said), ran, "{said}");
        assert!(!said.contains("remote::"), "{said}");
    }
}

fn the_address_may_come_from_the_environment(cloud: &Cloud) {
    let Cloud { server, below, .. } = cloud;
    let mut variables = cloud.ways[0].clone();
    variables.push((cloud.at, format!("http://{}{below}", server.address)));
    goes_without_an_endpoint(cloud, &variables);
}

fn a_damaged_blob_is_found_and_mended(cloud: &Cloud) {
    let one = cloud.checkout();
    cloud.ok(&one, &["run"]);
    let score = one.read("out/default/eval/score.txt");
    let hex = cache::Digest::of(score.as_bytes()).hex();
    cloud.leave(&format!("cache/v1/blobs/{}/{hex}", &hex[..2]), b"9999\n");
    let two = cloud.checkout();
    let said = Cloud::says_with(&cloud.ways[0], &two, &["run"]);
    assert!(said.starts_with("exit 0"), "{said}");
    assert!(said.contains("remote::corrupt"), "{said}");
    assert_eq!(two.read("out/default/eval/score.txt"), score);
    // The run that found it put it right.
    let three = cloud.checkout();
    assert_eq!(started(&cloud.ok(&three, &["run", "--json"])), 0);
}

fn who_comes_second_overwrites_nothing(cloud: &Cloud) {
    let remote = cloud.remote("bucket", cloud.server.address);
    let yaml = format!(
        "name: chance\n{remote}\nstages:\n  draw: {{ run: \"date +%s%N > ${{outputs.it}}\", outputs: {{ it: it.txt }} }}\n"
    );
    let drawn = |project: &Project| project.read("out/default/draw/it.txt");
    let [one, two] = [(); 2].map(|()| {
        let project = Project::new(&yaml);
        cloud.ok(&project, &["run", "--no-remote"]);
        project
    });
    assert_ne!(drawn(&one), drawn(&two));
    for project in [&one, &two] {
        let said = cloud.ok(project, &["cache", "push"]);
        assert!(said.contains("put 1 result"), "{said}");
    }
    let three = Project::new(&yaml);
    let said = cloud.ok(&three, &["run", "--json"]);
    assert_eq!(started(&said), 0, "{said}");
    assert_eq!(drawn(&three), drawn(&one));
    // The second result is there, too, under a name of its own.
    let said = cloud.ok(&three, &["cache", "du", "--remote"]);
    assert!(said.contains("in 2 blobs, 2 records"), "{said}");
}

/// Runs in every project at once, each of which must end well.
fn run_at_once(cloud: &Cloud, projects: &[Project]) {
    let start = |project| {
        let mut command = Cloud::signed(&cloud.ways[0], project, &["run"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it starts")
    };
    let running: Vec<_> = projects.iter().map(start).collect();
    for (child, project) in running.into_iter().zip(projects) {
        let said = project.page(&child.wait_with_output().expect("it was started"));
        assert!(said.starts_with("exit 0"), "{said}");
        assert!(!said.contains("remote::"), "{said}");
    }
}

fn writers_at_once_leave_one_record(cloud: &Cloud) {
    // Slow enough that all write before one is done.
    let proxy = Proxy::before(cloud.server.address, 0, Duration::from_millis(50));
    run_at_once(cloud, &[(); 3].map(|()| cloud.checkout_at(proxy.address)));
    let last = cloud.checkout();
    assert_eq!(started(&cloud.ok(&last, &["run", "--json"])), 0);
    let said = cloud.ok(&last, &["cache", "du", "--remote"]);
    assert!(said.contains("in 3 blobs, 3 records"), "{said}");
}

/// A checkout with one stage, whose result goes in three parts.
fn large(cloud: &Cloud, at: SocketAddr) -> Project {
    let remote = cloud.remote("bucket", at);
    Project::new(&format!(
        "name: large\n{remote}\nstages:\n  big: {{ run: \"seq 6000000 > ${{outputs.it}}\", outputs: {{ it: it.txt }} }}\n"
    ))
}

fn restores_the_large_one(cloud: &Cloud, at: SocketAddr) {
    let last = large(cloud, at);
    let said = cloud.gets_through(&last, &["run", "--json"]);
    assert_eq!(started(&said), 0, "{said}");
    last.verify();
}

fn half_of_all_requests_break_and_nothing_is_lost(cloud: &Cloud) {
    let proxy = Proxy::before(cloud.server.address, 50, Duration::ZERO);
    let one = cloud.checkout_at(proxy.address);
    let said = cloud.gets_through(&one, &["run", "--json"]);
    assert_eq!(said.matches("\"stage-pushed\"").count(), 3, "{said}");
    let two = cloud.checkout_at(proxy.address);
    assert_eq!(started(&cloud.gets_through(&two, &["run", "--json"])), 0);
    cloud.gets_through(&two, &["cache", "pull"]);
    two.verify();
    let one = large(cloud, proxy.address);
    let said = cloud.gets_through(&one, &["run", "--json"]);
    assert!(said.contains("\"stage-pushed\""), "{said}");
    restores_the_large_one(cloud, proxy.address);
    let (passed, broken) = proxy.counts();
    assert!(
        broken > 10,
        "{broken} of {} requests broke",
        passed + broken
    );
}

fn a_large_blob_is_put_though_the_answer_to_its_last_request_is_lost(cloud: &Cloud) {
    let proxy = Proxy::losing(cloud.server.address, cloud.completes);
    let said = cloud.gets_through(&large(cloud, proxy.address), &["run", "--json"]);
    assert!(said.contains("\"stage-pushed\""), "{said}");
    assert_eq!(proxy.counts().1, 1, "{:?}", proxy.seen());
    restores_the_large_one(cloud, cloud.server.address);
}

fn two_put_one_large_blob_at_once(cloud: &Cloud) {
    let proxy = Proxy::before(cloud.server.address, 0, Duration::from_millis(100));
    run_at_once(cloud, &[(); 2].map(|()| large(cloud, proxy.address)));
    let completed = proxy.seen();
    let completed = completed.iter().filter(|line| (cloud.completes)(line));
    assert!(completed.count() >= 2, "{:?}", proxy.seen());
    restores_the_large_one(cloud, cloud.server.address);
}

fn wrong_credentials_fail_no_run_and_show_no_secret(cloud: &Cloud) {
    let project = cloud.checkout();
    let nobody = vec![("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1".to_owned())];
    for variables in [&cloud.wrong, &nobody] {
        let said = Cloud::says_with(variables, &project, &["run"]);
        assert!(said.starts_with("exit 0"), "{said}");
        assert!(said.contains("(remote::denied)"), "{said}");
        assert!(
            said.contains("check the credentials in the environment"),
            "{said}"
        );
        let said = Cloud::says_with(variables, &project, &["cache", "push"]);
        assert!(said.starts_with("exit 1"), "{said}");
        assert!(said.contains("remote::denied"), "{said}");
        let secret = &cloud.wrong.last().expect("a secret").1;
        assert!(!said.contains(&secret[..20]), "{said}");
    }
    let said = cloud.ok(&project, &["cache", "push"]);
    assert!(said.contains("put 3 results"), "{said}");
}

fn a_missing_bucket_and_a_dead_server_fail_no_run(cloud: &Cloud) {
    let project = cloud.checkout();
    let bucket = format!("{}://bucket/", cloud.scheme);
    project.edit(
        "pipeline.yaml",
        &bucket,
        &format!("{}://nobodys/", cloud.scheme),
    );
    let said = Cloud::says_with(&cloud.ways[0], &project, &["run"]);
    assert!(said.starts_with("exit 0"), "{said}");
    assert!(said.contains("(remote::nowhere)"), "{said}");
    assert!(said.contains("make the bucket or folder"), "{said}");

    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = closed.local_addr().expect("an address");
    drop(closed);
    let project = cloud.checkout_at(nobody);
    let said = Cloud::says_with(&cloud.ways[0], &project, &["run"]);
    assert!(said.starts_with("exit 0"), "{said}");
    assert!(said.contains("(remote::unreachable)"), "{said}");
}

#[test]
fn who_may_only_read_from_azure_reads_and_is_told_that_nothing_was_put() {
    let Some(cloud) = azure() else { return };
    cloud.ok(&cloud.checkout(), &["run"]);
    let reader = vec![
        cloud.ways[0][0].clone(),
        (
            "AZURE_STORAGE_SAS_TOKEN",
            cloud.server.said("reader").into(),
        ),
    ];
    let project = cloud.checkout();
    let said = Cloud::says_with(&reader, &project, &["run", "--json"]);
    assert!(said.starts_with("exit 0"), "{said}");
    assert_eq!(started(&said), 0, "{said}");
    project.edit("pipeline.yaml", "n: 1", "n: 2");
    let said = Cloud::says_with(&reader, &project, &["run"]);
    assert!(said.starts_with("exit 0"), "{said}");
    assert!(said.contains("(remote::denied)"), "{said}");
    let (_, signature) = reader[1].1.split_once("sig=").expect("a signature");
    assert!(!said.contains(signature), "{said}");
}

#[test]
fn the_variables_of_azures_emulator_are_enough() {
    let Some(cloud) = azure() else { return };
    let variables = vec![
        ("AZURE_STORAGE_USE_EMULATOR", "true".to_owned()),
        (
            "AZURITE_BLOB_STORAGE_URL",
            format!("http://{}", cloud.server.address),
        ),
    ];
    goes_without_an_endpoint(&cloud, &variables);
}

#[test]
fn a_service_accounts_file_signs_as_its_text_does() {
    let Some(cloud) = google() else { return };
    cloud.ok(&cloud.checkout(), &["run"]);
    for name in ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT"] {
        let project = cloud.checkout();
        project.write("account.json", cloud.server.said("account"));
        let path = project.at("account.json").display().to_string();
        let said = Cloud::says_with(&vec![(name, path)], &project, &["run", "--json"]);
        assert_eq!(started(&said), 0, "{said}");
        assert!(!said.contains("remote::"), "{said}");
    }
}

#[test]
fn what_azure_lacks_is_named() {
    let yaml = THREE.replace("REMOTE", "remote: { url: az://bucket/cache, push: true }");
    let project = Project::new(&yaml);
    let torn = vec![
        ("AZURE_STORAGE_ACCOUNT", "a".to_owned()),
        ("AZURE_STORAGE_KEY", "no-base64".to_owned()),
    ];
    for (variables, mend) in [
        (Vec::new(), "set `AZURE_STORAGE_ACCOUNT_NAME`"),
        (torn, "copy `AZURE_STORAGE_ACCOUNT_KEY` again"),
    ] {
        let said = Cloud::says_with(&variables, &project, &["run"]);
        assert!(said.starts_with("exit 0"), "{said}");
        assert!(said.contains("(remote::unusable)"), "{said}");
        assert!(said.contains(mend), "{said}");
    }
}
