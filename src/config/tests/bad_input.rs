//! One file per slip, and what is said about it.

use insta::assert_snapshot;

use super::super::load::load_text;
use super::{STAGES, drawn, folder, open_with, refused};
use crate::config::Overrides;
use crate::graph;

#[test]
fn unknown_stage_kind() {
    assert_snapshot!(refused(
        "name: a
stages:
  model:
    uses: trian
    inputs: { base: ./data/rows.jsonl, rows: ./data/rows.jsonl }
"
    ), @r#"
    config::unknown-stage-kind

      × unknown stage kind `trian`
       ╭─[pipeline.yaml:4:11]
     4 │     uses: trian
       ·           ──┬──
       ·             ╰── no built-in stage
       ╰────
      help: did you mean `train`?
    "#);
}

#[test]
fn unknown_keys_everywhere() {
    assert_snapshot!(refused(
        "name: a
prams: { lr: 1 }
stages:
  raw:
    uses: fetch
    with: { datset: glaive }
    retrys: 2
    resources: { tpu: 1 }
  b:
    run: cat ${inputs.a} > ${outputs.b}
    input: { a: raw }
    with: { x: 1 }
    outputs: { b: b.txt }
"
    ), @r#"
    config::unknown-key

      × unknown key `prams` in the file
       ╭─[pipeline.yaml:2:1]
     2 │ prams: { lr: 1 }
       · ──┬──
       ·   ╰── unknown
       ╰────
      help: did you mean `params`?

    config::unknown-key

      × unknown parameter `datset`
       ╭─[pipeline.yaml:6:13]
     6 │     with: { datset: glaive }
       ·             ───┬──
       ·                ╰── unknown
       ╰────
      help: did you mean `dataset`?

    config::unknown-key

      × unknown key `retrys` in a stage
       ╭─[pipeline.yaml:7:5]
     7 │     retrys: 2
       ·     ───┬──
       ·        ╰── unknown
       ╰────
      help: did you mean `retries`?

    config::unknown-key

      × unknown key `tpu` in `resources`
       ╭─[pipeline.yaml:8:18]
     8 │     resources: { tpu: 1 }
       ·                  ─┬─
       ·                   ╰── unknown
       ╰────
      help: did you mean `cpu`?

    config::unknown-key

      × unknown key `input` in a stage
        ╭─[pipeline.yaml:11:5]
     11 │     input: { a: raw }
        ·     ──┬──
        ·       ╰── unknown
        ╰────
      help: did you mean `inputs`?

    config::unknown-key

      × `with` belongs to a `uses` stage
        ╭─[pipeline.yaml:12:5]
     12 │     with: { x: 1 }
        ·     ────
        ╰────
      help: leave it out, or change what the stage does

    6 faults
    "#);
}

#[test]
fn wrong_types() {
    assert_snapshot!(refused(
        "name: 7
seed: -1
stages:
  raw:
    uses: fetch
    with:
      dataset: glaive
      take: many
      revision: 7e10
      files: config.json
    retries: lots
    timeout: 10
  model:
    uses: train
    inputs: { base: [raw, raw], rows: raw }
    with: { r: 1000, resume: yes, method: dora, schedule: cosine }
    gates: { loss: 0.5 }
    secrets: { a: b }
"
    ), @r#"
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

      × `take` takes a whole number from 1 to 1000, not `"many"`
       ╭─[pipeline.yaml:8:13]
     8 │       take: many
       ·             ──┬─
       ·               ╰── does not fit
       ╰────
      help: a parameter of the test

    config::wrong-type

      × `revision` takes text, not `70000000000.0`
       ╭─[pipeline.yaml:9:17]
     9 │       revision: 7e10
       ·                 ──┬─
       ·                   ╰── does not fit
       ╰────
      help: put it in quotes: unquoted it is no text

    config::wrong-type

      × `files` takes a list of texts, not `"config.json"`
        ╭─[pipeline.yaml:10:14]
     10 │       files: config.json
        ·              ─────┬─────
        ·                   ╰── does not fit
        ╰────
      help: write `[config.json]`

    config::wrong-type

      × `retries` takes a whole number from 0 to 100, not `"lots"`
        ╭─[pipeline.yaml:11:14]
     11 │     retries: lots
        ·              ──┬─
        ·                ╰── expected a whole number from 0 to 100
        ╰────
      help: write a number in that range

    config::wrong-type

      × `timeout` takes a time with a unit, not `10`
        ╭─[pipeline.yaml:12:14]
     12 │     timeout: 10
        ·              ─┬
        ·               ╰── expected a time with a unit
        ╰────
      help: write `90s`, `10m` or `1h30m`

    config::wrong-type

      × input `base` takes one thing, not a list
        ╭─[pipeline.yaml:15:21]
     15 │     inputs: { base: [raw, raw], rows: raw }
        ·                     ─────┬────
        ·                          ╰── a list
        ╰────
      help: name one stage or path

    config::wrong-type

      × `r` takes a whole number from 1 to 256, not `1000`
        ╭─[pipeline.yaml:16:16]
     16 │     with: { r: 1000, resume: yes, method: dora, schedule: cosine }
        ·                ──┬─
        ·                  ╰── does not fit
        ╰────
      help: a parameter of the test

    config::wrong-type

      × `resume` takes true or false, not `"yes"`
        ╭─[pipeline.yaml:16:30]
     16 │     with: { r: 1000, resume: yes, method: dora, schedule: cosine }
        ·                              ─┬─
        ·                               ╰── does not fit
        ╰────
      help: write `true` or `false`, unquoted

    config::wrong-type

      × `method` takes one of `lora`, `qlora`, not `"dora"`
        ╭─[pipeline.yaml:16:43]
     16 │     with: { r: 1000, resume: yes, method: dora, schedule: cosine }
        ·                                           ──┬─
        ·                                             ╰── does not fit
        ╰────
      help: a parameter of the test

    config::wrong-type

      × `schedule` takes a map, not `"cosine"`
        ╭─[pipeline.yaml:16:59]
     16 │     with: { r: 1000, resume: yes, method: dora, schedule: cosine }
        ·                                                           ───┬──
        ·                                                              ╰── does not fit
        ╰────
      help: a parameter of the test

    config::wrong-type

      × `loss` takes a bound, `>=` or `<=` and a number, not `0.5`
        ╭─[pipeline.yaml:17:20]
     17 │     gates: { loss: 0.5 }
        ·                    ─┬─
        ·                     ╰── expected a bound, `>=` or `<=` and a number
        ╰────
      help: write `loss: ">= 0.5"`

    config::wrong-type

      × `secrets` takes text, not a map
        ╭─[pipeline.yaml:18:14]
     18 │     secrets: { a: b }
        ·              ────┬───
        ·                  ╰── expected text
        ╰────
      help: write one text

    14 faults
    "#);
}

#[test]
fn a_cycle_is_named_stage_by_stage() {
    assert_snapshot!(refused(
        "name: a
stages:
  one:
    run: cp ${inputs.x} ${outputs.y}
    inputs:
      x: three
    outputs: { y: y }
  two:
    run: cp ${inputs.x} ${outputs.y}
    inputs:
      x: one
    outputs: { y: y }
  three:
    run: cp ${inputs.x} ${outputs.y}
    inputs:
      x: two
    outputs: { y: y }
  self:
    run: cp ${inputs.x} ${outputs.y}
    inputs: { x: self }
    outputs: { y: y }
"
    ), @r#"
    graph::cycle

      × stages wait for each other: one reads three reads two reads one
        ╭─[pipeline.yaml:6:10]
      6 │       x: three
        ·          ──┬──
        ·            ╰── `one` reads `three`
      7 │     outputs: { y: y }
      8 │   two:
      9 │     run: cp ${inputs.x} ${outputs.y}
     10 │     inputs:
     11 │       x: one
        ·          ─┬─
        ·           ╰── `two` reads `one`
     12 │     outputs: { y: y }
     13 │   three:
     14 │     run: cp ${inputs.x} ${outputs.y}
     15 │     inputs:
     16 │       x: two
        ·          ─┬─
        ·           ╰── `three` reads `two`
        ╰────
      help: take one of these inputs out

    graph::cycle

      × stage `self` reads its own output
        ╭─[pipeline.yaml:20:18]
     20 │     inputs: { x: self }
        ·                  ──┬─
        ·                    ╰── `self` reads `self`
        ╰────
      help: take one of these inputs out

    2 faults
    "#);
}

#[test]
fn missing_inputs() {
    assert_snapshot!(refused(
        "name: a
stages:
  model:
    uses: train
    inputs: { base: ./data/row.jsonl, rows: [modle, train.py, model:adaptor], vla: model }
  push:
    uses: upload
  again:
    run: cat ${inputs.old} ${inputs.new} ${outputs.c}
    inputs: { old: out/laptop/model/adapter, home: ~/x }
    outputs: { b: ../b }
"
    ), @r#"
    config::missing-input

      × there is no file or folder `./data/row.jsonl`
       ╭─[pipeline.yaml:5:21]
     5 │     inputs: { base: ./data/row.jsonl, rows: [modle, train.py, model:adaptor], vla: model }
       ·                     ────────┬───────
       ·                             ╰── not found
       ╰────
      help: did you mean `rows.jsonl`, in the same folder?

    config::unknown-stage

      × there is no stage `modle`
       ╭─[pipeline.yaml:5:46]
     5 │     inputs: { base: ./data/row.jsonl, rows: [modle, train.py, model:adaptor], vla: model }
       ·                                              ──┬──
       ·                                                ╰── no such stage
       ╰────
      help: did you mean `model`?

    config::unknown-stage

      × there is no stage `train.py`
       ╭─[pipeline.yaml:5:53]
     5 │     inputs: { base: ./data/row.jsonl, rows: [modle, train.py, model:adaptor], vla: model }
       ·                                                     ────┬───
       ·                                                         ╰── no such stage
       ╰────
      help: a path contains a `/`: write `./train.py` for the file

    config::unknown-product

      × stage `model` has no output `adaptor`
       ╭─[pipeline.yaml:5:63]
     3 │   model:
       ·   ──┬──
       ·     ╰── this stage
     4 │     uses: train
     5 │     inputs: { base: ./data/row.jsonl, rows: [modle, train.py, model:adaptor], vla: model }
       ·                                                               ─────────────
       ╰────
      help: did you mean `adapter`?

    config::unknown-port

      × `train` has no input `vla`
       ╭─[pipeline.yaml:5:79]
     5 │     inputs: { base: ./data/row.jsonl, rows: [modle, train.py, model:adaptor], vla: model }
       ·                                                                               ─┬─
       ·                                                                                ╰── unknown
       ╰────
      help: did you mean `val`?

    graph::cycle

      × stage `model` reads its own output
       ╭─[pipeline.yaml:5:84]
     5 │     inputs: { base: ./data/row.jsonl, rows: [modle, train.py, model:adaptor], vla: model }
       ·                                                                                    ──┬──
       ·                                                                                      ╰── `model` reads `model`
       ╰────
      help: take one of these inputs out

    config::missing-port

      × input `adapter` is missing
       ╭─[pipeline.yaml:6:3]
     6 │   push:
       ·   ────
       ╰────
      help: add `adapter:` under `inputs`: an input of the test

    config::unknown-port

      × the command names `${inputs.new}`, which is not declared
       ╭─[pipeline.yaml:9:28]
     9 │     run: cat ${inputs.old} ${inputs.new} ${outputs.c}
       ·                            ──────┬──────
       ·                                  ╰── not declared
       ╰────
      help: add `new:` under `inputs`

    config::unknown-port

      × the command names `${outputs.c}`, which is not declared
       ╭─[pipeline.yaml:9:42]
     9 │     run: cat ${inputs.old} ${inputs.new} ${outputs.c}
       ·                                          ──────┬─────
       ·                                                ╰── not declared
       ╰────
      help: did you mean `b`?

    config::reads-output

      × `out/laptop/model/adapter` is what a run leaves behind, not a source
        ╭─[pipeline.yaml:10:20]
     10 │     inputs: { old: out/laptop/model/adapter, home: ~/x }
        ·                    ────────────────────────
        ╰────
      help: name the stage that makes it, `stage:product`

    config::missing-input

      × there is no file or folder `~/x`
        ╭─[pipeline.yaml:10:52]
     10 │     inputs: { old: out/laptop/model/adapter, home: ~/x }
        ·                                                    ─┬─
        ·                                                     ╰── not found
        ╰────
      help: `~` is not expanded: write the whole path

    config::bad-output

      × `../b` is no path below the scratch folder
        ╭─[pipeline.yaml:11:19]
     11 │     outputs: { b: ../b }
        ·                   ────
        ╰────
      help: give each output a path of its own below the scratch folder

    12 faults
    "#);
}

#[test]
fn undefined_params() {
    assert_snapshot!(refused(
        "name: a
params: { rank: 16, lr: 2e-4, base: smol }
profiles:
  laptop: { epcohs: 2 }
  big: { rnk: 32, size: 7 }
stages:
  raw:
    uses: fetch
    with: { dataset: \"${bsae}\", take: \"${size}\" }
  model:
    uses: train
    inputs: { base: raw, rows: raw }
    with: { r: \"${2 * rnak}\", alpha: \"${rank / (16 - rank)}\", lr: \"${lr\" }
  shell:
    run: echo ${HOME} ${base * 2} > ${outputs.o}
    outputs: { o: o }
"
    ), @r#"
    config::undefined-param

      × `epcohs` has no default, and profile `big` does not set it
       ╭─[pipeline.yaml:4:13]
     4 │   laptop: { epcohs: 2 }
       ·             ──────
       ╰────
      help: give `epcohs` a default under `params`, or set it in every profile

    config::undefined-param

      × `rnk` has no default, and profile `laptop` does not set it
       ╭─[pipeline.yaml:5:10]
     5 │   big: { rnk: 32, size: 7 }
       ·          ───
       ╰────
      help: did you mean `rank`?

    config::undefined-param

      × `size` has no default, and profile `laptop` does not set it
       ╭─[pipeline.yaml:5:19]
     5 │   big: { rnk: 32, size: 7 }
       ·                   ────
       ╰────
      help: give `size` a default under `params`, or set it in every profile

    config::undefined-param

      × undefined parameter `bsae`
       ╭─[pipeline.yaml:9:23]
     9 │     with: { dataset: "${bsae}", take: "${size}" }
       ·                       ───┬───
       ·                          ╰── not defined
       ╰────
      help: did you mean `base`?

    config::undefined-param

      × undefined parameter `size`
       ╭─[pipeline.yaml:9:40]
     9 │     with: { dataset: "${bsae}", take: "${size}" }
       ·                                        ───┬───
       ·                                           ╰── not defined
       ╰────
      help: profile `big` sets it: set it in `laptop` too, or give it a default under `params`

    config::undefined-param

      × undefined parameter `rnak`
        ╭─[pipeline.yaml:13:17]
     13 │     with: { r: "${2 * rnak}", alpha: "${rank / (16 - rank)}", lr: "${lr" }
        ·                 ─────┬─────
        ·                      ╰── not defined
        ╰────
      help: did you mean `rank`?

    config::expression

      × a division by zero
        ╭─[pipeline.yaml:13:39]
     13 │     with: { r: "${2 * rnak}", alpha: "${rank / (16 - rank)}", lr: "${lr" }
        ·                                       ─────────────────────
        ╰────
      help: look at the parameters' values under profile `laptop`

    config::expression

      × `${` is not closed
        ╭─[pipeline.yaml:13:68]
     13 │     with: { r: "${2 * rnak}", alpha: "${rank / (16 - rank)}", lr: "${lr" }
        ·                                                                    ──
        ╰────
      help: close it with `}`, or write `$${` for a literal `${`

    config::undefined-param

      × undefined parameter `HOME`
        ╭─[pipeline.yaml:15:15]
     15 │     run: echo ${HOME} ${base * 2} > ${outputs.o}
        ·               ───┬───
        ·                  ╰── not defined
        ╰────
      help: declare it under `params`; for a shell variable write `$HOME` or `$${HOME}`

    config::expression

      × arithmetic takes numbers, and `base` is "smol"
        ╭─[pipeline.yaml:15:23]
     15 │     run: echo ${HOME} ${base * 2} > ${outputs.o}
        ·                       ───────────
        ╰────
      help: look at the parameters' values under profile `laptop`

    10 faults
    "#);
}

#[test]
fn duplicate_keys() {
    assert_snapshot!(refused(
        "name: a
stages:
  raw:
    uses: fetch
    with: { dataset: one, dataset: two }
  raw:
    uses: fetch
    with: { dataset: three }
name: b
"
    ), @r#"
    config::duplicate-key

      × `dataset` stands here twice
       ╭─[pipeline.yaml:5:27]
     5 │     with: { dataset: one, dataset: two }
       ·             ───┬───       ───┬───
       ·                │             ╰── again here
       ·                ╰── first here
       ╰────
      help: keep one of them, or rename one

    config::duplicate-key

      × `raw` stands here twice
       ╭─[pipeline.yaml:3:3]
     3 │   raw:
       ·   ─┬─
       ·    ╰── first here
       ╰────
       ╭─[pipeline.yaml:6:3]
     6 │   raw:
       ·   ─┬─
       ·    ╰── again here
       ╰────
      help: keep one of them, or rename one

    config::duplicate-key

      × `name` stands here twice
       ╭─[pipeline.yaml:1:1]
     1 │ name: a
       · ──┬─
       ·   ╰── first here
       ╰────
       ╭─[pipeline.yaml:9:1]
     9 │ name: b
       · ──┬─
       ·   ╰── again here
       ╰────
      help: keep one of them, or rename one

    3 faults
    "#);
}

#[test]
fn a_secret_is_reported_and_never_shown() {
    let secret = format!("hf_{}", "Ab1".repeat(11));
    let text = refused(&format!(
        "name: a
params: {{ key: {secret} }}
stages:
  push:
    uses: upload
    inputs: {{ adapter: ./data/rows.jsonl }}
    with: {{ tokn: {secret} }}
    env: {{ TOKEN: {secret} }}
"
    ));
    assert!(!text.contains(&secret), "{text}");
    assert_snapshot!(text, @r#"
    config::secret

      × a secret stands in the file: this looks like a Hugging Face token
       ╭─[pipeline.yaml:2:16]
     2 │ params: { key: ************************************ }
       ·                ──────────────────┬─────────────────
       ·                                  ╰── a secret
       ╰────
      help: take it out, put it in an environment variable and list that variable's name under
            `secrets`; renew it if the file was shared

    config::unknown-key

      × unknown parameter `tokn`
       ╭─[pipeline.yaml:7:13]
     7 │     with: { tokn: ************************************ }
       ·             ──┬─
       ·               ╰── unknown
       ╰────
      help: did you mean `token`?

    config::secret

      × a secret stands in the file: this looks like a Hugging Face token
       ╭─[pipeline.yaml:7:19]
     7 │     with: { tokn: ************************************ }
       ·                   ──────────────────┬─────────────────
       ·                                     ╰── a secret
       ╰────
      help: take it out, put it in an environment variable and list that variable's name under
            `secrets`; renew it if the file was shared

    config::secret

      × a secret stands in the file: this looks like a Hugging Face token
       ╭─[pipeline.yaml:8:19]
     8 │     env: { TOKEN: ************************************ }
       ·                   ──────────────────┬─────────────────
       ·                                     ╰── a secret
       ╰────
      help: take it out, put it in an environment variable and list that variable's name under
            `secrets`; renew it if the file was shared

    4 faults
    "#);
}

#[test]
fn the_value_of_a_declared_secret_is_a_secret() {
    let yaml = "name: a
stages:
  push:
    run: curl -u me:correct-horse https://example.org > ${outputs.o}
    outputs: { o: o }
    secrets: [UPLOAD_PASSWORD]
";
    let folder = folder(yaml.as_bytes());
    let file = folder.path().join("pipeline.yaml");
    let env = |name: &str| (name == "UPLOAD_PASSWORD").then(|| "correct-horse".to_owned());
    let loaded = load_text(&file, yaml.to_owned(), &Overrides::default(), &STAGES, &env);
    let faults = loaded
        .unwrap_or_else(|_| panic!("the text parses"))
        .finish(Vec::new());
    assert_snapshot!(drawn(faults.err().expect("a secret is a fault")), @r#"
    config::secret

      × a secret stands in the file: this is the value of `UPLOAD_PASSWORD`
       ╭─[pipeline.yaml:4:10]
     4 │     run: curl -u me:************* https://example.org > ${outputs.o}
       ·          ─────────────────────────────┬─────────────────────────────
       ·                                       ╰── a secret
       ╰────
      help: take it out, put it in an environment variable and list that variable's name under
            `secrets`; renew it if the file was shared
    "#);
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
        let faults = super::open(yaml).err().expect(yaml);
        let fault = &faults.items[0];
        let span = fault.span.clone().expect("a place");
        assert!(
            span.end <= yaml.len() && !fault.mend.is_empty(),
            "{yaml}: {fault:?}"
        );
    }
    assert_snapshot!(refused("name: a\nstages:\n  raw:\n    uses: fetch\n   with: {}\n"), @r#"
    config::syntax

      × while parsing a block mapping, did not find expected key
       ╭─[pipeline.yaml:5:4]
     5 │    with: {}
       ·    ▲
       ·    ╰── here
       ╰────
      help: check indentation, quotes and brackets at and above this line
    "#);
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
    ), @r#"
    config::syntax

      × while parsing a flow mapping, did not find expected ',' or '}'
       ╭─[pipeline.yaml:6:17]
     6 │     with: { r: ${rank}, lr: 1 }
       ·                 ▲
       ·                 ╰── here
       ╰────
      help: inside `{ }` and `[ ]` put `${..}` in quotes: `{ r: "${rank}" }`
    "#);
}

#[test]
fn what_a_stage_knows_to_be_wrong() {
    let yaml = "name: a
stages:
  raw: { uses: fetch, with: { dataset: x } }
  cut: { run: 'head ${inputs.a} > ${outputs.o}', inputs: { a: raw }, outputs: { o: o } }
  model:
    uses: train
    inputs: { base: cut, rows: [./data/rows.jsonl, raw] }
    with: { r: 13 }
";
    let (pipeline, graph) = super::open(yaml).unwrap_or_else(|faults| panic!("{faults}"));
    let faults = crate::check::stages(&pipeline, &graph, graph.order());
    assert_snapshot!(drawn(faults.err().expect("a fault")), @r#"
    train::thirteen

      × stage `model`: 13 is refused: base<fetch rows<fetch from 1 local files
       ╭─[pipeline.yaml:8:16]
     8 │     with: { r: 13 }
       ·                ──
       ╰────
      help: take another rank
    "#);
}

#[test]
fn what_comes_later_is_refused_by_name() {
    assert_snapshot!(refused(
        "name: a
store: /mnt/shared
stages:
  raw:
    uses: fetch
    with: { dataset: a }
    matrix: { take: [1, 2] }
    pick: { max: raw.rows }
    executor: slurm
"
    ), @r#"
    config::not-yet

      × `store` arrives with shared stores
       ╭─[pipeline.yaml:2:1]
     2 │ store: /mnt/shared
       · ─────
       ╰────
      help: leave it out: the store is `.tunesmith/store`

    config::not-yet

      × `matrix` arrives with sweeps
       ╭─[pipeline.yaml:7:5]
     7 │     matrix: { take: [1, 2] }
       ·     ──────
       ╰────
      help: write one stage per value for now

    config::not-yet

      × `pick` arrives with sweeps
       ╭─[pipeline.yaml:8:5]
     8 │     pick: { max: raw.rows }
       ·     ────
       ╰────
      help: write one stage per value for now

    config::not-yet

      × `executor` arrives with Slurm and Ray
       ╭─[pipeline.yaml:9:5]
     9 │     executor: slurm
       ·     ────────
       ╰────
      help: leave it out: stages run here

    4 faults
    "#);
}

#[test]
fn two_actions_none_and_bad_names() {
    assert_snapshot!(refused(
        "name: a
default: [rwa]
pools: { gpu: 1 }
stages:
  \"a/b\":
    uses: fetch
    run: ls
  none: {}
  quiet:
    run: ls
  big:
    run: ls > ${outputs.o}
    outputs: { o: o, p: o/p }
    resources: { gpu: 2 }
    env: { \"A-B\": 1, C: [1] }
    secrets: [C]
    retries: '2'
    profiles: [laptop]
"
    ), @r#"
    config::unknown-stage

      × there is no stage `rwa`
       ╭─[pipeline.yaml:2:11]
     2 │ default: [rwa]
       ·           ───
       ╰────
      help: known stages: a/b, big, none, quiet

    config::bad-name

      × `a/b` is no stage name
       ╭─[pipeline.yaml:5:3]
     5 │   "a/b":
       ·   ─────
       ╰────
      help: use letters, digits, `-`, `_` and `.`: it names a folder

    config::two-actions

      × stage `a/b` has both `uses` and `run`
       ╭─[pipeline.yaml:7:5]
     6 │     uses: fetch
       ·     ──┬─
       ·       ╰── and here
     7 │     run: ls
       ·     ───
       ╰────
      help: keep one of them

    config::no-action

      × stage `none` does nothing
       ╭─[pipeline.yaml:8:3]
     8 │   none: {}
       ·   ────
       ╰────
      help: add `uses:` with a built-in stage, or `run:` with a command

    config::missing-field

      × stage `quiet` declares no outputs
        ╭─[pipeline.yaml:10:5]
     10 │     run: ls
        ·     ───
        ╰────
      help: add `outputs: {name: path}`: what the command writes

    config::bad-output

      × `o/p` lies in or over the output `o`
        ╭─[pipeline.yaml:13:25]
     13 │     outputs: { o: o, p: o/p }
        ·                         ───
        ╰────
      help: give each output a path of its own below the scratch folder

    config::resources

      × stage `big` wants 2 slots of a pool of 1
        ╭─[pipeline.yaml:14:5]
     14 │     resources: { gpu: 2 }
        ·     ─────────
        ╰────
      help: enlarge the pool under `pools`, or ask for fewer slots

    config::bad-name

      × `A-B` is no name of an environment variable
        ╭─[pipeline.yaml:15:12]
     15 │     env: { "A-B": 1, C: [1] }
        ·            ─────
        ╰────
      help: use letters, digits and `_`

    config::wrong-type

      × `C` takes one value, not a list
        ╭─[pipeline.yaml:15:25]
     15 │     env: { "A-B": 1, C: [1] }
        ·                         ─┬─
        ·                          ╰── expected one value
        ╰────
      help: write one value; `""` for an empty one

    config::wrong-type

      × `retries` takes a whole number from 0 to 100, not `"2"`
        ╭─[pipeline.yaml:17:14]
     17 │     retries: '2'
        ·              ─┬─
        ·               ╰── expected a whole number from 0 to 100
        ╰────
      help: write it without quotes

    config::unknown-profile

      × there is no profile `laptop`
        ╭─[pipeline.yaml:18:16]
     18 │     profiles: [laptop]
        ·                ──────
        ╰────
      help: there are no profiles here

    11 faults
    "#);
}

#[test]
fn command_line_faults_stand_in_no_line() {
    let yaml = "name: a
params: { lr: 1 }
profiles: { laptop: {}, big: {} }
stages:
  raw: { uses: fetch, with: { dataset: x } }
";
    let faults = open_with(yaml, Some("labtop"), &["lr", "lrr=2", "lr=[", "lr=2"]);
    assert_snapshot!(drawn(faults.err().expect("faults")), @r#"
    config::set

      × `--set lr=[`: unclosed bracket '['
      help: write the value as in the file, `--set lr=1e-4`

    config::set

      × `--set lr` sets nothing
      help: write `--set name=value`

    config::undefined-param

      × `--set lrr=2`: there is no parameter `lrr`
      help: did you mean `lr`?

    config::unknown-profile

      × there is no profile `labtop`
      help: did you mean `laptop`?

    4 faults
    "#);
}

#[test]
fn faults_of_different_rooms_come_together() {
    assert_snapshot!(refused(
        "name: a
stages:
  loop:
    run: cp ${inputs.x} ${outputs.y}
    inputs: { x: loop }
    outputs: { y: y }
    retires: 2
  raw:
    uses: fetch
    with: { dataset: x, take: 0 }
  raw: {}
"
    ), @r#"
    graph::cycle

      × stage `loop` reads its own output
       ╭─[pipeline.yaml:5:18]
     5 │     inputs: { x: loop }
       ·                  ──┬─
       ·                    ╰── `loop` reads `loop`
       ╰────
      help: take one of these inputs out

    config::unknown-key

      × unknown key `retires` in a stage
       ╭─[pipeline.yaml:7:5]
     7 │     retires: 2
       ·     ───┬───
       ·        ╰── unknown
       ╰────
      help: did you mean `retries`?

    config::wrong-type

      × `take` takes a whole number from 1 to 1000, not `0`
        ╭─[pipeline.yaml:10:31]
     10 │     with: { dataset: x, take: 0 }
        ·                               ┬
        ·                               ╰── does not fit
        ╰────
      help: a parameter of the test

    config::duplicate-key

      × `raw` stands here twice
        ╭─[pipeline.yaml:11:3]
      8 │   raw:
        ·   ─┬─
        ·    ╰── first here
      9 │     uses: fetch
     10 │     with: { dataset: x, take: 0 }
     11 │   raw: {}
        ·   ─┬─
        ·    ╰── again here
        ╰────
      help: keep one of them, or rename one

    4 faults
    "#);
}

#[test]
fn a_file_that_is_no_text_or_not_there() {
    let folder = folder(b"name: a\nx: \xff\n");
    let file = folder.path().join("pipeline.yaml");
    let overrides = Overrides::default();
    let faults = graph::open(&file, &overrides, &STAGES)
        .err()
        .expect("no UTF-8");
    assert_snapshot!(drawn(faults), @r#"
    config::not-utf8

      × the file is not UTF-8 from here on
       ╭─[pipeline.yaml:2:4]
     2 │ x: �
       ·    ▲
       ╰────
      help: save it as UTF-8
    "#);
    let faults = graph::open(&folder.path().join("no.yaml"), &overrides, &STAGES);
    let faults = faults.err().expect("no file");
    assert_eq!(faults.items[0].code, "config::unreadable");
    let faults = crate::config::find(folder.path().join("data").as_path());
    assert_eq!(faults.ok(), Some(std::path::absolute(&file).unwrap()));
}
