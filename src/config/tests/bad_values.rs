//! Values that do not fit, and texts that are no YAML.

use insta::assert_snapshot;

use super::{STAGES, drawn, folder, refused};
use crate::config::Overrides;
use crate::graph;

#[test]
fn wrong_types_of_parameters() {
    assert_snapshot!(refused(
        "name: a
stages:
  raw:
    uses: fetch
    with:
      dataset: glaive
      take: many
      revision: 7e10
      files: config.json
  model:
    uses: train
    inputs: { base: raw, rows: raw }
    with: { r: 1000, resume: yes, method: dora, schedule: cosine, alpha: '32' }
"
    ), @r##"
    config::wrong-type

      × `take` takes a whole number from 1 to 1000, not `"many"`
       ╭─[pipeline.yaml:7:13]
     7 │       take: many
       ·             ──┬─
       ·               ╰── does not fit
       ╰────
      help: a parameter of the test

    config::wrong-type

      × `revision` takes text, not `70000000000.0`
       ╭─[pipeline.yaml:8:17]
     8 │       revision: 7e10
       ·                 ──┬─
       ·                   ╰── does not fit
       ╰────
      help: put it in quotes: unquoted it is no text

    config::wrong-type

      × `files` takes a list of texts, not `"config.json"`
       ╭─[pipeline.yaml:9:14]
     9 │       files: config.json
       ·              ─────┬─────
       ·                   ╰── does not fit
       ╰────
      help: write `[config.json]`

    config::wrong-type

      × `r` takes a whole number from 1 to 256, not `1000`
        ╭─[pipeline.yaml:13:16]
     13 │     with: { r: 1000, resume: yes, method: dora, schedule: cosine, alpha: '32' }
        ·                ──┬─
        ·                  ╰── does not fit
        ╰────
      help: a parameter of the test

    config::wrong-type

      × `resume` takes true or false, not `"yes"`
        ╭─[pipeline.yaml:13:30]
     13 │     with: { r: 1000, resume: yes, method: dora, schedule: cosine, alpha: '32' }
        ·                              ─┬─
        ·                               ╰── does not fit
        ╰────
      help: write `true` or `false`, unquoted

    config::wrong-type

      × `method` takes one of `lora`, `qlora`, not `"dora"`
        ╭─[pipeline.yaml:13:43]
     13 │     with: { r: 1000, resume: yes, method: dora, schedule: cosine, alpha: '32' }
        ·                                           ──┬─
        ·                                             ╰── does not fit
        ╰────
      help: a parameter of the test

    config::wrong-type

      × `schedule` takes a map, not `"cosine"`
        ╭─[pipeline.yaml:13:59]
     13 │     with: { r: 1000, resume: yes, method: dora, schedule: cosine, alpha: '32' }
        ·                                                           ───┬──
        ·                                                              ╰── does not fit
        ╰────
      help: a parameter of the test

    config::wrong-type

      × `alpha` takes a number from 0 to 1024, not `"32"`
        ╭─[pipeline.yaml:13:74]
     13 │     with: { r: 1000, resume: yes, method: dora, schedule: cosine, alpha: '32' }
        ·                                                                          ──┬─
        ·                                                                            ╰── does not fit
        ╰────
      help: write it without quotes

    8 faults
    "##);
}

#[test]
fn wrong_types_of_keys() {
    assert_snapshot!(refused(
        "name: 7
seed: -1
stages:
  raw:
    uses: fetch
    with: { dataset: glaive }
    retries: lots
    timeout: 10
  model:
    uses: train
    inputs: { base: [raw, raw], rows: raw }
    gates: { loss: 0.5 }
    secrets: { a: b }
"
    ), @r##"
    config::wrong-type

      × `name` takes text, not the number `7`
       ╭─[pipeline.yaml:1:7]
     1 │ name: 7
       ·       ┬
       ·       ╰── expected text
       ╰────
      help: put it in quotes

    config::wrong-type

      × `seed` takes a whole number from 0, not `-1`
       ╭─[pipeline.yaml:2:7]
     2 │ seed: -1
       ·       ─┬
       ·        ╰── expected a whole number from 0
       ╰────
      help: write a number in that range

    config::wrong-type

      × `retries` takes a whole number from 0 to 100, not `"lots"`
       ╭─[pipeline.yaml:7:14]
     7 │     retries: lots
       ·              ──┬─
       ·                ╰── expected a whole number from 0 to 100
       ╰────
      help: write a number in that range

    config::wrong-type

      × `timeout` takes a time with a unit, not `10`
       ╭─[pipeline.yaml:8:14]
     8 │     timeout: 10
       ·              ─┬
       ·               ╰── expected a time with a unit
       ╰────
      help: write `90s`, `10m` or `1h30m`

    config::wrong-type

      × input `base` takes one thing, not a list
        ╭─[pipeline.yaml:11:21]
     11 │     inputs: { base: [raw, raw], rows: raw }
        ·                     ─────┬────
        ·                          ╰── a list
        ╰────
      help: name one stage or path

    config::wrong-type

      × `loss` takes a bound, `>=` or `<=` and a number, not `0.5`
        ╭─[pipeline.yaml:12:20]
     12 │     gates: { loss: 0.5 }
        ·                    ─┬─
        ·                     ╰── expected a bound, `>=` or `<=` and a number
        ╰────
      help: write `loss: ">= 0.5"`

    config::wrong-type

      × `secrets` takes text, not a map
        ╭─[pipeline.yaml:13:14]
     13 │     secrets: { a: b }
        ·              ────┬───
        ·                  ╰── expected text
        ╰────
      help: write one text

    7 faults
    "##);
}

#[test]
fn two_actions_or_none() {
    assert_snapshot!(refused(
        "name: a
default: [rwa]
stages:
  \"a/b\":
    uses: fetch
    run: ls
  none: {}
  quiet:
    run: ls
"
    ), @r##"
    config::unknown-stage

      × there is no stage `rwa`
       ╭─[pipeline.yaml:2:11]
     2 │ default: [rwa]
       ·           ───
       ╰────
      help: known stages: a/b, none, quiet

    config::bad-name

      × `a/b` is no stage name
       ╭─[pipeline.yaml:4:3]
     4 │   "a/b":
       ·   ─────
       ╰────
      help: use letters, digits, `-`, `_` and `.`: it names a folder

    config::two-actions

      × stage `a/b` has both `uses` and `run`
       ╭─[pipeline.yaml:6:5]
     5 │     uses: fetch
       ·     ──┬─
       ·       ╰── and here
     6 │     run: ls
       ·     ───
       ╰────
      help: keep one of them

    config::no-action

      × stage `none` does nothing
       ╭─[pipeline.yaml:7:3]
     7 │   none: {}
       ·   ────
       ╰────
      help: add `uses:` with a built-in stage, or `run:` with a command

    config::missing-field

      × stage `quiet` declares no outputs
       ╭─[pipeline.yaml:9:5]
     9 │     run: ls
       ·     ───
       ╰────
      help: add `outputs: {name: path}`: what the command writes

    5 faults
    "##);
}

#[test]
fn outputs_pools_and_variables() {
    assert_snapshot!(refused(
        "name: a
pools: { gpu: 1 }
stages:
  big:
    run: ls > ${outputs.o}
    outputs: { o: o, p: o/p }
    resources: { gpu: 2 }
    env: { \"A-B\": 1, C: [1] }
    secrets: [C]
    retries: '2'
    profiles: [laptop]
"
    ), @r##"
    config::bad-output

      × `o/p` lies in or over the output `o`
       ╭─[pipeline.yaml:6:25]
     6 │     outputs: { o: o, p: o/p }
       ·                         ───
       ╰────
      help: give each output a path of its own below the scratch folder

    config::resources

      × stage `big` wants 2 slots of a pool of 1
       ╭─[pipeline.yaml:7:5]
     7 │     resources: { gpu: 2 }
       ·     ─────────
       ╰────
      help: enlarge the pool under `pools`, or ask for less

    config::bad-name

      × `A-B` is no name of an environment variable
       ╭─[pipeline.yaml:8:12]
     8 │     env: { "A-B": 1, C: [1] }
       ·            ─────
       ╰────
      help: use letters, digits and `_`

    config::wrong-type

      × `C` takes one value, not a list
       ╭─[pipeline.yaml:8:25]
     8 │     env: { "A-B": 1, C: [1] }
       ·                         ─┬─
       ·                          ╰── expected one value
       ╰────
      help: write one value; `""` for an empty one

    config::wrong-type

      × `retries` takes a whole number from 0 to 100, not `"2"`
        ╭─[pipeline.yaml:10:14]
     10 │     retries: '2'
        ·              ─┬─
        ·               ╰── expected a whole number from 0 to 100
        ╰────
      help: write it without quotes

    config::unknown-profile

      × there is no profile `laptop`
        ╭─[pipeline.yaml:11:16]
     11 │     profiles: [laptop]
        ·                ──────
        ╰────
      help: there are no profiles here

    6 faults
    "##);
}

#[test]
fn syntax_errors_have_a_place() {
    for yaml in [
        "name: [a",
        "a: b: c",
        "a:\n\t- b",
        "\"open",
        "- a\nb: c",
        "*x",
        "a: &x [*x]",
        "--- a\n--- b",
    ] {
        let faults = super::open(yaml).map(drop).expect_err(yaml);
        let fault = &faults.items[0];
        let span = fault.span.clone().expect("a place");
        assert!(
            span.end <= yaml.len() && !fault.mend.is_empty(),
            "{yaml}: {fault:?}"
        );
    }
    assert_snapshot!(refused("name: a\nstages:\n  raw:\n    uses: fetch\n   with: {}\n"), @r##"
    config::syntax

      × while parsing a block mapping, did not find expected key
       ╭─[pipeline.yaml:5:4]
     5 │    with: {}
       ·    ▲
       ·    ╰── here
       ╰────
      help: check indentation, quotes and brackets at and above this line
    "##);
}

#[test]
fn an_unquoted_expression_inside_braces() {
    assert_snapshot!(refused(
        "name: a
params: { rank: 1 }
stages:
  m:
    uses: train
    with: { r: ${rank}, lr: 1 }
"
    ), @r##"
    config::syntax

      × while parsing a flow mapping, did not find expected ',' or '}'
       ╭─[pipeline.yaml:6:17]
     6 │     with: { r: ${rank}, lr: 1 }
       ·                 ▲
       ·                 ╰── here
       ╰────
      help: inside `{ }` and `[ ]` put `${..}` in quotes: `{ r: "${rank}" }`
    "##);
}

#[test]
fn a_file_that_is_no_text_or_not_there() {
    let folder = folder(b"name: a\nx: \xff\n");
    let file = folder.path().join("pipeline.yaml");
    let overrides = Overrides::default();
    let faults = graph::open(&file, &overrides, &STAGES)
        .err()
        .expect("no UTF-8");
    assert_snapshot!(drawn(faults), @r##"
    config::not-utf8

      × the file is not UTF-8 from here on
       ╭─[pipeline.yaml:2:4]
     2 │ x: �
       ·    ▲
       ╰────
      help: save it as UTF-8
    "##);
    let faults = graph::open(&folder.path().join("no.yaml"), &overrides, &STAGES);
    let faults = faults.err().expect("no file");
    assert_eq!(faults.items[0].code, "config::unreadable");
    let faults = crate::config::find(folder.path().join("data").as_path());
    assert_eq!(faults.ok(), Some(std::path::absolute(&file).unwrap()));
}
