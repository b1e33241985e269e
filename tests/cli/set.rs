//! `tunesmith set`: one value is another, and not a byte beside it.

use super::project::Project;

const FILE: &str = r#"name: demo   # a name
params:
  lr: 2e-4        # found by sweeping
  "rank": 8
profiles:
  small: { lr: 1e-3, seed_of: 1 }   # quick
  large: { seed_of: 2 }
default_profile: large

stages:
  # what trains
  train:
    run: echo ${lr} "$RANK" > ${outputs.it}
    env:
      RANK: ${rank}
      TWICE: "${2 * rank}"
      MODE: 'fast'  # or slow
    outputs: { it: it.txt }
    retries: 1
  last:
    run: cp ${inputs.it} ${outputs.it}
    inputs: { it: train }
    outputs: { it: it.txt }
"#;

fn project() -> Project {
    Project::new(FILE)
}

/// What a command changes: the lines that differ, old and new.
fn changed(project: &Project) -> String {
    let (old, new) = (FILE, project.read("pipeline.yaml"));
    let diff = similar_lines(old, &new);
    project.write("pipeline.yaml", FILE);
    diff
}

fn similar_lines(old: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let same_head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - same_head;
    let tail = old.iter().rev().zip(new.iter().rev()).take(rest);
    let same_tail = tail.take_while(|(a, b)| a == b).count();
    let cut = |lines: &[&str], mark: &str| {
        let lines = &lines[same_head..lines.len() - same_tail];
        lines
            .iter()
            .fold(String::new(), |text, line| text + mark + line + "\n")
    };
    cut(&old, "- ") + &cut(&new, "+ ")
}

#[test]
fn one_value_changes_and_nothing_beside_it() {
    let project = project();
    let set = |args: &[&str]| {
        let said = project.says(&[&["set"], args].concat());
        format!("{said}{}", changed(&project))
    };
    insta::assert_snapshot!(set(&["lr", "5e-5"]), @r"
    exit 0
    ----- stdout -----
    pipeline.yaml:3: params.lr 2e-4 -> 5e-5
    -   lr: 2e-4        # found by sweeping
    +   lr: 5e-5        # found by sweeping
    ");
    insta::assert_snapshot!(set(&["lr", "5e-5", "--profile", "small"]), @r"
    exit 0
    ----- stdout -----
    pipeline.yaml:6: profiles.small.lr 1e-3 -> 5e-5
    -   small: { lr: 1e-3, seed_of: 1 }   # quick
    +   small: { lr: 5e-5, seed_of: 1 }   # quick
    ");
    insta::assert_snapshot!(set(&["rank", "16", "--profile", "small"]), @r"
    exit 0
    ----- stdout -----
    pipeline.yaml:6: profiles.small.rank not set -> 16
    -   small: { lr: 1e-3, seed_of: 1 }   # quick
    +   small: { lr: 1e-3, seed_of: 1, rank: 16 }   # quick
    ");
    insta::assert_snapshot!(set(&["train.env.MODE", "a b: #c"]), @r#"
    exit 0
    ----- stdout -----
    pipeline.yaml:17: stages.train.env.MODE 'fast' -> a b: #c
    -       MODE: 'fast'  # or slow
    +       MODE: "a b: #c"  # or slow
    "#);
    insta::assert_snapshot!(set(&["train.env.RANK", "4"]), @r#"
    exit 0
    ----- stdout -----
    `train.env.RANK` is `${rank}`: sets `params.rank`
    pipeline.yaml:4: params.rank 8 -> 4
    -   "rank": 8
    +   "rank": 4
    "#);
    insta::assert_snapshot!(set(&["train.timeout", "5m"]), @r"
    exit 0
    ----- stdout -----
    pipeline.yaml:19: stages.train.timeout not set -> 5m
    +     timeout: 5m
    ");
    insta::assert_snapshot!(set(&["last.env.MODE", "x"]), @r"
    exit 0
    ----- stdout -----
    pipeline.yaml:23: stages.last.env.MODE not set -> x
    +     env: { MODE: x }
    ");
}

#[test]
fn what_cannot_be_set_says_why_and_the_file_stays() {
    let project = project();
    let set = |args: &[&str]| {
        let said = project.says(&[&["set"], args].concat());
        assert_eq!(project.read("pipeline.yaml"), FILE);
        said
    };
    insta::assert_snapshot!(set(&["train.env.TWICE", "4"]), @r#"
    exit 2
    ----- stderr -----
    set::computed

      × `train.env.TWICE` is computed, `${2 * rank}`: it has no value of its own to set
        ╭─[pipeline.yaml:16:14]
     16 │       TWICE: "${2 * rank}"
        ·              ─────────────
        ╰────
      help: set the parameters in it, or write a value here by hand
    "#);
    insta::assert_snapshot!(set(&["lrr", "4"]), @r"
    exit 2
    ----- stderr -----
    set::unknown

      × there is no parameter `lrr`
      help: did you mean `lr`?
    ");
    insta::assert_snapshot!(set(&["train.retries", "many"]), @r#"
    exit 2
    ----- stderr -----
    config::wrong-type

      × `retries` takes a whole number from 0 to 100, not `"many"`
        ╭─[pipeline.yaml:19:14]
     19 │     retries: many
        ·              ──┬─
        ·                ╰── expected a whole number from 0 to 100
        ╰────
      help: write a number in that range
    "#);
}
