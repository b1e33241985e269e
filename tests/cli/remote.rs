//! Remote stores through the whole command: a folder, HTTP to read from, and what goes wrong there.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::project::{Project, wait_until};
use super::proxy::{Proxy, file_server};

pub(super) const THREE: &str = r#"
name: three
params: { n: 1 }
REMOTE
stages:
  rows: { run: "seq ${n} 3000 > ${outputs.it}", outputs: { it: rows.txt } }
  train: { run: "echo trained; sort -r ${inputs.rows} > ${outputs.adapter}", inputs: { rows: rows }, outputs: { adapter: adapter.txt } }
  eval: { run: "wc -l < ${inputs.x} > ${outputs.it}", inputs: { x: train }, outputs: { it: score.txt } }
"#;

/// A checkout of [`THREE`] with these lines about its remote.
pub(super) fn checkout(remote: &str) -> Project {
    Project::new(&THREE.replace("REMOTE", remote))
}

fn folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let line = format!("remote: {{ url: {}, push: true }}", folder.path().display());
    (folder, line)
}

/// A folder that a first checkout has filled, its line, and that checkout.
fn filled() -> (tempfile::TempDir, String, Project) {
    let (folder, line) = folder();
    let one = checkout(&line);
    let said = one.ok(&["run", "--json"]);
    assert_eq!(started(&said), 3, "{said}");
    (folder, line, one)
}

pub(super) fn started(said: &str) -> usize {
    said.matches("\"stage-started\"").count()
}

fn blobs(project: &Project) -> usize {
    project.files(".tunesmith/store/blobs").len()
}

pub(super) fn below(folder: &Path) -> Vec<PathBuf> {
    let walked = walkdir::WalkDir::new(folder)
        .sort_by_file_name()
        .into_iter()
        .flatten();
    let files = walked.filter(|entry| entry.file_type().is_file());
    files.map(walkdir::DirEntry::into_path).collect()
}

/// The blob with these bytes.
fn blob_at(remote: &Path, bytes: &[u8]) -> PathBuf {
    let hex = cache::Digest::of(bytes).hex();
    remote.join("v1/blobs").join(&hex[..2]).join(hex)
}

/// Every record that is there names only blobs that are there, with the bytes of their names.
pub(super) fn assert_sound(remote: &Path) {
    for path in below(&remote.join("v1/blobs")) {
        let bytes = fs::read(&path).expect("a blob");
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        assert_eq!(cache::Digest::of(&bytes).hex(), name, "a torn blob");
    }
    for folder in ["v1/records", "v1/keys"] {
        for path in below(&remote.join(folder)) {
            let text = fs::read(&path).expect("a record");
            let record: cache::Record = serde_json::from_slice(&text).expect("a whole record");
            for (_, _, digest, _) in record.trees().flat_map(cache::Tree::files) {
                let hex = digest.hex();
                let blob = remote.join("v1/blobs").join(&hex[..2]).join(&hex);
                assert!(blob.exists(), "{} lacks {hex}", path.display());
            }
        }
    }
}

