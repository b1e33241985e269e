//! Bits that flip in the store: found on use where the stat shows it, else by `cache verify`;
//! made anew or fetched again, never handed on.

use std::fs;
use std::path::{Path, PathBuf};

use super::project::Project;
use super::remote::started;

/// Each stage leaves a mark when it runs.
const TWO: &str = r#"
name: two
params: { n: 1 }
REMOTE
stages:
  a: { run: "echo ran >> DIR/ran; seq ${n} 2000 > ${outputs.it}", outputs: { it: it.txt } }
  b: { run: "echo ran >> DIR/ran; wc -l < ${inputs.x} > ${outputs.it}", inputs: { x: a }, outputs: { it: it.txt } }
"#;

fn project() -> Project {
    Project::new(&TWO.replace("REMOTE\n", ""))
}

/// A project whose results are at a remote, too.
fn with_a_remote() -> Project {
    let project = Project::new(&TWO.replace("REMOTE", "remote: { url: DIR/far, push: true }"));
    project.ok(&[]);
    project
}

/// The blob of a result.
fn blob(project: &Project, result: &str) -> PathBuf {
    let hex = cache::Digest::of(project.read(result).as_bytes()).hex();
    project
        .at(".tunesmith/store/blobs")
        .join(&hex[..2])
        .join(hex)
}

/// Flips a bit and leaves size and mtime alone.
fn flip(blob: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let before = fs::metadata(blob).expect("a blob");
    let mut bytes = fs::read(blob).expect("a blob");
    bytes[0] ^= 1;
    fs::set_permissions(blob, fs::Permissions::from_mode(0o644)).expect("writable");
    fs::write(blob, bytes).expect("written");
    let file = fs::File::open(blob).expect("a blob");
    file.set_permissions(before.permissions())
        .expect("read-only");
    file.set_modified(before.modified().expect("a time"))
        .expect("a time");
}

/// Makes the index believe what stands there: as after a flip on the medium itself, which leaves
/// every time alone.
fn believe(project: &Project, blob: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let meta = fs::metadata(blob).expect("a blob");
    let name = blob
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let nanos = |seconds: i64, rest: i64| seconds * 1_000_000_000 + rest;
    let line = format!(
        "\nb {name} {} {} {} {} ;\n",
        meta.len(),
        nanos(meta.mtime(), meta.mtime_nsec()),
        nanos(meta.ctime(), meta.ctime_nsec()),
        meta.ino()
    );
    let index = project.at(".tunesmith/index");
    let mut text = fs::read(&index).expect("an index");
    text.extend(line.bytes());
    fs::write(index, text).expect("written");
}

#[test]
fn a_flipped_bit_whose_stat_shows_is_never_handed_on() {
    let project = project();
    project.ok(&[]);
    let model = project.read("out/default/a/it.txt");
    flip(&blob(&project, "out/default/a/it.txt"));
    // `b` is to run again and reads `a`: made anew first.
    project.edit("pipeline.yaml", "wc -l", "wc  -l");
    let said = project.ok(&[]);
    assert!(said.contains("damaged"), "{said}");
    assert_eq!(project.read("out/default/a/it.txt"), model);
    assert_eq!(project.read("out/default/b/it.txt").trim(), "2000");
    assert_eq!(project.marks("ran").len(), 4);
    project.verify();
    assert_eq!(project.files(".tunesmith/store/quarantine").len(), 1);
}

#[test]
fn a_flipped_bit_that_leaves_every_time_alone_is_found_by_verify() {
    let project = project();
    project.ok(&[]);
    let model = project.read("out/default/a/it.txt");
    let path = blob(&project, "out/default/a/it.txt");
    flip(&path);
    believe(&project, &path);
    let said = project.says(&["cache", "verify"]);
    assert!(said.starts_with("exit 1"), "{said}");
    assert!(said.contains("damaged, put in quarantine"), "{said}");
    project.ok(&[]);
    assert_eq!(project.marks("ran").len(), 3, "only `a` was made anew");
    assert_eq!(project.read("out/default/a/it.txt"), model);
    project.verify();
}

