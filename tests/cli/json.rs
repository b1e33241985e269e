//! `--json`: every command speaks it, and `docs/json.md` has a row for each.

use serde_json::Value;

use super::project::Project;

const TWO: &str = r#"
name: two
params: { n: 1 }
remote: DIR/far
stages:
  a: { run: "echo from a; seq ${n} 9 > ${outputs.it}", outputs: { it: it.txt } }
  b: { run: "wc -l < ${inputs.x} > ${outputs.it}", inputs: { x: a }, outputs: { it: it.txt } }
"#;

/// Every command as it is called for an answer, in an order in which each has one.
const COMMANDS: [&[&str]; 19] = [
    &["check"],
    &["graph"],
    &["run"],
    &["plan"],
    &["explain", "a"],
    &["compare", "a"],
    &["log", "a"],
    &["accept", "b"],
    &["run", "--force", "b"],
    &["cache", "push"],
    &["cache", "pull"],
    &["cache", "du"],
    &["cache", "du", "--remote"],
    &["cache", "verify"],
    &["cache", "gc", "--dry-run"],
    &["set", "n", "2"],
    &["run"],
    &["explain", "1", "3"],
    &["init", "new"],
];

fn objects(text: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(text).expect("text");
    let values = text.lines().map(|line| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(value.is_object(), "{line}");
        value
    });
    values.collect()
}

#[test]
fn every_command_answers_in_objects() {
    let project = Project::new(TWO);
    for command in COMMANDS {
        if command[0] == "accept" {
            project.write("out/default/b/it.txt", "edited\n");
        }
        let output = project.output(&[command, &["--json"]].concat());
        assert!(output.status.success(), "{}", project.page(&output));
        assert_eq!(output.stderr, b"", "{}", project.page(&output));
        assert!(!objects(&output.stdout).is_empty(), "{command:?}");
    }
}

#[test]
fn every_command_has_a_row_on_the_page() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/json.md")).expect("the page");
    let project = Project::new(TWO);
    let commands = |args: &[&str]| {
        let help = project.ok(args);
        let listed = help.split("Commands:\n").nth(1).expect("commands");
        let listed = listed.lines().take_while(|line| !line.is_empty());
        let names = listed.filter_map(|line| line.split_whitespace().next().map(str::to_owned));
        names.filter(|name| name != "help").collect::<Vec<_>>()
    };
    let mut names = commands(&["--help"]);
    names.retain(|name| name != "cache");
    let below = commands(&["cache", "--help"]).into_iter();
    names.extend(below.map(|name| format!("cache {name}")));
    assert!(names.len() >= 18, "{names:?}");
    for name in names {
        let row = |line: &str| {
            let first = line.split('|').nth(1).unwrap_or_default();
            first.contains(&format!("`{name}`")) || first.contains(&format!("`{name} "))
        };
        assert!(page.lines().any(row), "no row for `{name}`");
    }
}

