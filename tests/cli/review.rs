//! People decide about rows: the whole way from a run that waits to one that goes through.

use std::io::Write as _;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use super::builtin::worker;
use super::project::Project;

const PIPELINE: &str = r#"
name: reviewed
stages:
  written:
    run: cp ${inputs.rows} ${outputs.rows}
    inputs: { rows: ./rows.jsonl }
    outputs: { rows: made/rows.jsonl }
  validate:
    uses: validate
    inputs: { rows: written, tools: ./tools.yaml, decisions: ./data/review/written.jsonl }
    with: { min_examples: 1, negatives_max: 1, review: 0.5 }
  count:
    run: wc -l < ${inputs.rows} > ${outputs.it}
    inputs: { rows: validate }
    outputs: { it: it.txt }
  side: { run: "echo beside > ${outputs.it}", outputs: { it: it.txt } }
"#;

fn row(at: usize) -> Value {
    json!({
        "id": format!("model-negative-{at}"), "source": "model", "type": "negative",
        "messages": [
            {"role": "user", "content": format!("what is the capital of country {at}?")},
            {"role": "assistant", "content": "I do not know that country."},
        ],
    })
}

fn rows(count: usize) -> String {
    (0..count).fold(String::new(), |text, at| text + &format!("{}\n", row(at)))
}

fn project(pipeline: &str) -> Project {
    let project = Project::new(pipeline);
    project.write("tools.yaml", include_str!("../../data/tools.yaml"));
    project.write("rows.jsonl", &rows(6));
    project
}

/// The command with a worker, an editor that writes politely, and these answers.
fn with_answers(project: &Project, args: &[&str], answers: &str) -> Output {
    let mut command = project.command(args);
    command
        .env("TUNESMITH_WORKER", worker())
        .env_remove("VISUAL")
        .env(
            "EDITOR",
            "sed -i 's/I do not know that country./I have no atlas, sorry./'",
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(answers.as_bytes()).expect("it listens");
    drop(input);
    child.wait_with_output().expect("it ends")
}

fn says(project: &Project, args: &[&str]) -> String {
    project.page(&with_answers(project, args, ""))
}

/// Everything that waits is accepted.
fn accept_all(project: &Project) {
    let listed = with_answers(project, &["review", "--list", "--json"], "");
    let listed = String::from_utf8(listed.stdout).expect("text");
    let name = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("an object");
        row["row"].as_str().expect("a name").to_owned()
    };
    let names: Vec<String> = listed.lines().map(name).collect();
    let mut args = vec!["review", "--accept"];
    args.extend(names.iter().map(|name| &name[..6]));
    let done = with_answers(project, &args, "");
    assert!(done.status.success(), "{}", project.page(&done));
}

