//! Who runs when, with what: pools, devices, claims that cannot be met, the order of work.

use serde_json::Value;

use super::project::Project;

/// Stages that say which GPUs they see, each waiting until `DIR/go` is there.
fn gpus(count: usize) -> Project {
    let mut text = "name: gpus\nstages:\n".to_owned();
    for n in 0..count {
        text.push_str(&format!(
            "  s{n}:\n    run: echo $CUDA_VISIBLE_DEVICES | tee ${{outputs.seen}} >> DIR/given\n    outputs: {{ seen: seen.txt }}\n    resources: {{ gpu: 1 }}\n"
        ));
    }
    Project::new(&text)
}

/// The events of the only run.
fn events(project: &Project) -> Vec<Value> {
    let text = project.read(".tunesmith/runs/1.jsonl");
    let events = text.lines().map(serde_json::from_str);
    events.collect::<Result<_, _>>().expect("JSON lines")
}

/// What ran at the same moment as anything else, checked against `most` in each pool.
fn most_at_once(events: &[Value], held: impl Fn(&Value) -> u64) -> u64 {
    let mut now = std::collections::BTreeMap::new();
    let mut most = 0;
    for event in events {
        let stage = event["stage"].as_str().unwrap_or_default().to_owned();
        match event["type"].as_str() {
            Some("stage-started") => {
                now.insert(stage, held(event));
            }
            Some("stage-done" | "stage-failed" | "stage-skipped") => {
                now.remove(&stage);
            }
            _ => {}
        }
        most = most.max(now.values().sum());
    }
    most
}

#[test]
fn every_gpu_is_given_to_one_stage_at_a_time() {
    let project = gpus(6);
    let mut command = project.command(&["run"]);
    let output = command
        .env("TUNESMITH_GPUS", "4,7")
        .output()
        .expect("it starts");
    assert!(output.status.success());
    let mut seen = project.marks("given");
    seen.sort();
    seen.dedup();
    // Whether the second is ever needed depends on how long the first is busy.
    assert!(seen.iter().all(|id| id == "4" || id == "7"), "{seen:?}");
    let events = events(&project);
    assert!(most_at_once(&events, |_| 1) <= 2);
    let mut free = vec!["4", "7"];
    for event in &events {
        match event["type"].as_str() {
            Some("stage-started") => {
                let given = event["devices"][0].as_str().expect("a device");
                assert!(free.contains(&given), "{given} is taken");
                free.retain(|id| *id != given);
            }
            Some("stage-done") => {
                let stage = event["stage"].as_str().expect("a stage");
                let seen = project.read(&format!("out/default/{stage}/seen.txt"));
                free.push(if seen.trim() == "4" { "4" } else { "7" });
            }
            _ => {}
        }
    }
}

#[test]
fn visible_devices_limit_the_pool_and_its_size_can_be_said() {
    let project = gpus(1);
    let run = |visible: Option<&str>, pool: Option<&str>| {
        let mut args = vec!["run", "--force", "s0"];
        args.extend(pool.iter().flat_map(|pool| ["--pool", pool]));
        let mut command = project.command(&args);
        command
            .env_remove("TUNESMITH_GPUS")
            .env_remove("CUDA_VISIBLE_DEVICES");
        if let Some(visible) = visible {
            command.env("CUDA_VISIBLE_DEVICES", visible);
        }
        let output = command.output().expect("it starts");
        let seen = project.marks("given").pop();
        (output.status.code(), seen.unwrap_or_default())
    };
    assert_eq!(run(Some("5,6"), None), (Some(0), "5".to_owned()));
    assert_eq!(run(Some("6"), Some("gpu=2")), (Some(0), "6".to_owned()));
    assert_eq!(run(None, Some("gpu=1")), (Some(0), "0".to_owned()));
    assert_eq!(run(Some("-1"), None).0, Some(2));
    assert_eq!(run(None, Some("gpu=many")).0, Some(2));
    assert_eq!(run(None, Some("tpu=1")).0, Some(2));
}

