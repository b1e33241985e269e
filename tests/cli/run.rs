//! What runs, what does not, and what is said about it.

use super::project::Project;

const TWO: &str = r#"
name: demo
params: { take: 2 }
stages:
  head:
    run: head -n ${take} ${inputs.text} > ${outputs.lines}
    inputs: { text: ./words.txt }
    outputs: { lines: lines.txt }
  count:
    run: |
      printf '{"lines": %s}\n' "$(wc -l < ${inputs.lines})" > ${outputs.metrics}
    inputs: { lines: head }
    outputs: { metrics: metrics.json }
    gates: { lines: ">= 1" }
"#;

fn two() -> Project {
    let project = Project::new(TWO);
    project.write("words.txt", "one\ntwo\nthree\nfour\n");
    project
}

#[test]
fn a_first_run_and_a_second() {
    let project = two();
    insta::assert_snapshot!(project.says(&["run"]), @r"
    exit 0
    ----- stdout -----
    demo, profile default

      head      runs: it has no result yet
      head      done in [TIME]
      count     runs: it has no result yet
      count     done in [TIME]

      head      ran [TIME]
      count     ran [TIME]

      gate  count lines       2  wanted >= 1  holds

      done in [TIME], 2 stages ran
      results  out/default/
    ");
    insta::assert_snapshot!(project.says(&["run"]), @r"
    exit 0
    ----- stdout -----
    up to date: 2 stages, [TIME]
    ");
    assert_eq!(project.read("out/default/head/lines.txt"), "one\ntwo\n");
    project.verify();
}

#[test]
fn one_edit_runs_what_depends_on_it_and_going_back_restores() {
    let project = two();
    project.ok(&[]);
    project.edit("pipeline.yaml", "take: 2", "take: 3");
    insta::assert_snapshot!(project.says(&["plan"]), @r"
    exit 0
    ----- stdout -----
      head      run: its command changed
      count     not known before `head` is done

    1 stage to run, 1 stage that may follow
    ");
    assert_eq!(project.output(&["plan", "--check"]).status.code(), Some(4));
    insta::assert_snapshot!(project.says(&[]), @r"
    exit 0
    ----- stdout -----
    demo, profile default

      head      runs: its command changed
      head      done in [TIME]
      count     runs: input `lines` changed: [DIGEST] -> [DIGEST]
      count     done in [TIME]

      head      ran [TIME]
      count     ran [TIME]

      gate  count lines       3  wanted >= 1  holds

      done in [TIME], 2 stages ran
      results  out/default/
    ");
    project.edit("pipeline.yaml", "take: 3", "take: 2");
    insta::assert_snapshot!(project.says(&[]), @r"
    exit 0
    ----- stdout -----
    demo, profile default

      head      restored from the store, took [TIME] when made
      count     restored from the store, took [TIME] when made

      head      restored
      count     restored

      gate  count lines       2  wanted >= 1  holds

      done in [TIME], 0 stages ran
      results  out/default/
    ");
    assert_eq!(project.read("out/default/head/lines.txt"), "one\ntwo\n");
    insta::assert_snapshot!(project.says(&[]), @r"
    exit 0
    ----- stdout -----
    up to date: 2 stages, [TIME]
    ");
}

#[test]
fn what_changes_no_key_runs_nothing() {
    let project = two();
    project.ok(&[]);
    for (from, to) in [
        ("name: demo", "name: demo # a comment"),
        (">= 1", ">= 2"),
        ("params: { take: 2 }", "params:\n  \"take\": 2"),
        ("{ text: ./words.txt }", "{ text: './words.txt' }"),
        ("gates:", "retries: 3\n    timeout: 10m\n    gates:"),
    ] {
        project.edit("pipeline.yaml", from, to);
        let said = project.ok(&[]);
        assert!(said.starts_with("up to date: 2 stages"), "{to}: {said}");
    }
}

#[test]
fn equal_bytes_stop_the_ripple() {
    let project = two();
    project.ok(&[]);
    // The third line is not among those taken.
    project.edit("words.txt", "three", "drei");
    insta::assert_snapshot!(project.says(&[]), @r"
    exit 0
    ----- stdout -----
    demo, profile default

      head      runs: input `text` changed: [DIGEST] -> [DIGEST]
      head      done in [TIME], same bytes as before

      head      ran, same bytes [TIME]
      1 stage up to date

      gate  count lines       2  wanted >= 1  holds

      done in [TIME], 1 stage ran
      results  out/default/
    ");
}

#[test]
fn a_broken_gate_has_its_own_exit_code_and_stops_what_is_below() {
    let project = two();
    project.edit("pipeline.yaml", ">= 1", ">= 5");
    let more = "  after:\n    run: cp ${inputs.it} ${outputs.it}\n    inputs: { it: count }\n    outputs: { it: it.json }\n";
    let text = project.read("pipeline.yaml");
    project.write("pipeline.yaml", &format!("{text}{more}"));
    insta::assert_snapshot!(project.says(&[]), @r"
    exit 3
    ----- stdout -----
    demo, profile default

      head      runs: it has no result yet
      head      done in [TIME]
      count     runs: it has no result yet
      count     done in [TIME]
      count     gate: lines is 2, wanted >= 5
      after     skipped: `count` does not pass its gate on `lines`

      head      ran [TIME]
      count     ran [TIME]
      1 stage skipped

      gate  count lines       2  wanted >= 5  broken

      a gate is broken in [TIME], 2 stages ran
      results  out/default/
      next     tunesmith explain count
    ");
}

#[test]
fn deleted_results_come_back_and_edited_ones_are_kept() {
    let project = two();
    project.ok(&[]);
    std::fs::remove_file(project.at("out/default/head/lines.txt")).expect("it is there");
    project.ok(&[]);
    assert_eq!(project.read("out/default/head/lines.txt"), "one\ntwo\n");

    project.write("out/default/head/lines.txt", "mine\n");
    insta::assert_snapshot!(project.says(&[]), @r"
    exit 0
    ----- stdout -----
    demo, profile default

      note: the results of `head` were modified by hand: `lines.txt` (out::modified)
    up to date: 2 stages, [TIME]
    ");
    assert_eq!(project.read("out/default/head/lines.txt"), "mine\n");

    project.edit("pipeline.yaml", "take: 2", "take: 1");
    insta::assert_snapshot!(project.says(&["run", "head"]), @r"
    exit 0
    ----- stdout -----
    demo, profile default

      head      runs: its command changed
      note: `out/default/head/lines.txt` was modified by hand: kept as `out/.kept/default/head/lines.txt` (out::kept)
      head      done in [TIME]

      head      ran [TIME]

      done in [TIME], 1 stage ran
      results  out/default/
    ");
    assert_eq!(project.read("out/default/head/lines.txt"), "one\n");
    assert_eq!(project.read("out/.kept/default/head/lines.txt"), "mine\n");
}

#[test]
fn a_blob_that_went_bad_is_made_again() {
    let project = two();
    project.ok(&[]);
    for (path, _) in project.files(".tunesmith/store/blobs") {
        let place = project.at(".tunesmith/store/blobs").join(&path);
        std::fs::remove_file(&place).expect("a blob");
        std::fs::write(&place, "rot").expect("a file");
    }
    let said = project.ok(&[]);
    assert!(said.contains("runs: its output `lines` is"), "{said}");
    assert_eq!(
        project.files(".tunesmith/store/quarantine").len(),
        3,
        "for people to look at"
    );
    assert_eq!(project.read("out/default/head/lines.txt"), "one\ntwo\n");
    project.verify();
}

#[test]
fn one_page_about_a_stage() {
    let project = two();
    insta::assert_snapshot!(project.says(&["explain", "count"]), @r#"
    exit 0
    ----- stdout -----
    count  run: printf '{"lines": %s}\n' "$(wc -l < ${inputs.lines})" > ${outputs.metrics}

      state     not known before `head` is done: same bytes, and it stays
      inputs    lines: head
    "#);
    project.ok(&[]);
    insta::assert_snapshot!(project.says(&["explain", "count"]), @r#"
    exit 0
    ----- stdout -----
    count  run: printf '{"lines": %s}\n' "$(wc -l < ${inputs.lines})" > ${outputs.metrics}

      state     up to date
      inputs    lines: head
      made      [WHEN] in [TIME] on [HOST] by tunesmith [VERSION]
      outputs   metrics: out/default/count/metrics.json  (13 B, [DIGEST])
      metrics   lines 2  gate >= 1
      log       .tunesmith/logs/default/count.log
    "#);
    insta::assert_snapshot!(project.says(&["log", "count"]), @r#"
    exit 0
    ----- stdout -----
    # stage count of profile default, try 1
    # key [DIGEST]
    # because it has no result yet
    # run printf '{"lines": %s}\n' "$(wc -l < inputs/lines/lines.txt)" > metrics.json
    "#);
}

#[test]
fn a_stage_sees_its_inputs_and_the_declared_environment_only() {
    let project = Project::new(
        r#"
name: demo
stages:
  look:
    run: |
      find . -type f ! -name files.txt | sort > files.txt
      env | cut -d= -f1 | grep -vE '^(PWD|SHLVL|_|OLDPWD)$' | sort > names.txt
      echo "$LANG $TZ $MODE" >> names.txt
    inputs: { script: ./tools/a.sh, outer: DIR/elsewhere.txt, many: [x/1.txt, ./x/2.txt] }
    outputs: { files: files.txt, names: names.txt }
    env: { MODE: fast }
"#,
    );
    for path in [
        "tools/a.sh",
        "tools/b.sh",
        "elsewhere.txt",
        "x/1.txt",
        "x/2.txt",
        "x/3.txt",
    ] {
        project.write(path, path);
    }
    project.ok(&[]);
    insta::assert_snapshot!(project.read("out/default/look/files.txt"), @r"
    ./inputs/outer/elsewhere.txt
    ./tools/a.sh
    ./x/1.txt
    ./x/2.txt
    ");
    insta::assert_snapshot!(project.read("out/default/look/names.txt"), @r"
    HOME
    LANG
    MODE
    PATH
    TUNESMITH_CHECKPOINT
    TZ
    C.UTF-8 UTC fast
    ");
}

#[test]
fn sets_and_profiles_have_results_of_their_own() {
    let project = two();
    project.ok(&[]);
    let lock = project.read("pipeline.lock");
    project.ok(&["run", "--set", "take=1"]);
    assert_eq!(project.read("out/default/head/lines.txt"), "one\n");
    assert_eq!(
        project.read("pipeline.lock"),
        lock,
        "`--set` writes no lock"
    );
    project.edit(
        "pipeline.yaml",
        "params:",
        "profiles: { small: { take: 1 }, big: { take: 4 } }\nparams:",
    );
    project.ok(&["--profile", "big"]);
    assert_eq!(project.read("out/big/head/lines.txt").lines().count(), 4);
    let said = project.ok(&["run", "--profile", "small"]);
    assert!(
        said.contains("restored"),
        "another profile has made these bytes: {said}"
    );
}

#[test]
fn locked_runs_use_what_the_lock_names_or_fail() {
    let project = two();
    insta::assert_snapshot!(project.says(&["run", "--locked"]), @r"
    exit 5
    ----- stdout -----
    demo, profile default

      head      failed after [TIME]
                locked::no-result: `pipeline.lock` has no result of `head` under profile `default`
                  at pipeline.yaml:5:3
                mend run once without `--locked` and commit `pipeline.lock`
      count     skipped: `head` failed

      head      failed [TIME]
      1 stage skipped

      failed in [TIME], 0 stages ran
    ");
    project.ok(&[]);
    project.ok(&["run", "--locked"]);
    project.edit("words.txt", "one", "eins");
    assert_eq!(project.output(&["run", "--locked"]).status.code(), Some(5));
    let plan = project.says(&["plan", "--locked"]);
    assert!(
        plan.starts_with("exit 5") && plan.contains("locked::not-in-store"),
        "{plan}"
    );
}

#[test]
fn forcing_a_stage_runs_it_alone_when_its_bytes_stay() {
    let project = two();
    project.ok(&[]);
    insta::assert_snapshot!(project.says(&["run", "--force", "head"]), @r"
    exit 0
    ----- stdout -----
    demo, profile default

      head      runs: it is forced
      head      done in [TIME], same bytes as before

      head      ran, same bytes [TIME]
      1 stage up to date

      gate  count lines       2  wanted >= 1  holds

      done in [TIME], 1 stage ran
      results  out/default/
    ");
}

#[test]
fn a_stage_that_acts_outside_runs_only_when_named() {
    let project = two();
    let more = "  send:\n    run: cat ${inputs.it} >> DIR/sent; touch ${outputs.receipt}\n    inputs: { it: count }\n    outputs: { receipt: receipt }\n    effect: external\n";
    let text = project.read("pipeline.yaml");
    project.write("pipeline.yaml", &format!("{text}{more}"));
    insta::assert_snapshot!(project.says(&[]), @r"
    exit 0
    ----- stdout -----
    demo, profile default

      head      runs: it has no result yet
      head      done in [TIME]
      count     runs: it has no result yet
      count     done in [TIME]

      head      ran [TIME]
      count     ran [TIME]
      send      ready, when you name it

      gate  count lines       2  wanted >= 1  holds

      done in [TIME], 2 stages ran
      results  out/default/
      next     tunesmith run send
    ");
    assert_eq!(project.marks("sent").len(), 0);
    insta::assert_snapshot!(project.says(&["run", "send"]), @r"
    exit 0
    ----- stdout -----
    demo, profile default

      send      runs: it is named, and acts on the outside
      send      done in [TIME]

      send      ran [TIME]
      2 stages up to date

      gate  count lines       2  wanted >= 1  holds

      done in [TIME], 1 stage ran
      results  out/default/
    ");
    assert_eq!(project.marks("sent").len(), 1);
    insta::assert_snapshot!(project.says(&["plan", "send"]), @r"
    exit 0
    ----- stdout -----
      head      up to date
      count     up to date
      send      run: it is named, and acts on the outside

    1 stage to run, 2 stages up to date
    ");
}

#[test]
fn events_as_json_lines_are_the_recorded_ones() {
    let project = two();
    let said = project.output(&["run", "--json"]).stdout;
    let said = String::from_utf8(said).expect("JSON is UTF-8");
    let types: Vec<_> = said
        .lines()
        .map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
            event["type"].as_str().expect("a type").to_owned()
        })
        .collect();
    insta::assert_snapshot!(types.join("\n"), @r"
    run-started
    stage-started
    stage-done
    stage-started
    stage-done
    gate
    run-finished
    ");
    assert_eq!(project.read(".tunesmith/runs/1.jsonl"), said);
}

#[test]
fn a_new_project_runs_as_it_stands() {
    let project = Project::new("");
    std::fs::remove_file(project.at("pipeline.yaml")).expect("it is there");
    insta::assert_snapshot!(project.says(&["init", "mine"]), @r"
    exit 0
    ----- stdout -----
    made
      pipeline.yaml
      data/phrases.txt
      .gitignore

      next     cd mine && tunesmith run
    ");
    let said = project.ok(&["-C", "mine"]);
    assert!(said.contains("2 stages ran"), "{said}");
    assert_eq!(project.output(&["init", "mine"]).status.code(), Some(2));
}

#[test]
fn collecting_keeps_the_last_results() {
    let project = two();
    project.ok(&[]);
    project.edit("pipeline.yaml", "take: 2", "take: 3");
    project.ok(&[]);
    let said = project.ok(&["cache", "gc", "--days", "0"]);
    assert!(said.starts_with("dropped 2 records"), "{said}");
    let said = project.ok(&[]);
    assert!(said.starts_with("up to date: 2 stages"), "{said}");
    project.verify();
}
