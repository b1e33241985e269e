//! Edges that lead nowhere or in circles, secrets, and faults of several rooms.

use insta::assert_snapshot;

use super::super::load::load_text;
use super::{STAGES, drawn, folder, refused};
use crate::config::Overrides;

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
    ), @r##"
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
    "##);
}

#[test]
fn missing_inputs_of_a_builtin_stage() {
    assert_snapshot!(refused(
        "name: a
stages:
  model:
    uses: train
    inputs: { base: ./data/row.jsonl, rows: [modle, train.py, model:adaptor], vla: model }
  push:
    uses: upload
"
    ), @r##"
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

    7 faults
    "##);
}

#[test]
fn missing_inputs_of_a_command() {
    assert_snapshot!(refused(
        "name: a
stages:
  again:
    run: cat ${inputs.old} ${inputs.new} ${outputs.c}
    inputs: { old: out/laptop/model/adapter, home: ~/x }
    outputs: { b: ../b }
"
    ), @r##"
    config::unknown-port

      × the command names `${inputs.new}`, which is not declared
       ╭─[pipeline.yaml:4:28]
     4 │     run: cat ${inputs.old} ${inputs.new} ${outputs.c}
       ·                            ──────┬──────
       ·                                  ╰── not declared
       ╰────
      help: add `new:` under `inputs`

    config::unknown-port

      × the command names `${outputs.c}`, which is not declared
       ╭─[pipeline.yaml:4:42]
     4 │     run: cat ${inputs.old} ${inputs.new} ${outputs.c}
       ·                                          ──────┬─────
       ·                                                ╰── not declared
       ╰────
      help: did you mean `b`?

    config::reads-output

      × `out/laptop/model/adapter` is what a run leaves behind, not a source
       ╭─[pipeline.yaml:5:20]
     5 │     inputs: { old: out/laptop/model/adapter, home: ~/x }
       ·                    ────────────────────────
       ╰────
      help: name the stage that makes it, `stage:product`

    config::missing-input

      × there is no file or folder `~/x`
       ╭─[pipeline.yaml:5:52]
     5 │     inputs: { old: out/laptop/model/adapter, home: ~/x }
       ·                                                    ─┬─
       ·                                                     ╰── not found
       ╰────
      help: `~` is not expanded: write the whole path

    config::bad-output

      × `../b` is no path below the scratch folder
       ╭─[pipeline.yaml:6:19]
     6 │     outputs: { b: ../b }
       ·                   ────
       ╰────
      help: give each output a path of its own below the scratch folder

    5 faults
    "##);
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
    assert_snapshot!(text, @r##"
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
    "##);
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
    assert_snapshot!(drawn(faults.err().expect("a secret is a fault")), @r##"
    config::secret

      × a secret stands in the file: this is the value of `UPLOAD_PASSWORD`
       ╭─[pipeline.yaml:4:10]
     4 │     run: curl -u me:************* https://example.org > ${outputs.o}
       ·          ─────────────────────────────┬─────────────────────────────
       ·                                       ╰── a secret
       ╰────
      help: take it out, put it in an environment variable and list that variable's name under
            `secrets`; renew it if the file was shared
    "##);
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
    let faults = crate::check::stages(&pipeline, &graph, graph.order(), false);
    assert_snapshot!(drawn(faults.expect_err("a fault")), @r##"
    train::thirteen

      × stage `model`: 13 is refused: base<fetch rows<fetch from 1 local files
       ╭─[pipeline.yaml:8:16]
     8 │     with: { r: 13 }
       ·                ──
       ╰────
      help: take another rank
    "##);
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
    ), @r##"
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
    "##);
}
