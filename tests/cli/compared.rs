//! `docs/compared.md` against the code, and a row of it that no other test shows.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::project::Project;

#[test]
fn every_test_that_the_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/compared.md")).expect("the page");
    let rows = page
        .lines()
        .filter(|line| line.contains('#') && line.starts_with("| "));
    let mut named = 0;
    for row in rows {
        let shown = row
            .trim_end_matches(" |")
            .rsplit(" | ")
            .next()
            .expect("a last column");
        let tests: Vec<_> = shown.split(", ").collect();
        assert!(!shown.is_empty(), "a row that nothing shows: {row}");
        for test in tests {
            let test = test.trim_matches('`');
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("`{test}`"));
            let text = std::fs::read_to_string(root.join(file));
            let text = text.unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(
                text.contains(&format!("fn {name}(")),
                "{file} has no test `{name}`"
            );
            named += 1;
        }
    }
    assert!(named >= 28, "{named} rows");
}

/// Of each line with the field `by`: stage -> the text of that field.
fn by_stage(said: &str, by: &str) -> BTreeMap<String, String> {
    let values = said.lines().map(|line| {
        let value: Value = serde_json::from_str(line).expect("JSON");
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        (text("stage"), text(by))
    });
    values.filter(|(stage, _)| !stage.is_empty()).collect()
}

#[test]
fn a_plan_says_what_the_run_does() {
    let project = Project::new(
        r#"
name: plans
params: { kept: 1, back: 1, same: 1, other: 1 }
stages:
  kept: { run: "echo kept ${kept} > ${outputs.it}", outputs: { it: it.txt } }
  back: { run: "echo back ${back} > ${outputs.it}", outputs: { it: it.txt } }
  same: { run: "true ${same}; echo same > ${outputs.it}", outputs: { it: it.txt } }
  other: { run: "echo other ${other} > ${outputs.it}", outputs: { it: it.txt } }
  below-back: { run: "cat ${inputs.x} > ${outputs.it}", inputs: { x: back }, outputs: { it: it.txt } }
  below-same: { run: "cat ${inputs.x} > ${outputs.it}", inputs: { x: same }, outputs: { it: it.txt } }
  below-other: { run: "cat ${inputs.x} > ${outputs.it}", inputs: { x: other }, outputs: { it: it.txt } }
"#,
    );
    project.ok(&[]);
    project.edit("pipeline.yaml", "back: 1", "back: 2");
    project.ok(&[]);
    // One is as it was, one goes back, one comes to the same bytes, one to others.
    project.edit(
        "pipeline.yaml",
        "back: 2, same: 1, other: 1",
        "back: 1, same: 2, other: 2",
    );
    let planned = by_stage(&project.ok(&["plan", "--json"]), "outcome");
    let run = project.ok(&["run", "--json"]);
    let happened = |stage: &str| {
        let events = run
            .lines()
            .filter(|line| line.contains(&format!("\"stage\":\"{stage}\"")));
        let events: Vec<Value> = events
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let is = |kind: &'static str| move |event: &&Value| event["type"] == kind;
        match events.iter().find(is("stage-fresh")) {
            _ if events.iter().any(|event| event["type"] == "stage-started") => "run",
            Some(fresh) if fresh["restored"] == true => "restore",
            Some(_) => "fresh",
            None => "nothing",
        }
    };
    for (stage, plan, found) in [
        ("kept", "fresh", "fresh"),
        ("back", "restore", "restore"),
        ("same", "run", "run"),
        ("other", "run", "run"),
        ("below-back", "restore", "restore"),
        ("below-same", "unknown", "fresh"),
        ("below-other", "unknown", "run"),
    ] {
        assert_eq!(
            (&*planned[stage], happened(stage)),
            (plan, found),
            "{stage}"
        );
    }
    let planned = by_stage(&project.ok(&["plan", "--json"]), "outcome");
    assert!(
        planned.values().all(|outcome| outcome == "fresh"),
        "{planned:?}"
    );
}

#[test]
fn no_run_touches_the_pipeline_file() {
    use std::os::unix::fs::MetadataExt as _;
    let text = "# mine\nname:   odd   # spacing\nparams: {n: 1}\nstages:\n  a: {run: \"echo ${n} > ${outputs.it}\", outputs: {it: it.txt}}\n";
    let project = Project::new(text);
    let inode = |project: &Project| {
        let meta = std::fs::metadata(project.at("pipeline.yaml")).expect("it is there");
        (meta.ino(), meta.mtime_nsec(), meta.mtime())
    };
    let before = inode(&project);
    for args in [
        &["run"][..],
        &["run", "--set", "n=2"],
        &["plan"],
        &["explain", "a"],
        &["check"],
        &["run", "--force", "a"],
        &["cache", "gc"],
    ] {
        project.ok(args);
    }
    assert_eq!(project.read("pipeline.yaml"), text);
    assert_eq!(inode(&project), before, "not even written anew");
}