#[test]
fn a_run_waits_and_everybody_says_so() {
    let project = project(PIPELINE);
    insta::assert_snapshot!(says(&project, &["run", "-j1"]), @r#"
    exit 6
    ----- stdout -----
    reviewed, profile default

      written   runs: it has no result yet
      written   done in [TIME]
      validate  waits for people: 2 rows are to be decided on, in data/review/written.jsonl
      count     skipped: `validate` waits for people
      side      runs: it has no result yet
      side      done in [TIME]

      written   ran [TIME]
      validate  waits for people
      side      ran [TIME]
      1 stage skipped

      stopped for people in [TIME], 2 stages ran
      results  out/default/
      next     tunesmith review validate
    "#);
    insta::assert_snapshot!(says(&project, &["plan"]), @r#"
    exit 0
    ----- stdout -----
      written   up to date
      validate  waits for people: 2 rows are to be decided on, in data/review/written.jsonl
      count     not known before `validate` is done
      side      up to date

    1 stage that may follow, 2 stages up to date, 1 stage waiting for people
    "#);
    insta::assert_snapshot!(says(&project, &["plan", "--check", "--json"]), @r#"
    exit 6
    ----- stdout -----
    {"stage":"written","outcome":"fresh","key":"[DIGEST]"}
    {"stage":"validate","outcome":"people","key":"[DIGEST]","rows":2,"decisions":"data/review/written.jsonl"}
    {"stage":"count","outcome":"unknown","until":["validate"]}
    {"stage":"side","outcome":"fresh","key":"[DIGEST]"}
    "#);
    insta::assert_snapshot!(says(&project, &["explain", "validate"]), @r#"
    exit 0
    ----- stdout -----
    validate  uses validate: parses every answer, checks every call, compares the composition with the plan

      state     waits for people: 2 rows are to be decided on, in data/review/written.jsonl
      next      tunesmith review validate
      inputs    rows: written
                tools: tools.yaml
                decisions: data/review/written.jsonl
      read by   count
    "#);
}

#[test]
fn from_review_to_through() {
    let project = project(PIPELINE);
    says(&project, &["run"]);
    let asked = with_answers(&project, &["review"], "what?\ne\nq\n");
    insta::assert_snapshot!(project.page(&asked), @r#"
    exit 6
    ----- stdout -----
    validate, 1 of 2: negative, from model  [DIGEST]
      user       what is the capital of country 1?
      assistant  I do not know that country.
      [a]ccept, [r]eject, [e]dit, [s]kip, [q]uit?   [a]ccept, [r]eject, [e]dit, [s]kip, [q]uit? edited [DIGEST]  what is the capital of country 1?

    validate, 2 of 2: negative, from model  [DIGEST]
      user       what is the capital of country 5?
      assistant  I do not know that country.
      [a]ccept, [r]eject, [e]dit, [s]kip, [q]uit? 1 row waits for a decision
    "#);
    insta::assert_snapshot!(project.read("data/review/written.jsonl"), @r#"{"row":"9926227ba21b","decision":"edit","about":"what is the capital of country 1?","to":{"id":"model-negative-1","source":"model","type":"negative","messages":[{"role":"user","content":"what is the capital of country 1?"},{"role":"assistant","content":"I have no atlas, sorry."}]}}"#);
    insta::assert_snapshot!(says(&project, &["review", "--list"]), @r#"
    exit 6
    ----- stdout -----
    validate, 1 of 1: negative, from model  [DIGEST]
      user       what is the capital of country 5?
      assistant  I do not know that country.

    1 row waits for a decision
    "#);
    assert!(says(&project, &["run"]).starts_with("exit 6"));
    accept_all(&project);
    insta::assert_snapshot!(says(&project, &["run", "-j1"]), @r#"
    exit 0
    ----- stdout -----
    reviewed, profile default

      validate  runs: it has no result yet
      validate  warning: single rows are 0.0 %, below 35.0 % (validate::composition)
      validate  warning: contrastive rows are 0.0 %, below 8.0 % (validate::composition)
      validate  warning: multi_turn rows are 0.0 %, below 4.0 % (validate::composition)
      validate  warning: crud rows are 0.0 %, below 5.0 % (validate::composition)
      validate  warning: compound rows are 0.0 %, below 4.0 % (validate::composition)
      validate  warning: general rows are 0.0 %, below 5.0 % (validate::composition)
      validate  done in [TIME]
                6 rows, 0 duplicates dropped, longest about 481 tokens
                reviewed: 1 accepted, 1 edited, 0 rejected
                single           0 rows   0.0 %   plan: 400-500 of 800-1,000: 40-60 %
                contrastive      0 rows   0.0 %   plan: 60-80 pairs: about 15 %
                negative         6 rows 100.0 %   plan: 10-15 %
                multi_turn       0 rows   0.0 %   plan: 100-150 of 800-1,000: about 12 %
                crud             0 rows   0.0 %   plan: 50-75 for each of the four id tools
                compound         0 rows   0.0 %   plan: 50-80 of 800-1,000: about 7 %
                general          0 rows   0.0 %   plan: about 10 %
      count     runs: it has no result yet
      count     done in [TIME]

      validate  ran [TIME]
      count     ran [TIME]
      2 stages up to date

      done in [TIME], 2 stages ran
      results  out/default/
    "#);
    let rows = project.read("out/default/validate/rows.jsonl");
    assert_eq!(rows.lines().count(), 6, "{rows}");
    assert!(rows.contains("I have no atlas, sorry."), "{rows}");
    insta::assert_snapshot!(says(&project, &["run"]), @r#"
    exit 0
    ----- stdout -----
    up to date: 4 stages, [TIME]
    "#);
    insta::assert_snapshot!(says(&project, &["review"]), @r#"
    exit 0
    ----- stdout -----
    nothing waits for people
    "#);
    project.verify();
}

#[test]
fn a_decision_reruns_what_it_changes_and_rows_that_come_undo_none() {
    let project = project(PIPELINE);
    says(&project, &["run"]);
    accept_all(&project);
    assert!(says(&project, &["run"]).starts_with("exit 0"));
    // The same rows come out: nothing below runs.
    let decided = project.read("data/review/written.jsonl");
    let name = &decided[8..20];
    let line = decided.lines().next().expect("a decision");
    project.write(
        "data/review/written.jsonl",
        &decided.replace(line, &line.replace('?', "")),
    );
    insta::assert_snapshot!(says(&project, &["run", "-j1"]), @r#"
    exit 0
    ----- stdout -----
    reviewed, profile default

      validate  runs: input `decisions` changed: [DIGEST] -> [DIGEST]
      validate  warning: single rows are 0.0 %, below 35.0 % (validate::composition)
      validate  warning: contrastive rows are 0.0 %, below 8.0 % (validate::composition)
      validate  warning: multi_turn rows are 0.0 %, below 4.0 % (validate::composition)
      validate  warning: crud rows are 0.0 %, below 5.0 % (validate::composition)
      validate  warning: compound rows are 0.0 %, below 4.0 % (validate::composition)
      validate  warning: general rows are 0.0 %, below 5.0 % (validate::composition)
      validate  done in [TIME], same bytes as before
                6 rows, 0 duplicates dropped, longest about 481 tokens
                reviewed: 2 accepted, 0 edited, 0 rejected
                single           0 rows   0.0 %   plan: 400-500 of 800-1,000: 40-60 %
                contrastive      0 rows   0.0 %   plan: 60-80 pairs: about 15 %
                negative         6 rows 100.0 %   plan: 10-15 %
                multi_turn       0 rows   0.0 %   plan: 100-150 of 800-1,000: about 12 %
                crud             0 rows   0.0 %   plan: 50-75 for each of the four id tools
                compound         0 rows   0.0 %   plan: 50-80 of 800-1,000: about 7 %
                general          0 rows   0.0 %   plan: about 10 %

      validate  ran, same bytes [TIME]
      3 stages up to date

      done in [TIME], 1 stage ran
      results  out/default/
    "#);
    // Another mind about a row.
    insta::assert_snapshot!(says(&project, &["review", "--reject", name]), @r#"
    exit 0
    ----- stdout -----
    rejected [DIGEST]  what is the capital of country 1
    nothing waits any more; next: tunesmith run
    "#);
    let again = says(&project, &["run", "-j1"]);
    assert!(
        again.starts_with("exit 0") && again.contains("1 rejected"),
        "{again}"
    );
    assert_eq!(project.read("out/default/count/it.txt").trim(), "5");
    // More rows: only those among them that the seed chooses are asked about.
    project.write("rows.jsonl", &rows(12));
    let waits = says(&project, &["run", "-j1"]);
    assert!(waits.starts_with("exit 6"), "{waits}");
    let listed = says(&project, &["review", "--list", "--json"]);
    for at in 0..6 {
        let old = format!("capital of country {at}?");
        assert!(!listed.contains(&old), "{listed}");
    }
}

#[test]
fn a_failure_outranks_people_and_hinders_no_review() {
    let pipeline = PIPELINE.replace("echo beside", "exit 3; echo beside");
    let project = project(&pipeline);
    let said = says(&project, &["run", "--keep-going", "-j1"]);
    assert!(said.starts_with("exit 1"), "{said}");
    assert!(said.contains("waits for people"), "{said}");
    assert!(says(&project, &["review", "--list"]).starts_with("exit 6"));
}

#[test]
fn the_stream_and_the_commands_tell_it_as_data() {
    let project = project(PIPELINE);
    let run = with_answers(&project, &["run", "--json", "-j1"], "");
    assert_eq!(run.status.code(), Some(6));
    let text = String::from_utf8(run.stdout).expect("text");
    let told = text
        .lines()
        .filter(|line| line.contains("stage-people") || line.contains("run-finished"));
    let told: Vec<Value> = told
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect();
    assert_eq!(told[0]["stage"], "validate");
    assert_eq!(told[0]["file"], "data/review/written.jsonl");
    assert_eq!(told[0]["place"], "pipeline.yaml:10:62");
    assert_eq!(told[1]["status"], "people");
    assert_eq!(told[1]["ran"], 2);
    let listed = with_answers(&project, &["review", "--json"], "");
    let listed = String::from_utf8(listed.stdout).expect("text");
    let rows: Vec<Value> = listed
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect();
    assert_eq!(json!(rows.len()), told[0]["rows"]);
    assert_eq!(rows[0]["content"]["source"], "model");
    let name = rows[0]["row"].as_str().expect("a name");
    insta::assert_snapshot!(says(&project, &["review", "--json", "--edit", name]), @r#"
    exit 6
    ----- stdout -----
    {"stage":"validate","row":"[DIGEST]","decision":"edit","about":"what is the capital of country 1?","to":{"id":"model-negative-1","source":"model","type":"negative","messages":[{"role":"user","content":"what is the capital of country 1?"},{"role":"assistant","content":"I have no atlas, sorry."}]}}
    "#);
}

#[test]
fn what_is_wrong_is_said_with_a_mend() {
    let project = project(PIPELINE);
    insta::assert_snapshot!(says(&project, &["review"]), @r#"
    exit 0
    ----- stdout -----
    `validate`: not known before `written` is done
    "#);
    says(&project, &["run"]);
    insta::assert_snapshot!(says(&project, &["review", "--accept", "zzz"]), @r#"
    exit 2
    ----- stderr -----
    review::row

      × no row `zzz` waits or was decided about
      help: `tunesmith review --list` names the rows that wait
    "#);
    // Two branches of mind, merged.
    let line = |word: &str| format!("{{\"row\":\"0123456789ab\",\"decision\":\"{word}\"}}\n");
    project.write(
        "data/review/written.jsonl",
        &(line("accept") + &line("reject")),
    );
    insta::assert_snapshot!(says(&project, &["run", "-j1"]), @r#"
    exit 1
    ----- stdout -----
    reviewed, profile default

      validate  runs: it has no result yet
      validate  failed after [TIME]
                review::decisions: written.jsonl:2: `[DIGEST]` is decided otherwise in line 1
                  at pipeline.yaml:10:62
                mend mend or remove these lines; `tunesmith review` asks about their rows again
      count     skipped: `validate` failed

      validate  failed [TIME]
      2 stages up to date
      1 stage skipped

      failed in [TIME], 0 stages ran
      next     tunesmith log validate
    "#);
    let unsaid = PIPELINE.replace(", decisions: ./data/review/written.jsonl", "");
    project.write("pipeline.yaml", &unsaid);
    insta::assert_snapshot!(says(&project, &["check"]), @r#"
    exit 2
    ----- stderr -----
    validate::no-decisions

      × stage `validate`: people review rows, and nothing says where their decisions lie
        ╭─[pipeline.yaml:11:56]
     11 │     with: { min_examples: 1, negatives_max: 1, review: 0.5 }
        ·                                                        ───
        ╰────
      help: add `decisions: ./data/review/decisions.jsonl` under `inputs`; the file need not exist yet
    "#);
    let made = PIPELINE.replace(
        "decisions: ./data/review/written.jsonl",
        "decisions: written",
    );
    project.write("pipeline.yaml", &made);
    insta::assert_snapshot!(says(&project, &["check"]), @r#"
    exit 2
    ----- stderr -----
    validate::decisions-of-a-stage

      × stage `validate`: decisions are people's: no stage makes them
        ╭─[pipeline.yaml:10:62]
     10 │     inputs: { rows: written, tools: ./tools.yaml, decisions: written }
        ·                                                              ───────
        ╰────
      help: name a file of the project; `tunesmith review` writes it
    "#);
}

/// Whoever has the rows only at the remote is told so all the same: by the stage, once its rows came.
#[test]
fn rows_that_come_from_a_remote_wait_too() {
    let pipeline = PIPELINE.replace("name: reviewed", "name: reviewed\nremote: DIR/far");
    let project = project(&pipeline);
    says(&project, &["run"]);
    project.ok(&["cache", "push", "written"]);
    std::fs::remove_dir_all(project.at(".tunesmith")).expect("removed");
    std::fs::remove_dir_all(project.at("out")).expect("removed");
    insta::assert_snapshot!(says(&project, &["run", "count"]), @r#"
    exit 6
    ----- stdout -----
    reviewed, profile default

      written   restored from the remote, took [TIME] when made
      validate  waits for people: 2 rows are to be decided on, in data/review/written.jsonl
      count     skipped: `validate` waits for people

      written   restored
      validate  waits for people
      1 stage skipped

      stopped for people in [TIME], 0 stages ran
      results  out/default/
      next     tunesmith review validate
    "#);
}
