//! `deploy`: every stage that acts outside, with what it needs, and only past the gates.

use super::project::Project;

const TWO_DOORS: &str = r#"
name: doors
params: { score: 0.9 }
stages:
  model: { run: "echo model > ${outputs.it}", outputs: { it: it.txt } }
  eval:
    run: "cat ${inputs.model} > /dev/null; echo '{\"score\": ${score}}' > ${outputs.metrics}"
    inputs: { model: model }
    outputs: { metrics: metrics.json }
    gates: { score: ">= 0.5" }
  front: { run: "echo front >> DIR/sent; cat ${inputs.x} > ${outputs.receipt}", inputs: { x: eval }, outputs: { receipt: r.txt }, effect: external }
  back: { run: "echo back >> DIR/sent; cat ${inputs.x} > ${outputs.receipt}", inputs: { x: model }, outputs: { receipt: r.txt }, effect: external }
  aside: { run: "echo aside >> DIR/sent; echo > ${outputs.it}", outputs: { it: it.txt } }
"#;

fn sent(project: &Project) -> Vec<String> {
    let mut sent = project.marks("sent");
    sent.sort();
    sent
}

#[test]
fn every_stage_that_acts_outside_runs_with_what_it_needs() {
    let project = Project::new(TWO_DOORS);
    project.ok(&["deploy"]);
    assert_eq!(
        sent(&project),
        ["back", "front"],
        "and `aside` is not needed"
    );
    // It acts each time it is asked to; what it needs is up to date.
    project.ok(&["deploy", "front"]);
    assert_eq!(sent(&project), ["back", "front", "front"]);
}

#[test]
fn nothing_goes_out_below_a_broken_gate() {
    let project = Project::new(TWO_DOORS);
    let output = project.output(&["deploy", "front", "--set", "score=0.4"]);
    assert_eq!(output.status.code(), Some(3), "{}", project.page(&output));
    assert_eq!(sent(&project), Vec::<String>::new());
}

#[test]
fn a_pipeline_that_acts_nowhere_has_nothing_to_deploy() {
    let project = Project::new(
        "name: x\nstages:\n  a: { run: \"echo > ${outputs.it}\", outputs: { it: it.txt } }\n",
    );
    insta::assert_snapshot!(project.says(&["deploy"]), @r"
    exit 2
    ----- stderr -----
    deploy::nothing

      × no stage of the pipeline acts outside
      help: add one: `uses: upload`, or a command with `effect: external`
    ");
}
