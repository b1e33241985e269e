//! A batch with a shared prefix equals separate rows: on rows written by hand, with the real model.
//!
//! Runs where `TUNESMITH_SMOLLM2` names the model's GGUF file. Prints what both ways cost:
//! `cargo test --release -p stages real_rows -- --nocapture`.
#![allow(clippy::print_stdout, reason = "a measurement for its reader")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use qlora::train::{Example, Schedule, StepRecord, TrainConfig, TrainJob, train};
use qlora::{Adapter, LoraConfig, Model, Quantization, Target};

use crate::base::Base;
use crate::conversation::{Conversation, read_lines};

const ROWS: usize = 8;
/// Each gradient, relative to its norm; and the loss.
const TOLERANCE: f64 = 1e-5;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../data")
        .join(name)
}

/// Rows of every kind, spread over the file of each.
fn examples(base: &Base) -> Vec<Example> {
    ["single", "negative", "compound", "multi_turn"]
        .iter()
        .flat_map(|kind| {
            let path = data(&format!("examples/{kind}.jsonl"));
            let all = read_lines::<Conversation>(&path).unwrap();
            [
                example(base, &all[0].0),
                example(base, &all[all.len() - 1].0),
            ]
        })
        .collect()
}

fn example(base: &Base, row: &Conversation) -> Example {
    let encoded = base.encode_row(row).unwrap();
    Example {
        id: row.id.clone(),
        ids: encoded.ids,
        labels: encoded.labels,
        weight: 1.0,
    }
}

/// An adapter whose B is not zero, or A would have no gradient.
fn adapter(model: &Model) -> Adapter {
    let config = LoraConfig {
        r: 16,
        alpha: 32.0,
        dropout: 0.0,
        targets: Target::ALL.to_vec(),
        seed: 3,
        ..LoraConfig::default()
    };
    let mut adapter = Adapter::new(model.config(), &config).unwrap();
    let mut state = 1_u64;
    for value in adapter.values_mut() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        *value += ((state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0) * 0.01;
    }
    adapter
}

/// A multiple of each gradient, read off one step of AdamW with a huge epsilon: both moments are corrected to
/// `g` and `g^2`, so the step is `lr * g / (|g| + eps)`, all but `1e4 * g`: far above the rounding of the
/// values that it moves.
fn gradient(
    model: &mut Model,
    start: &Adapter,
    rows: &[Example],
    shared: bool,
) -> (Vec<f32>, StepRecord, f64) {
    let eps = 1e6;
    let config = TrainConfig {
        batch: ROWS,
        lr: 1e4 * eps,
        eps,
        weight_decay: 0.0,
        warmup_ratio: 0.0,
        schedule: Schedule::Constant,
        clip: None,
        shared_prefix: shared,
        ..TrainConfig::default()
    };
    let mut moved = start.clone();
    let begun = Instant::now();
    let report = train(model, &mut moved, TrainJob::new(rows, &config), &mut |_| {}).unwrap();
    let step = start
        .values()
        .iter()
        .zip(moved.values())
        .map(|(before, after)| before - after);
    (
        step.collect(),
        report.steps[0].clone(),
        begun.elapsed().as_secs_f64(),
    )
}

fn distance(got: &[f32], want: &[f32]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let apart = square(&mut got.iter().zip(want).map(|(a, b)| f64::from(a - b)));
    (apart / square(&mut want.iter().map(|v| f64::from(*v)))).sqrt()
}

#[test]
fn real_rows_with_a_shared_prefix_learn_as_separate_ones() {
    let Some(path) = std::env::var_os("TUNESMITH_SMOLLM2").map(PathBuf::from) else {
        println!("TUNESMITH_SMOLLM2 names no model: nothing was compared");
        return;
    };
    let base = Base::open(&path, &data("tools.yaml")).unwrap();
    let rows = examples(&base);
    let mut model = Model::load(&base.files, Quantization::Nf4 { double: true }).unwrap();
    let start = adapter(&model);
    let (shared, record, seconds) = gradient(&mut model, &start, &rows, true);
    let (separate, apart, slow) = gradient(&mut model, &start, &rows, false);
    let mut worst = 0.0_f64;
    for slot in start.slots() {
        for range in [&slot.a, &slot.b] {
            let far = distance(&shared[range.clone()], &separate[range.clone()]);
            worst = worst.max(far);
            assert!(
                far < TOLERANCE,
                "layer {} {:?}: {far}",
                slot.layer,
                slot.target
            );
        }
    }
    let loss = (record.loss / apart.loss - 1.0).abs();
    assert!(loss < TOLERANCE, "{} {}", record.loss, apart.loss);
    println!(
        "loss {:.6}, apart by {loss:.1e}; gradients of {} tensors, the farthest {worst:.1e} of its norm apart",
        record.loss,
        2 * start.slots().len()
    );
    println!(
        "shared {} tokens in {seconds:.2} s, separate {} tokens in {slow:.2} s",
        record.tokens, apart.tokens
    );
}
