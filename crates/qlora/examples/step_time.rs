//! How long a training step takes, and what share of this machine's matrix speed that is.
//!
//! A decoder of SmolLM2-135M's shape with random weights (speed does not depend on values) learns rows
//! that share a prompt, once with the prefix shared and once row by row. The ceiling is the best of several
//! 2048 x 2048 x 2048 f32 products measured in the same run.
//!
//! `cargo run --release -p qlora --example step_time [PREFIX [ROWS [OWN [STEPS]]]]`
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::time::Instant;

use candle_core::{Device, Tensor};
use qlora::train::{Example, TrainConfig, TrainEvent, TrainJob, train};
use qlora::{
    Adapter, LayerAttention, LoraConfig, Matrix, Model, ModelConfig, Result, Rope, Target,
};

fn smollm2() -> ModelConfig {
    ModelConfig {
        vocab: 49_152,
        hidden: 576,
        intermediate: 1536,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        attention: vec![
            LayerAttention {
                window: None,
                rope: Rope::plain(1e5),
            };
            30
        ],
        attention_scale: ModelConfig::plain_scale(64),
        tie_embeddings: true,
        max_position: 8192,
        bos: Some(1),
        eos: vec![2],
        ..ModelConfig::default()
    }
}

/// Uniform values of a trained model's size.
fn random(rows: usize, cols: usize, state: &mut u64) -> Matrix {
    let mut draw = || {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((*state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * 0.05
    };
    Matrix::new(rows, cols, (0..rows * cols).map(|_| draw()).collect())
}

fn model(config: &ModelConfig) -> Result<Model> {
    let (mut a, mut b) = (1, 2);
    let linear = |name: &str| {
        let target = Target::ALL
            .into_iter()
            .find(|t| name.contains(t.path()))
            .expect("a linear layer");
        let (rows, cols) = target.shape(config);
        Ok(random(rows, cols, &mut a))
    };
    let tensor = |name: &str| {
        if name.ends_with("norm.weight") {
            return Ok(Matrix::new(1, config.hidden, vec![1.0; config.hidden]));
        }
        Ok(random(config.vocab, config.hidden, &mut b))
    };
    Model::from_tensors(config, linear, tensor)
}

/// Rows of `prefix` equal ids and `own` of their own, of which the last half is predicted.
fn examples(prefix: usize, rows: usize, own: usize) -> Vec<Example> {
    let row = |row: usize| {
        let id = |i: usize| {
            if i < prefix {
                i as u32 % 40_000
            } else {
                ((row * 7919 + i * 31) % 40_000) as u32
            }
        };
        let labels = (0..prefix + own).map(|i| i >= prefix + own / 2).collect();
        Example {
            id: format!("row-{row}"),
            ids: (0..prefix + own).map(id).collect(),
            labels,
            weight: 1.0,
        }
    };
    (0..rows).map(row).collect()
}

/// Best speed of a square product, in FLOP/s.
fn ceiling() -> f64 {
    let product = |n: usize| -> candle_core::Result<f64> {
        let a = Tensor::randn(0f32, 1.0, (n, n), &Device::Cpu)?;
        let begun = Instant::now();
        a.matmul(&a)?;
        Ok(2.0 * (n as f64).powi(3) / begun.elapsed().as_secs_f64())
    };
    (0..12)
        .filter_map(|_| product(2048).ok())
        .fold(0.0, f64::max)
}

/// Work of one step: linear layers forward and for the input's gradient, attention forward and backward,
/// the head on predicted ids. Adapters are not counted.
fn flops(config: &ModelConfig, tokens: f64, pairs: f64, labels: f64) -> f64 {
    let linear: usize = Target::ALL
        .iter()
        .map(|t| t.shape(config))
        .map(|(o, i)| o * i)
        .sum();
    let attention = 3.5 * 4.0 * pairs * config.query_width() as f64;
    let head = 4.0 * labels * (config.vocab * config.hidden) as f64;
    config.layers as f64 * (4.0 * tokens * linear as f64 + attention) + head
}

fn main() -> Result<()> {
    let given: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|a| a.parse().ok())
        .collect();
    let setting = |i: usize, default: usize| given.get(i).copied().unwrap_or(default);
    let (prefix, rows, own, steps) = (
        setting(0, 400),
        setting(1, 16),
        setting(2, 100),
        setting(3, 3),
    );
    let config = smollm2();
    let mut model = model(&config)?;
    let lora = LoraConfig {
        r: 16,
        alpha: 32.0,
        dropout: 0.0,
        targets: Target::ALL.to_vec(),
        seed: 1,
        ..LoraConfig::default()
    };
    let examples = examples(prefix, rows, own);
    let ceiling = ceiling();
    println!(
        "ceiling: {:.0} GFLOP/s on {} threads",
        ceiling / 1e9,
        rayon::current_num_threads()
    );
    for shared_prefix in [true, false] {
        let mut adapter = Adapter::new(&config, &lora)?;
        let settings = TrainConfig {
            epochs: steps,
            batch: rows,
            shared_prefix,
            ..TrainConfig::default()
        };
        let mut best = f64::INFINITY;
        let mut record = None;
        let mut sink = |event| match event {
            TrainEvent::Step {
                record: step,
                seconds,
                ..
            } => {
                best = best.min(seconds);
                record = Some(step);
            }
            TrainEvent::Started {
                activation_bytes, ..
            } => println!("activations: {} MiB", activation_bytes >> 20),
            _ => {}
        };
        train(
            &mut model,
            &mut adapter,
            TrainJob::new(&examples, &settings),
            &mut sink,
        )?;
        let record = record.expect("at least one step");
        let (p, n, r) = (prefix as f64, own as f64, rows as f64);
        let row_pairs = n * n / 2.0 + p * n;
        let pairs = if shared_prefix {
            p * p / 2.0 + r * row_pairs
        } else {
            r * (p + n) * (p + n) / 2.0
        };
        let work = flops(&config, record.tokens as f64, pairs, record.labels as f64);
        println!(
            "{}: {} tokens, {} labels, {:.2} TFLOP, {best:.2} s, {:.0} GFLOP/s, {:.0} % of the ceiling, loss {:.4}",
            if shared_prefix {
                "shared prefix"
            } else {
                "separate rows"
            },
            record.tokens,
            record.labels,
            work / 1e12,
            work / best / 1e9,
            100.0 * work / best / ceiling,
            record.loss,
        );
    }
    Ok(())
}