#[test]
fn a_second_checkout_runs_nothing_and_fetches_only_what_is_shown() {
    let (_remote, line, one) = filled();
    let two = checkout(&line);
    insta::assert_snapshot!(two.ok(&["plan"]), @r"
      rows      restore from the remote
      train     restore from the remote
      eval      restore from the remote

    3 stages to restore from the remote
    ");
    assert_eq!(blobs(&two), 0, "a plan fetches no bytes");
    insta::assert_snapshot!(two.says(&["run"]), @r"
    exit 0
    ----- stdout -----
    three, profile default

      rows      restored from the remote, took [TIME] when made
      train     restored from the remote, took [TIME] when made
      eval      restored from the remote, took [TIME] when made
      eval      fetched: 5 B in [TIME]

      rows      restored
      train     restored
      eval      restored

      done in [TIME], 0 stages ran
      results  out/default/
    ");
    assert_eq!(
        two.files("out"),
        one.files("out")
            .into_iter()
            .filter(|(path, _)| path.contains("eval"))
            .collect::<Vec<_>>()
    );
    assert_eq!(blobs(&two), 1, "only the result that is shown came");
    assert_eq!(two.read("pipeline.lock"), one.read("pipeline.lock"));

    // Nothing to do, and nobody to ask.
    let said = two.ok(&["run", "--no-remote"]);
    assert!(
        said.contains("runs:"),
        "without the remote its results do not count: {said}"
    );
    let two = checkout(&line);
    two.ok(&["run"]);
    let said = two.ok(&["run"]);
    assert!(said.starts_with("up to date: 3 stages"), "{said}");
    insta::assert_snapshot!(two.ok(&["plan"]), @r"
      rows      up to date, left at the remote
      train     up to date, left at the remote
      eval      up to date

    3 stages up to date
    ");

    // A consumer changes: what it reads comes, and nothing of what that was made of.
    two.edit("pipeline.yaml", "wc -l", "wc -c");
    let said = two.ok(&["run", "--json"]);
    assert_eq!(started(&said), 1, "{said}");
    assert!(
        said.contains(r#""type":"stage-pulled","stage":"train""#),
        "{said}"
    );
    assert!(
        !blob_in(&two, &one.read("out/default/rows/rows.txt")),
        "the rows were not needed"
    );
    assert!(two.at("out/default/train/adapter.txt").exists());
    two.verify();
    // Its log came along.
    assert!(two.ok(&["log", "train"]).contains("trained"));
}

fn blob_in(project: &Project, text: &str) -> bool {
    let hex = cache::Digest::of(text.as_bytes()).hex();
    let blobs = project.at(".tunesmith/store/blobs");
    blobs.join(&hex[..2]).join(hex).exists()
}

#[test]
fn ci_checks_from_lock_and_records_alone() {
    let (_remote, line, one) = filled();
    let ci = checkout(&line);
    ci.write("pipeline.lock", &one.read("pipeline.lock"));
    let said = ci.says(&["plan", "--check", "--locked"]);
    assert!(said.starts_with("exit 0"), "{said}");
    assert_eq!(blobs(&ci), 0);
    // Without a remote nobody can know.
    let said = ci.says(&["plan", "--check", "--locked", "--no-remote"]);
    assert!(said.starts_with("exit 4"), "{said}");
    // A stage changed and nobody ran it.
    ci.edit("pipeline.yaml", "sort -r", "sort -rn");
    let said = ci.says(&["plan", "--check", "--locked"]);
    assert!(said.starts_with("exit 4"), "{said}");
    assert_eq!(blobs(&ci), 0);
    // `--locked` restores what the lock names, and refuses what it does not.
    let said = ci.says(&["run", "--locked"]);
    assert!(said.starts_with("exit 5"), "{said}");
    ci.edit("pipeline.yaml", "sort -rn", "sort -r");
    let said = ci.ok(&["run", "--locked", "--json"]);
    assert_eq!(started(&said), 0, "{said}");
}

#[test]
fn a_bad_blob_is_refused_and_its_stage_runs_and_puts_it_right() {
    let (remote, line, one) = filled();
    let score = one.read("out/default/eval/score.txt");
    let place = blob_at(remote.path(), score.as_bytes());
    for damage in ["other bytes of another length", "3001\n", ""] {
        fs::write(&place, damage).expect("written");
        let two = checkout(&line);
        let said = two.says(&["run"]);
        assert!(said.starts_with("exit 0"), "{said}");
        assert!(said.contains("remote::corrupt"), "{said}");
        assert!(
            said.contains("holds other bytes than its name says"),
            "{said}"
        );
        assert_eq!(two.read("out/default/eval/score.txt"), score);
        two.verify();
        assert_eq!(
            fs::read_to_string(&place).expect("a blob"),
            score,
            "put right"
        );
    }
    // Deleted there.
    fs::remove_file(&place).expect("removed");
    let two = checkout(&line);
    let said = two.says(&["run"]);
    assert!(
        said.starts_with("exit 0") && said.contains("remote::missing"),
        "{said}"
    );
    assert_sound(remote.path());
    assert_eq!(fs::read_to_string(&place).expect("a blob"), score, "back");
}

#[test]
fn a_record_that_is_none_of_its_key_is_refused() {
    let (remote, line, one) = filled();
    let records = below(&remote.path().join("v1/keys"));
    let model = one.read("out/default/eval/score.txt");
    for forge in [
        // Outputs of another key, under this one; a changed part; no record; half a one.
        |_: &str, other: &str| other.to_owned(),
        |own: &str, _: &str| own.replace("3000", "9000"),
        |_: &str, _: &str| "{}".to_owned(),
        |own: &str, _: &str| own[..own.len() / 2].to_owned(),
    ] {
        let texts: Vec<_> = records
            .iter()
            .map(|path| fs::read_to_string(path).expect("text"))
            .collect();
        for (at, path) in records.iter().enumerate() {
            let forged = forge(&texts[at], &texts[(at + 1) % texts.len()]);
            fs::write(path, forged).expect("written");
        }
        let two = checkout(&line);
        let said = two.says(&["run"]);
        assert!(said.starts_with("exit 0"), "{said}");
        assert!(said.contains("is no record of its key"), "{said}");
        assert_eq!(two.read("out/default/eval/score.txt"), model);
        two.verify();
        // Who pushes puts them right.
        let three = checkout(&line);
        assert_eq!(started(&three.ok(&["run", "--json"])), 0);
    }
}

#[test]
fn bytes_that_are_gone_and_come_out_differently_are_planned_anew() {
    let (folder, line) = folder();
    let yaml = THREE
        .replace("REMOTE", &line)
        .replace("sort -r", "date +%N; date +%N > ${outputs.adapter}; cat");
    let yaml = yaml.replace("cat ${inputs.rows} > ", "cat ${inputs.rows} >> ");
    let one = Project::new(&yaml);
    one.ok(&[]);
    let adapter = one.read("out/default/train/adapter.txt");
    fs::remove_file(blob_at(folder.path(), adapter.as_bytes())).expect("removed");
    let two = Project::new(&yaml);
    two.edit("pipeline.yaml", "wc -l", "cat");
    let said = two.says(&["run"]);
    assert!(said.starts_with("exit 0"), "{said}");
    assert!(said.contains("remote::other-bytes"), "{said}");
    let new = two.read("out/default/train/adapter.txt");
    assert_ne!(new, adapter);
    assert_eq!(
        two.read("out/default/eval/score.txt"),
        new,
        "made of what is there"
    );
    assert!(two.ok(&[]).starts_with("up to date: 3 stages"));
    two.verify();
}

#[test]
fn what_people_vouch_for_and_receipts_stay_here() {
    let (remote, line) = folder();
    let one = checkout(&line);
    one.edit(
        "pipeline.yaml",
        "stages:\n",
        "stages:\n  tell: { run: \"echo told > ${outputs.receipt}\", inputs: { x: eval }, outputs: { receipt: r.txt }, effect: external }\n",
    );
    one.ok(&["run"]);
    one.ok(&["run", "tell"]);
    let records = below(&remote.path().join("v1/records")).len();
    assert_eq!(records, 3, "no receipt");
    one.write("out/default/eval/score.txt", "edited\n");
    one.ok(&["accept", "eval"]);
    one.ok(&["run"]);
    let said = one.ok(&["cache", "push"]);
    assert!(said.contains("accepted by hand: it stays here"), "{said}");
    assert_eq!(below(&remote.path().join("v1/records")).len(), records);
    assert!(!blob_at(remote.path(), b"edited\n").exists());
}

#[test]
fn the_ci_of_a_pull_request_pushes_nothing() {
    let (remote, line) = folder();
    let one = checkout(&line);
    let in_request = |args: &[&str]| {
        let mut command = one.command(args);
        let output = command.env("GITHUB_EVENT_NAME", "pull_request").output();
        one.page(&output.expect("it starts"))
    };
    let said = in_request(&["run"]);
    assert!(said.starts_with("exit 0"), "{said}");
    assert_eq!(below(remote.path()), Vec::<PathBuf>::new());
    insta::assert_snapshot!(in_request(&["cache", "push"]), @r"
    exit 2
    ----- stderr -----
    remote::pull-request

      × this is the CI of a pull request (`GITHUB_EVENT_NAME`): nothing of it is put to the remote
      help: push from the branch it goes into; `push: always` or TUNESMITH_REMOTE_PUSH=always does it
            anyway
    ");
    one.edit("pipeline.yaml", "push: true", "push: always");
    let said = in_request(&["cache", "push"]);
    assert!(said.contains("put 3 results"), "{said}");
    assert_sound(remote.path());
}

#[test]
fn push_pull_and_du_by_hand() {
    let (remote, line) = folder();
    let line = line.replace(", push: true", "");
    let one = checkout(&line);
    one.ok(&["run"]);
    assert_eq!(
        below(remote.path()),
        Vec::<PathBuf>::new(),
        "only when asked"
    );
    let shown = |said: String| said.replace(&remote.path().display().to_string(), "[REMOTE]");
    insta::assert_snapshot!(shown(one.ok(&["cache", "push", "train"])), @r"
      rows  13.9 kB in 1 blob
      train  13.9 kB in 1 blob
    put 2 results (27.8 kB) to [REMOTE]; 0 there already
    ");
    insta::assert_snapshot!(shown(one.ok(&["cache", "push"])), @r"
      eval  5 B in 1 blob
    put 1 result (5 B) to [REMOTE]; 2 there already
    ");
    insta::assert_snapshot!(shown(one.ok(&["cache", "du", "--remote"])), @r"
    at [REMOTE]: 27.8 kB in 3 blobs, 3 records
    ");
    let two = checkout(&line);
    insta::assert_snapshot!(shown(two.ok(&["cache", "pull", "rows"])), @r"
      rows  13.9 kB in 1 blob
    fetched 1 result (13.9 kB) from [REMOTE]; 0 here already
    ");
    assert_eq!(blobs(&two), 1);
    two.ok(&["cache", "pull"]);
    assert_eq!(blobs(&two), 3);
    two.verify();
    assert_eq!(started(&two.ok(&["run", "--json", "--no-remote"])), 0);
    let none = checkout("");
    insta::assert_snapshot!(none.says(&["cache", "pull"]), @r"
    exit 2
    ----- stderr -----
    remote::none

      × there is no remote
      help: write `remote: s3://bucket/prefix` into pipeline.yaml, or set TUNESMITH_REMOTE
    ");
}

#[test]
fn a_dead_remote_fails_no_run_and_is_told_once() {
    // Nobody listens on a port that was just given back.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let project = checkout(&format!("remote: http://{address}/x"));
    let said = project
        .says(&["run"])
        .replace(&address.to_string(), "[ADDRESS]");
    assert!(said.starts_with("exit 0"), "{said}");
    assert_eq!(said.matches("(remote::unreachable)").count(), 1, "{said}");
    assert_eq!(said.matches("(remote::left-alone)").count(), 1, "{said}");
    // A plan works offline, too.
    project.edit("pipeline.yaml", "n: 1", "n: 2");
    let said = project.says(&["plan", "--check"]);
    assert!(
        said.starts_with("exit 4") && said.contains("remote::left-alone"),
        "{said}"
    );
    // With nothing to do nobody is asked.
    project.edit("pipeline.yaml", "n: 2", "n: 1");
    let said = project.says(&["run"]);
    assert!(
        said.contains("up to date: 3 stages") && !said.contains("remote"),
        "{said}"
    );
}

/// A checkout that reads the folder by HTTP through a proxy.
fn by_http(server: SocketAddr, percent: u64) -> (Project, Proxy) {
    let proxy = Proxy::before(server, percent, Duration::ZERO);
    (
        checkout(&format!("remote: http://{}", proxy.address)),
        proxy,
    )
}

#[test]
fn a_folder_is_read_by_http_also_when_half_of_all_requests_break() {
    let (remote, _, one) = filled();
    let server = file_server(remote.path());
    let (two, _proxy) = by_http(server, 0);
    let said = two.ok(&["run", "--json"]);
    assert_eq!(started(&said), 0, "{said}");

    let (three, proxy) = by_http(server, 50);
    let said = three.ok(&["run", "--json"]);
    assert_eq!(started(&said), 0, "{said}");
    three.ok(&["cache", "pull"]);
    assert_eq!(blobs(&three), 3);
    three.verify();
    assert_eq!(
        three
            .ok(&["run", "--json"])
            .matches("stage-started")
            .count(),
        0
    );
    assert!(three.files("out") == one.files("out"));
    let (passed, broken) = proxy.counts();
    assert!(
        broken >= 3,
        "{broken} of {} requests broke",
        passed + broken
    );
    // A plan sends no more than a record's worth of questions a stage.
    assert!(
        proxy.seen().iter().all(|line| line.starts_with("GET /v1/")),
        "{:?}",
        proxy.seen()
    );
}

#[test]
fn two_writers_at_once_put_one_result() {
    let (remote, line) = folder();
    let projects: Vec<_> = (0..4).map(|_| checkout(&line)).collect();
    let running: Vec<_> = projects
        .iter()
        .map(|project| {
            let mut command = project.command(&["run"]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("it starts")
        })
        .collect();
    for mut child in running {
        assert!(child.wait().expect("it was started").success());
    }
    assert_sound(remote.path());
    assert_eq!(below(&remote.path().join("v1/keys")).len(), 3);
    assert_eq!(below(&remote.path().join("v1/tmp")), Vec::<PathBuf>::new());
    let last = checkout(&line);
    assert_eq!(started(&last.ok(&["run", "--json"])), 0);
}

#[test]
fn a_push_that_is_killed_is_taken_up_by_the_next_run() {
    let (remote, line) = folder();
    // Many files, so that there is much to be killed in.
    let yaml = THREE.replace("REMOTE", &line).replace(
        "stages:\n",
        "stages:\n  many: { run: \"seq ${n} 400 | (cd many; split -l 1 -a 4 -)\", outputs: { it: many/ } }\n",
    );
    let one = Project::new(&yaml);
    let mut amid = 0;
    for round in 0..8 {
        let mut child = {
            let mut command = one.command(&["run"]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("it starts")
        };
        let before = below(remote.path()).len();
        wait_until("something was put, or it ended", || {
            below(remote.path()).len() > before + 10 * round
                || child.try_wait().expect("it was started").is_some()
        });
        amid += usize::from(child.try_wait().expect("it was started").is_none());
        let _ended = child.kill();
        child.wait().expect("it was started");
        assert_sound(remote.path());
    }
    assert!(amid >= 2, "killed amid {amid} times");
    one.ok(&["run"]);
    one.verify();
    assert_sound(remote.path());
    assert_eq!(below(&remote.path().join("v1/records")).len(), 4);
    let two = Project::new(&yaml);
    assert_eq!(started(&two.ok(&["run", "--json"])), 0);
}
