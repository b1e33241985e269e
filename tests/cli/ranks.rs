//! Ranks that train together, from the pipeline to the adapter: on the CPU, as two workers over TCP, where
//! two GPUs are claimed. What cards do is tested where cards are.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use safetensors::SafeTensors;

use super::builtin::worker;
use super::project::{Project, wait_until};

const PIPELINE: &str = r"
name: ranks
pools: { gpu: 2 }
stages:
  train:
    uses: train
    inputs: { base: MODEL, train: ./rows.jsonl, val: ./rows.jsonl, tools: TOOLS }
    with: { r: 4, alpha: 8, dropout: 0.1, batch: 4, lr: 5e-3, epochs: 99, max_steps: STEPS, eval_every: 20, save_every: 10, samples: [hi] }
";

const CLAIM: &str = "    resources: { gpu: 2 }\n";

fn rows() -> String {
    let row = |at: usize| {
        let (asked, told) = (
            ["milk", "the dentist", "a long letter home"][at % 3],
            at * 37,
        );
        format!(
            concat!(
                r#"{{"id":"r-{}","source":"hand","type":"single","messages":["#,
                r#"{{"role":"user","content":"remember {}"}},"#,
                r#"{{"role":"assistant","content":"Noted as number {}."}}]}}"#,
                "\n"
            ),
            at, asked, told
        )
    };
    (0..9).map(row).collect()
}

fn project(steps: usize, claim: &str) -> Project {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data");
    let place = |name: &str| data.join(name).display().to_string();
    let text = PIPELINE
        .replace("MODEL", &place("smoke-model"))
        .replace("TOOLS", &place("tools.yaml"))
        .replace("STEPS", &steps.to_string());
    let project = Project::new(&(text + claim));
    project.write("rows.jsonl", &rows());
    project
}

fn command(project: &Project) -> Command {
    let mut command = project.command(&["run"]);
    command
        .env("TUNESMITH_WORKER", worker())
        .env("TUNESMITH_GPUS", "0,1")
        .env_remove("CUDA_VISIBLE_DEVICES")
        .env("TUNESMITH_CPU_RANKS", "1")
        .env("TUNESMITH_RENDEZVOUS_SECONDS", "50");
    command
}

fn run(project: &Project) -> String {
    let output = command(project).output().expect("it starts");
    let page = project.page(&output);
    assert!(output.status.success(), "{page}\n{}", log(project));
    page
}

fn begin(project: &Project) -> Child {
    let mut command = command(project);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("it starts")
}

fn log(project: &Project) -> String {
    fs::read_to_string(project.at(".tunesmith/logs/default/train.log")).unwrap_or_default()
}

fn adapter(project: &Project) -> Vec<u8> {
    fs::read(project.at("out/default/train/adapter/adapter_model.safetensors")).expect("an adapter")
}

fn losses(project: &Project) -> Vec<f64> {
    let report = project.read("out/default/train/report.json");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let steps = report["steps"].as_array().expect("steps").iter();
    steps
        .map(|step| step["loss"].as_f64().expect("a loss"))
        .collect()
}

/// Workers of this project that are ranks, with their number as processes.
fn workers(project: &Project) -> Vec<(u32, String)> {
    let folder = project.path().canonicalize().expect("a folder");
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let here = |number: &u32| {
        fs::read_link(format!("/proc/{number}/cwd")).is_ok_and(|cwd| cwd.starts_with(&folder))
    };
    let rank = |number: u32| {
        let env = fs::read(format!("/proc/{number}/environ")).unwrap_or_default();
        let env = String::from_utf8_lossy(&env).into_owned();
        let rank = env
            .split('\0')
            .find_map(|line| line.strip_prefix("TUNESMITH_RANK="));
        (number, rank.unwrap_or("0").to_owned())
    };
    numbers.filter(here).map(rank).collect()
}

fn other(project: &Project) -> u32 {
    let found = workers(project).into_iter().find(|(_, rank)| rank == "1");
    found.expect("rank 1 runs").0
}

