//! What PEFT needs to train on the same rows in the same order (`tests/laptop/curve`): the ids and labels of a run's
//! first steps, its settings, and the adapter that it starts from.
//!
//! With `TUNESMITH_SMOLLM2` (the model's GGUF file) and `TUNESMITH_CURVE` (a folder with `train.jsonl`, as `split`
//! leaves it) it writes `batches.json` and `adapter/` into that folder, for the laptop profile. `TUNESMITH_CURVE_STEPS`
//! also trains so many steps on the CPU and writes their losses, as a report has them, to `cpu.json`.
#![allow(clippy::print_stdout, reason = "it says what it wrote")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use qlora::Adapter;
use qlora::train::{StepRecord, TrainConfig, TrainEvent};
use serde_json::{Value, json};

use super::*;
use crate::model_tests::{ROWS, bench, trained};
use crate::testing::Bench;

/// Steps that are written.
const STEPS: usize = 50;

/// The laptop profile's `with`, as `pipeline.yaml` has it.
fn laptop() -> Value {
    json!({
        "quantization": "nf4", "r": 16, "alpha": 32, "dropout": 0, "lr": 2e-3, "batch": 8,
        "loss": "row", "epochs": 2, "context": 2048, "eval_every": 160, "samples": []
    })
}

/// A run that has been set up and not begun.
struct Setup {
    base: Base,
    rows: Vec<Example>,
    config: TrainConfig,
    start: Adapter,
    quantization: Quantization,
}

fn setup(bench: &Bench, with: Value) -> Setup {
    bench.under(&Train, with, |params, ctx| {
        let base = Base::open(ctx.input("base").unwrap(), ctx.input("tools").unwrap()).unwrap();
        let path = ctx.input("train").unwrap();
        let rows = rows::examples(&base, path, "train", &Rules::of(params), ctx).unwrap();
        let config = settings::train_config(params, ctx.seed, Some(&base), &rows.examples).unwrap();
        Setup {
            start: start(params, ctx, &base).unwrap(),
            rows: rows.examples,
            quantization: quantization(params),
            base,
            config,
        }
    })
}

/// Labelled ids as ranges: `[from, to)`.
fn ranges(labels: &[bool]) -> Vec<[usize; 2]> {
    let mut ranges: Vec<[usize; 2]> = Vec::new();
    for at in (0..labels.len()).filter(|at| labels[*at]) {
        match ranges.last_mut() {
            Some([_, to]) if *to == at => *to += 1,
            _ => ranges.push([at, at + 1]),
        }
    }
    ranges
}

/// The first steps of a run, and what else decides its losses.
fn batches(setup: &Setup) -> Value {
    let (rows, config) = (&setup.rows, &setup.config);
    let job = TrainJob::new(rows, config);
    let row = |place: usize| {
        let Example {
            id,
            ids,
            labels,
            weight,
        } = &rows[place];
        json!({ "id": id, "weight": weight, "ids": ids, "labels": ranges(labels) })
    };
    let steps = job.batches().take(STEPS);
    let steps: Vec<Vec<Value>> = steps
        .map(|batch| batch.into_iter().map(row).collect())
        .collect();
    json!({
        "settings": {
            "total": job.batches().count(), "schedule": config.schedule, "lr": config.lr,
            "lr_end": config.lr_end, "warmup_ratio": config.warmup_ratio,
            "warmup_steps": config.warmup_steps, "lora_plus": config.lora_plus,
            "weight_decay": config.weight_decay, "betas": config.betas, "eps": config.eps,
            "clip": config.clip, "loss": config.loss, "dropout": setup.start.config().dropout,
        },
        "steps": steps,
    })
}

fn write(setup: &Setup, folder: &Path) -> Value {
    let batches = batches(setup);
    std::fs::write(folder.join("batches.json"), batches.to_string()).unwrap();
    adapter_files::save(&setup.start, &folder.join("adapter"), Dtype::F32).unwrap();
    batches
}

/// Our own first steps, on the CPU.
fn on_cpu(setup: &Setup, steps: usize) -> Vec<StepRecord> {
    let mut model = Model::load(&setup.base.files, setup.quantization).unwrap();
    let enough = AtomicBool::new(false);
    let mut records = Vec::new();
    let job = TrainJob {
        cancel: &enough,
        ..TrainJob::new(&setup.rows, &setup.config)
    };
    let stopped = train(&mut model, &mut setup.start.clone(), job, &mut |event| {
        if let TrainEvent::Step { record, .. } = event {
            records.push(record);
            enough.store(records.len() == steps, Ordering::Relaxed);
        }
    });
    assert!(stopped.is_err() || records.len() <= steps);
    records
}

#[test]
fn the_laptop_s_first_batches_are_written_for_peft() {
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let (Some(model), Some(folder)) = (named("TUNESMITH_SMOLLM2"), named("TUNESMITH_CURVE")) else {
        println!(
            "TUNESMITH_SMOLLM2 and TUNESMITH_CURVE name no model and no folder: nothing written"
        );
        return;
    };
    let mut bench = Bench::new();
    bench.tools();
    bench.inputs.insert("base".to_owned(), vec![model]);
    let rows = folder.join("train.jsonl");
    bench.inputs.insert("train".to_owned(), vec![rows]);
    let setup = setup(&bench, laptop());
    let written = write(&setup, &folder);
    let (steps, total) = (&written["steps"], &written["settings"]["total"]);
    println!(
        "{} of {total} steps, {} rows",
        steps.as_array().unwrap().len(),
        setup.rows.len()
    );
    if let Some(steps) = named("TUNESMITH_CURVE_STEPS") {
        let steps = steps.to_str().unwrap().parse().unwrap();
        let records = json!({ "steps": on_cpu(&setup, steps) });
        std::fs::write(folder.join("cpu.json"), records.to_string()).unwrap();
    }
}

/// The tiny model's run: what is written is what is trained on, from where training starts.
#[test]
fn written_batches_are_the_run_s_own() {
    let with = || json!({ "epochs": 2, "batch": 2, "lr": 5e-3, "r": 4, "alpha": 8, "loss": "row", "samples": [] });
    let report = trained(with()).json("report.json");
    let trained = report["steps"].as_array().unwrap();

    let mut bench = bench();
    bench.give("train", "train.jsonl", ROWS);
    let setup = setup(&bench, with());
    let folder = tempfile::tempdir().unwrap();
    let written = write(&setup, folder.path());
    assert_eq!(written["settings"]["total"], trained.len());
    let steps = written["steps"].as_array().unwrap();
    assert_eq!(steps.len(), trained.len());
    for (step, record) in steps.iter().zip(trained) {
        let labels = step.as_array().unwrap().iter().flat_map(|row| {
            let ranges = row["labels"].as_array().unwrap().iter();
            ranges.map(|range| range[1].as_u64().unwrap() - range[0].as_u64().unwrap())
        });
        assert_eq!(labels.sum::<u64>(), record["labels"].as_u64().unwrap());
    }
    assert_eq!(json!(on_cpu(&setup, 1)), json!([trained[0]]));

    let adapter = folder.path().join("adapter");
    bench.inputs.insert("adapter".to_owned(), vec![adapter]);
    bench.run(&Train, with()).unwrap();
    assert_eq!(bench.json("report.json")["steps"], report["steps"]);
}
