//! Names that are not known: kinds, keys, parameters, stages.

use insta::assert_snapshot;

use super::{drawn, open_with, refused};

#[test]
fn unknown_stage_kind() {
    assert_snapshot!(refused(
        "name: a
stages:
  model:
    uses: trian
    inputs: { base: ./data/rows.jsonl, rows: ./data/rows.jsonl }
"
    ), @r##"
    config::unknown-stage-kind

      × unknown stage kind `trian`
       ╭─[pipeline.yaml:4:11]
     4 │     uses: trian
       ·           ──┬──
       ·             ╰── no built-in stage
       ╰────
      help: did you mean `train`?
    "##);
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
    ), @r##"
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

    config::unknown-pool

      × there is no pool `tpu`
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
    "##);
}

#[test]
fn undefined_params() {
    assert_snapshot!(refused(
        "name: a
params: { rank: 16, base: smol }
profiles:
  laptop: { epcohs: 2 }
  big: { rnk: 32, size: 7 }
stages:
  raw:
    uses: fetch
    with: { dataset: \"${bsae}\", take: \"${size}\" }
  shell:
    run: echo ${HOME} > ${outputs.o}
    outputs: { o: o }
"
    ), @r##"
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

      × undefined parameter `HOME`
        ╭─[pipeline.yaml:11:15]
     11 │     run: echo ${HOME} > ${outputs.o}
        ·               ───┬───
        ·                  ╰── not defined
        ╰────
      help: declare it under `params`; for a shell variable write `$HOME` or `$${HOME}`

    6 faults
    "##);
}

#[test]
fn expressions_without_a_value() {
    assert_snapshot!(refused(
        "name: a
params: { rank: 16, base: smol, files: [a, b] }
stages:
  raw:
    uses: fetch
    with: { dataset: \"${base * 2}\", take: \"${2 * rnak}\" }
  shell:
    run: |
      echo ${rank / (16 - rank)} ${files} ${(rank}
      touch ${outputs.o}
    outputs: { o: o }
    env: { OPEN: \"${rank\" }
"
    ), @r##"
    config::expression

      × arithmetic takes numbers, and `base` is "smol"
       ╭─[pipeline.yaml:6:23]
     6 │     with: { dataset: "${base * 2}", take: "${2 * rnak}" }
       ·                       ───────────
       ╰────
      help: look at the parameters' values under profile `default`

    config::undefined-param

      × undefined parameter `rnak`
       ╭─[pipeline.yaml:6:44]
     6 │     with: { dataset: "${base * 2}", take: "${2 * rnak}" }
       ·                                            ─────┬─────
       ·                                                 ╰── not defined
       ╰────
      help: did you mean `rank`?

    config::expression

      × a division by zero
       ╭─[pipeline.yaml:9:12]
     9 │       echo ${rank / (16 - rank)} ${files} ${(rank}
       ·            ─────────────────────
       ╰────
      help: look at the parameters' values under profile `default`

    config::wrong-type

      × `files` is no single value, so it fits in no text
       ╭─[pipeline.yaml:9:34]
     9 │       echo ${rank / (16 - rank)} ${files} ${(rank}
       ·                                  ────────
       ╰────
      help: let the scalar be this `${..}` alone, or use a parameter with one value

    config::expression

      × `(` is not closed
       ╭─[pipeline.yaml:9:43]
     9 │       echo ${rank / (16 - rank)} ${files} ${(rank}
       ·                                           ────────
       ╰────
      help: an expression holds numbers, parameters, `+ - * /` and parentheses

    config::expression

      × `${` is not closed
        ╭─[pipeline.yaml:12:19]
     12 │     env: { OPEN: "${rank" }
        ·                   ──
        ╰────
      help: close it with `}`, or write `$${` for a literal `${`

    6 faults
    "##);
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
    ), @r##"
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
    "##);
}

#[test]
fn what_comes_later_is_refused_by_name() {
    assert_snapshot!(refused(
        "name: a
stages:
  raw:
    uses: fetch
    with: { dataset: a }
    executor: slurm
"
    ), @r##"
    config::not-yet

      × `executor` arrives with Slurm and Ray
       ╭─[pipeline.yaml:6:5]
     6 │     executor: slurm
       ·     ────────
       ╰────
      help: leave it out: stages run here
    "##);
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
    assert_snapshot!(drawn(faults.err().expect("faults")), @r##"
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
    "##);
}