#[test]
fn the_store_in_objects() {
    let project = Project::new(TWO);
    project.ok(&[]);
    project.ok(&["--set", "n=3"]);
    project.ok(&[]);
    insta::assert_snapshot!(project.ok(&["cache", "du", "--json"]), @r#"
    {"stages":[{"stage":"a","kind":"shell","results":2,"accepted":0,"bytes":32,"own":32},{"stage":"b","kind":"shell","results":2,"accepted":0,"bytes":4,"own":4}],"records":4,"blobs":{"count":4,"bytes":36},"loose":{"count":0,"bytes":0},"checkpoints":{"count":0,"bytes":0},"kept":{"count":0,"bytes":0},"quarantine":{"count":0,"bytes":0},"bytes":36}
    "#);
    insta::assert_snapshot!(project.ok(&["cache", "gc", "--days", "0", "--json"]), @r#"
    {"dry_run":false,"records":2,"blobs":2,"checkpoints":0,"quarantined":0,"bytes":16,"left":20,"needed":2,"notices":[]}
    "#);
    let blob = project.files(".tunesmith/store/blobs").remove(0).0;
    let place = project.at(".tunesmith/store/blobs").join(&blob);
    std::fs::remove_file(&place).expect("it was there");
    std::fs::write(&place, "rot").expect("written");
    insta::assert_snapshot!(project.says(&["cache", "verify", "--json"]), @r#"
    exit 1
    ----- stdout -----
    {"blobs":2,"records":2,"bytes":5,"damaged":1,"faults":[{"kind":"blob","path":".tunesmith/store/blobs/4f/[DIGEST]","missing":null},{"kind":"incomplete","path":".tunesmith/store/records/59/[DIGEST]/[DIGEST].json","missing":"[DIGEST]"}]}
    "#);
    insta::assert_snapshot!(project.says(&["cache", "verify", "--json"]), @r#"
    exit 0
    ----- stdout -----
    {"blobs":1,"records":2,"bytes":2,"damaged":0,"faults":[{"kind":"incomplete","path":".tunesmith/store/records/59/[DIGEST]/[DIGEST].json","missing":"[DIGEST]"}]}
    "#);
    project.ok(&[]);
    insta::assert_snapshot!(project.ok(&["cache", "verify", "--json"]), @r#"
    {"blobs":2,"records":2,"bytes":20,"damaged":0,"faults":[]}
    "#);
}

#[test]
fn a_remote_in_objects() {
    let project = Project::new(TWO);
    project.ok(&[]);
    insta::assert_snapshot!(project.ok(&["cache", "push", "a", "--json"]), @r#"
    {"stage":"a","outcome":"put","blobs":1,"bytes":18,"error":null}
    "#);
    insta::assert_snapshot!(project.ok(&["cache", "push", "--json"]), @r#"
    {"stage":"a","outcome":"there","blobs":0,"bytes":0,"error":null}
    {"stage":"b","outcome":"put","blobs":1,"bytes":2,"error":null}
    "#);
    insta::assert_snapshot!(project.ok(&["cache", "du", "--remote", "--json"]), @r#"
    {"remote":"[DIR]/far","blobs":2,"records":2,"bytes":20}
    "#);
    std::fs::remove_dir_all(project.at(".tunesmith")).expect("removed");
    insta::assert_snapshot!(project.ok(&["cache", "pull", "a", "--json"]), @r#"
    {"stage":"a","outcome":"fetched","blobs":1,"bytes":18,"error":null}
    "#);
    let far = project.files("far/v1/blobs");
    for (name, _) in far {
        std::fs::remove_file(project.at("far/v1/blobs").join(name)).expect("removed");
    }
    insta::assert_snapshot!(project.says(&["cache", "pull", "--json"]), @r#"
    exit 1
    ----- stdout -----
    {"stage":"a","outcome":"here","blobs":0,"bytes":0,"error":null}
    {"stage":"b","outcome":"failed","blobs":0,"bytes":0,"error":"not fetched: `v1/blobs/75/[DIGEST]` is not there"}
    ----- stderr -----
    {"code":"remote::missing","message":"the remote `[DIR]/far`, once: `v1/blobs/75/[DIGEST]` is not there; somebody deleted it there; a run that pushes brings it back"}
    "#);
}

#[test]
fn a_new_project_in_objects() {
    let project = Project::new(TWO);
    insta::assert_snapshot!(project.ok(&["init", "new", "--json"]), @r#"
    {"folder":"new","made":["pipeline.yaml","data/phrases.txt",".gitignore"]}
    "#);
}

#[test]
fn trouble_is_an_object_on_standard_error() {
    let project = Project::new(TWO);
    insta::assert_snapshot!(project.says(&["log", "a", "--json"]), @r#"
    exit 1
    ----- stderr -----
    {"code":"log::none","message":"`a` has no log here under profile `default`","mend":"run it: tunesmith run a","file":null,"line":null,"column":null}
    "#);
    insta::assert_snapshot!(project.says(&["init", "--json"]), @r#"
    exit 2
    ----- stderr -----
    {"code":"init::exists","message":"`./pipeline.yaml` is there already","mend":"choose another folder: tunesmith init DIR","file":null,"line":null,"column":null}
    "#);
    project.edit("pipeline.yaml", "{ x: a }", "{ x: aa }");
    insta::assert_snapshot!(project.says(&["plan", "--json"]), @r#"
    exit 2
    ----- stderr -----
    {"code":"config::unknown-stage","message":"there is no stage `aa`","mend":"did you mean `a`?","file":"pipeline.yaml","line":7,"column":65}
    "#);
    project.edit("pipeline.yaml", "{ x: aa }", "{ x: a }");
    project.edit("pipeline.yaml", "remote: ", "remote: http://127.0.0.1:9");
    let said = project.output(&["plan", "--json"]);
    let notes = objects(&said.stderr);
    assert!(
        notes
            .iter()
            .any(|note| note["code"] == "remote::unreachable"),
        "{notes:?}"
    );
}