#[test]
fn a_claim_larger_than_the_machine_is_refused_before_anything_runs() {
    let project = Project::new(
        r"
name: large
stages:
  small: { run: 'touch DIR/ran; touch ${outputs.it}', outputs: { it: it.txt } }
  large:
    run: cat ${inputs.it} > ${outputs.it}
    inputs: { it: small }
    outputs: { it: it.txt }
    resources: { gpu: 2, memory: 900TiB }
",
    );
    let mut command = project.command(&["run", "--pool", "memory=64GiB"]);
    command.env("TUNESMITH_GPUS", "0");
    insta::assert_snapshot!(project.page(&command.output().expect("it starts")), @r"
    exit 2
    ----- stderr -----
    run::no-room

      × stage `large` wants 2 of `gpu`, this machine has 1
       ╭─[pipeline.yaml:9:23]
     9 │     resources: { gpu: 2, memory: 900TiB }
       ·                       ─
       ╰────
      help: run it where there is enough, or say what is there: `--pool gpu=2`

    run::no-room

      × stage `large` wants 900 TiB of memory, this machine has 64 GiB
       ╭─[pipeline.yaml:9:34]
     9 │     resources: { gpu: 2, memory: 900TiB }
       ·                                  ──────
       ╰────
      help: ask for less, or say what is there: `--pool memory=...`

    2 faults
    ");
    assert!(!project.at("ran").exists());
    let mut command = project.command(&["run", "--pool", "memory=1000TiB", "--pool", "gpu=2"]);
    command
        .env_remove("TUNESMITH_GPUS")
        .env_remove("CUDA_VISIBLE_DEVICES");
    assert!(command.output().expect("it starts").status.success());
}

#[test]
fn what_runs_together_fits_into_its_pools() {
    let mut text = "name: fits\npools: { license: 2, memory: 10GiB }\nstages:\n".to_owned();
    for n in 0..12 {
        let claim = match n % 3 {
            0 => "license: 1",
            1 => "license: 2, memory: 6GiB",
            _ => "cpu: 1, memory: 5GiB",
        };
        text.push_str(&format!(
            "  s{n}: {{ run: \"sleep 0.02; echo {n} > ${{outputs.it}}\", outputs: {{ it: it.txt }}, resources: {{ {claim} }} }}\n"
        ));
    }
    let project = Project::new(&text);
    project.ok(&["run", "--jobs", "4"]);
    let events = events(&project);
    let of = |pool: &'static str| move |event: &Value| event["holds"][pool].as_u64().unwrap_or(0);
    assert!(most_at_once(&events, of("license")) <= 2);
    assert!(most_at_once(&events, of("memory")) <= 10 << 30);
    assert!(most_at_once(&events, of("cpu")) <= 4);
    assert!(
        most_at_once(&events, of("license")) == 2,
        "the pool is used"
    );
}

/// A short stage beside a chain: with one slot the chain goes first, for it takes longer in
/// all; once the short stage is known to be slow, that one does.
#[test]
fn the_longest_way_starts_first() {
    let text = r#"
name: ways
params: { n: 1 }
stages:
  c1: { run: "echo c1 >> DIR/order; echo ${n} > ${outputs.it}", outputs: { it: it.txt } }
  c2: { run: "echo c2 >> DIR/order; cat ${inputs.x} > ${outputs.it}", inputs: { x: c1 }, outputs: { it: it.txt } }
  alone: { run: "echo alone >> DIR/order; echo ${n}; cat DIR/nap 2>&- | xargs -r sleep; touch ${outputs.it}", outputs: { it: it.txt } }
"#;
    let project = Project::new(text);
    project.write("nap", "1.5");
    project.ok(&["run", "--jobs", "1"]);
    assert_eq!(project.marks("order"), ["c1", "c2", "alone"]);
    // Now it is known that `alone` takes longer than the chain.
    project.edit("pipeline.yaml", "n: 1", "n: 2");
    project.write("nap", "0");
    project.write("order", "");
    project.ok(&["run", "--jobs", "1"]);
    assert_eq!(project.marks("order"), ["alone", "c1", "c2"]);
}

#[test]
fn a_trace_has_every_stage_on_the_track_of_its_pool() {
    let project = Project::new(
        r#"
name: traced
pools: { license: 1 }
stages:
  a: { run: "echo a > ${outputs.it}", outputs: { it: it.txt } }
  b: { run: "cat ${inputs.x} > ${outputs.it}", inputs: { x: a }, outputs: { it: it.txt }, resources: { license: 1, cpu: 1 } }
"#,
    );
    project.ok(&["run", "--trace", "live.json"]);
    let read = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
    let live = read(&project.read("live.json"));
    let mut slices: Vec<(String, u64)> = Vec::new();
    let events = live["traceEvents"].as_array().expect("a list");
    for event in events.iter().filter(|event| event["ph"] == "X") {
        let name = event["name"].as_str().expect("a name").to_owned();
        slices.push((name, event["pid"].as_u64().expect("a track")));
        assert!(event["dur"].as_u64().is_some() && event["ts"].as_u64().is_some());
    }
    let track = |pool: &str| {
        let named = |event: &&Value| event["args"]["name"] == format!("pool {pool}");
        let found = events.iter().find(named).expect("a track");
        found["pid"].as_u64().expect("a number")
    };
    let wanted = [("a", "cpu"), ("b", "cpu"), ("b", "license")];
    let mut wanted = wanted
        .map(|(stage, pool)| (stage.to_owned(), track(pool)))
        .to_vec();
    slices.sort();
    wanted.sort();
    assert_eq!(slices, wanted);
    // The recorded run gives the same picture, also by number.
    let said = |args: &[&str]| {
        let output = project.output(args);
        assert!(output.status.success());
        read(&String::from_utf8_lossy(&output.stdout))
    };
    assert_eq!(said(&["trace"]), live);
    assert_eq!(said(&["trace", "1"]), live);
    assert_eq!(project.output(&["trace", "7"]).status.code(), Some(1));
}

#[test]
fn stages_that_need_each_other_at_once_run_side_by_side() {
    // Each is done only when the other has begun.
    let project = Project::new(
        r#"
name: rendezvous
stages:
  a: { run: "touch DIR/a; until test -e DIR/b; do sleep 0.01; done; echo a > ${outputs.it}", outputs: { it: it.txt }, timeout: 30s }
  b: { run: "touch DIR/b; until test -e DIR/a; do sleep 0.01; done; echo b > ${outputs.it}", outputs: { it: it.txt }, timeout: 30s }
"#,
    );
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Unasked, where the machine has two cores.
    let args: &[&str] = if cores > 1 { &["run"] } else { &["run", "-j2"] };
    project.ok(args);
}
