//! `docs/compared.md` against the code, and a row of it that no other test shows.

use std::path::Path;

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