#[test]
fn what_a_remote_has_is_fetched_again_instead_of_made() {
    let project = with_a_remote();
    let model = project.read("out/default/a/it.txt");
    let path = blob(&project, "out/default/a/it.txt");
    // A flip that the stat shows, found by the stage that is to read it.
    flip(&path);
    project.edit("pipeline.yaml", "wc -l", "wc  -l");
    let said = project.ok(&["run", "--json"]);
    assert_eq!(started(&said), 1, "{said}");
    assert_eq!(project.marks("ran").len(), 3, "`b` alone ran again");
    assert_eq!(fs::read_to_string(&path).expect("a blob"), model);
    assert_eq!(project.read("out/default/b/it.txt").trim(), "2000");
    project.verify();
    // One that nothing shows, found by `verify`.
    flip(&path);
    believe(&project, &path);
    let said = project.says(&["cache", "verify"]);
    assert!(said.starts_with("exit 1"), "{said}");
    project.edit("pipeline.yaml", "wc  -l", "wc -c");
    let said = project.ok(&["run", "--json"]);
    assert_eq!(started(&said), 1, "{said}");
    assert_eq!(fs::read_to_string(&path).expect("a blob"), model);
    assert_eq!(
        project.read("out/default/b/it.txt").trim(),
        model.len().to_string()
    );
    project.verify();
}

#[test]
fn what_is_shown_is_never_a_damaged_blob() {
    let project = project();
    project.ok(&[]);
    let model = project.read("out/default/a/it.txt");
    flip(&blob(&project, "out/default/a/it.txt"));
    fs::remove_file(project.at("out/default/a/it.txt")).expect("it was there");
    project.ok(&[]);
    assert_eq!(project.read("out/default/a/it.txt"), model);
    assert_eq!(project.marks("ran").len(), 3, "`a` was made anew");
    project.verify();
}

#[test]
fn the_copy_of_a_local_file_is_taken_again_from_the_file() {
    let project = Project::new(
        r#"
name: local
stages:
  a: { run: "cat ${inputs.x} > ${outputs.it}", inputs: { x: ./words.txt }, outputs: { it: it.txt } }
"#,
    );
    project.write("words.txt", "some\nwords\n");
    // Old enough to be believed by its stat.
    let file = fs::File::open(project.at("words.txt")).expect("a file");
    let then = std::time::SystemTime::now() - std::time::Duration::from_mins(1);
    file.set_modified(then).expect("a time");
    project.ok(&[]);
    flip(&blob(&project, "words.txt"));
    project.edit("pipeline.yaml", "run: \"cat", "run: \"cat -u");
    project.ok(&[]);
    assert_eq!(project.read("out/default/a/it.txt"), "some\nwords\n");
    project.verify();
}

#[test]
fn a_record_with_a_flipped_bit_counts_as_none() {
    let project = Project::new(
        r#"
name: record
stages:
  a: { run: "echo ran >> DIR/ran; echo '{\"score\": 0.9}' > ${outputs.metrics}", outputs: { metrics: metrics.json } }
"#,
    );
    project.ok(&[]);
    let record = project.files(".tunesmith/store/records").remove(0).0;
    let place = project.at(".tunesmith/store/records").join(record);
    // The metric that a gate would ask for: neither key nor outputs say anything of it.
    let text = fs::read_to_string(&place).expect("a record");
    assert!(text.contains("\"score\":0.9"), "{text}");
    fs::write(&place, text.replace("\"score\":0.9", "\"score\":0.8")).expect("written");
    let said = project.says(&["cache", "verify"]);
    assert!(
        said.starts_with("exit 1") && said.contains("no record, put in quarantine"),
        "{said}"
    );
    project.ok(&[]);
    assert_eq!(project.marks("ran").len(), 2);
    let text = fs::read_to_string(&place).expect("a record");
    assert!(!text.contains("0.8"), "{text}");
    project.verify();
}
