//! The store through the whole command: collecting, sharing, damage.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::project::Project;

const TWO: &str = r#"
name: two
params: { n: 1 }
stages:
  a: { run: "echo ran >> DIR/ran; seq ${n} 2000 > ${outputs.it}", outputs: { it: it.txt } }
  b: { run: "echo ran >> DIR/ran; wc -l < ${inputs.x} > ${outputs.it}", inputs: { x: a }, outputs: { it: it.txt } }
"#;

/// Sets `n` and runs.
fn run_with(project: &Project, n: usize) -> String {
    let text = project.read("pipeline.yaml");
    let start = text.find("n: ").expect("a parameter");
    let end = start + text[start..].find(' ').expect("a space") + 1;
    let end = end + text[end..].find(' ').expect("a space");
    let text = format!("{}n: {n}{}", &text[..start], &text[end..]);
    fs::write(project.at("pipeline.yaml"), text).expect("written");
    project.ok(&[])
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let walked = walkdir::WalkDir::new(folder).into_iter().flatten();
    let files = walked.filter(|entry| entry.file_type().is_file());
    files.map(walkdir::DirEntry::into_path).collect()
}

/// Makes every record look as if it was used so many days ago.
fn age(project: &Project, store: &str, days: u64) {
    for file in files_below(&project.at(store).join("records")) {
        let then = SystemTime::now() - Duration::from_hours(24 * days);
        let file = fs::File::open(file).expect("a record");
        file.set_modified(then).expect("a time");
    }
}

#[test]
fn gc_says_what_it_would_drop_and_keeps_what_is_needed() {
    let project = Project::new(TWO);
    for n in [1, 2, 3] {
        run_with(&project, n);
    }
    let everything = project.files(".tunesmith/store/blobs").len();
    let said = project.ok(&["cache", "gc", "--days", "0", "--dry-run"]);
    assert!(
        said.contains("would drop 4 records and 4 blobs (17.8 kB)"),
        "{said}"
    );
    assert!(
        said.contains("2 records needed by lock files and last results"),
        "{said}"
    );
    assert_eq!(project.files(".tunesmith/store/blobs").len(), everything);

    // Nothing is old.
    let said = project.ok(&["cache", "gc"]);
    assert!(said.contains("dropped 0 records and 0 blobs"), "{said}");
    let said = project.ok(&["cache", "gc", "--days", "0"]);
    assert!(
        said.contains("dropped 4 records and 4 blobs (17.8 kB)"),
        "{said}"
    );
    let said = project.ok(&[]);
    assert!(said.starts_with("up to date: 2 stages"), "{said}");
    project.verify();
}

#[test]
fn what_only_the_lock_names_is_kept() {
    let project = Project::new(TWO);
    run_with(&project, 1);
    let lock = project.read("pipeline.lock");
    run_with(&project, 2);
    // Another branch is checked out: its lock, and last results of the other one.
    fs::write(project.at("pipeline.lock"), &lock).expect("written");
    fs::remove_dir_all(project.at(".tunesmith/last")).expect("removed");
    let said = project.ok(&["cache", "gc", "--days", "0"]);
    assert!(said.contains("dropped 2 records"), "{said}");
    let ran = project.marks("ran").len();
    run_with(&project, 1);
    assert_eq!(project.marks("ran").len(), ran, "restored");

    // A lock that nobody can read: nobody knows what is needed.
    fs::write(project.at("pipeline.lock"), "<<<<<<< ours\n").expect("written");
    let said = project.says(&["cache", "gc", "--days", "0"]);
    assert!(
        said.starts_with("exit 2") && said.contains("lock::conflict"),
        "{said}"
    );
}

#[test]
fn runs_collect_by_themselves_when_the_store_grows_too_big() {
    let project = Project::new(&TWO.replace("name: two", "name: two\nstore: { max_size: 20 kB }"));
    for n in [1, 2] {
        let said = run_with(&project, n);
        assert!(!said.contains("let go"), "{said}");
    }
    let said = run_with(&project, 3);
    assert!(said.contains("the store let go of"), "{said}");
    let ran = project.marks("ran").len();
    run_with(&project, 2);
    assert_eq!(project.marks("ran").len(), ran, "the newer ones stayed");
    run_with(&project, 1);
    assert_eq!(
        project.marks("ran").len(),
        ran + 1,
        "the oldest went; the few bytes of its `b` had room"
    );
    project.verify();

    let project = Project::new(&TWO.replace(
        "name: two",
        "name: two\nstore: { max_size: 1 kB, gc: false }",
    ));
    for n in [1, 2, 3] {
        let said = run_with(&project, n);
        assert!(!said.contains("let go"), "{said}");
    }
}

#[test]
fn checkouts_share_a_store_and_keep_what_each_other_needs() {
    let [one, two] = [(); 2].map(|()| Project::new(TWO));
    let shared = tempfile::tempdir().expect("a folder");
    let store = shared.path().display().to_string();
    one.edit(
        "pipeline.yaml",
        "name: two",
        &format!("name: two\nstore: {store}"),
    );
    let in_two = |args: &[&str]| {
        let mut command = two.command(args);
        let output = command
            .env("TUNESMITH_STORE", &store)
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    // Other bytes than those of `two`: a lock keeps whatever has the bytes that it names.
    run_with(&one, 5);
    assert!(
        !one.at(".tunesmith/store").exists(),
        "the store is elsewhere"
    );
    in_two(&["run"]);
    let said = in_two(&["cache", "gc", "--days", "0"]);
    assert!(said.contains("dropped 0 records"), "{said}");
    assert!(said.contains("4 records needed"), "{said}");

    // `one` vanishes: its results stay, and that is said.
    let moved = one.path().with_extension("moved");
    fs::rename(one.path(), &moved).expect("moved");
    let said = in_two(&["cache", "gc", "--days", "0"]);
    assert!(
        said.contains("is gone: its 2 results stay for 30 days more"),
        "{said}"
    );
    assert!(said.contains("dropped 0 records"), "{said}");
    // After its time it is forgotten, aloud.
    for root in files_below(&shared.path().join("roots")) {
        let then = SystemTime::now() - Duration::from_hours(24 * 31);
        let file = fs::File::open(root).expect("a root");
        file.set_modified(then).expect("a time");
    }
    let said = in_two(&["cache", "gc", "--days", "0"]);
    assert!(said.contains("is gone for 31 days: forgotten"), "{said}");
    assert!(said.contains("dropped 2 records"), "{said}");
    fs::rename(&moved, one.path()).expect("moved back");
    let said = in_two(&["run"]);
    assert!(said.starts_with("up to date: 2 stages"), "{said}");
}

#[test]
fn age_counts_from_the_last_use() {
    let project = Project::new(TWO);
    for n in [1, 2, 3] {
        run_with(&project, n);
    }
    age(&project, ".tunesmith/store", 60);
    // Brought back: used.
    run_with(&project, 1);
    run_with(&project, 3);
    let said = project.ok(&["cache", "gc"]);
    assert!(said.contains("dropped 2 records"), "{said}");
    let ran = project.marks("ran").len();
    run_with(&project, 1);
    assert_eq!(project.marks("ran").len(), ran);
}

#[test]
fn du_shows_stages_and_kinds() {
    let project = Project::new(TWO);
    run_with(&project, 1);
    run_with(&project, 2);
    insta::assert_snapshot!(project.ok(&["cache", "du"]), @r"
    stage  kind   results       size    its own
    a      shell        2    17.8 kB    17.8 kB
    b      shell        2       10 B       10 B
    in all: 17.8 kB in 4 blobs, 4 records
    ");
}