fn signal(process: u32, signal: &str) {
    let mut kill = Command::new("kill");
    let sent = kill.args([signal, &process.to_string()]).status();
    assert!(sent.expect("kill").success());
}

#[test]
fn two_ranks_give_the_adapter_of_one_up_to_the_order_of_sums() {
    let (two, one) = (project(8, CLAIM), project(8, ""));
    run(&two);
    run(&one);
    let told = log(&two);
    assert!(
        told.contains("2 ranks train together, this is rank 0"),
        "{told}"
    );
    assert_eq!(
        told.matches("step 8/8").count(),
        1,
        "one rank tells: {told}"
    );
    assert!(!log(&one).contains("ranks"));
    assert!(
        adapter(&two) != adapter(&one),
        "sums were added in another order"
    );
    let (a, b) = (adapter(&two), adapter(&one));
    let (a, b) = (
        SafeTensors::deserialize(&a).unwrap(),
        SafeTensors::deserialize(&b).unwrap(),
    );
    assert_eq!(a.names().len(), b.names().len());
    for name in a.names() {
        let floats = |file: &SafeTensors<'_>| -> Vec<f32> {
            let (values, _) = file.tensor(name).unwrap().data().as_chunks::<4>();
            values.iter().map(|v| f32::from_le_bytes(*v)).collect()
        };
        for (x, y) in floats(&a).iter().zip(floats(&b)) {
            assert!((x - y).abs() < 2e-3, "{name}: {x} {y}");
        }
    }
    for (x, y) in losses(&two).iter().zip(losses(&one)) {
        assert!((x / y - 1.0).abs() < 1e-4, "{x} {y}");
    }
    let again = project(8, CLAIM);
    run(&again);
    assert!(adapter(&again) == adapter(&two), "the same bytes twice");
    assert_eq!(workers(&two), [], "nobody is left");
}

#[test]
fn a_killed_rank_ends_the_stage_at_once_and_the_next_run_goes_on_to_the_same_bytes() {
    let whole = project(60, CLAIM);
    run(&whole);
    let killed = project(60, CLAIM);
    let child = begin(&killed);
    wait_until("a checkpoint", || {
        log(&killed).contains("checkpoint at step")
    });
    signal(other(&killed), "-KILL");
    let output = child.wait_with_output().expect("it ends");
    let page = killed.page(&output);
    assert_eq!(output.status.code(), Some(1), "{page}");
    assert!(
        page.contains("the process of rank 1 was ended by signal 9"),
        "{page}"
    );
    assert!(page.contains("train::rank-died"), "{page}");
    assert_eq!(workers(&killed), [], "nobody is left");
    run(&killed);
    assert!(log(&killed).contains("resumed after step"));
    assert!(adapter(&killed) == adapter(&whole));
}

#[test]
fn a_run_of_ranks_that_is_stopped_ends_all_of_them_and_goes_on() {
    let whole = project(60, CLAIM);
    run(&whole);
    for how in ["-INT", "-KILL"] {
        let stopped = project(60, CLAIM);
        let child = begin(&stopped);
        wait_until("a checkpoint", || {
            log(&stopped).contains("checkpoint at step")
        });
        signal(child.id(), how);
        let output = child.wait_with_output().expect("it ends");
        if how == "-INT" {
            assert_eq!(output.status.code(), Some(130), "{}", stopped.page(&output));
        }
        wait_until("the end of all workers", || workers(&stopped).is_empty());
        run(&stopped);
        assert!(log(&stopped).contains("resumed after step"));
        assert!(adapter(&stopped) == adapter(&whole), "{how}");
    }
}

#[test]
fn a_variable_that_makes_no_sense_is_named() {
    let project = project(8, CLAIM);
    let output = command(&project)
        .env("TUNESMITH_RENDEZVOUS_SECONDS", "soon")
        .output()
        .expect("it starts");
    let page = project.page(&output);
    assert_eq!(output.status.code(), Some(1), "{page}");
    assert!(
        page.contains("TUNESMITH_RENDEZVOUS_SECONDS is `soon`"),
        "{page}"
    );
    assert!(page.contains("train::wrong-rank"), "{page}");
}
