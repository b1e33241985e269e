//! `with:` of train -> the engine's settings.

use std::collections::BTreeMap;

use qlora::train::{Example, LossMean, Samples, Schedule, TrainConfig, TrainJob};
use qlora::{Init, LoraConfig, Target};

use crate::base::{Base, engine};
use crate::contract::{Params, StageError};
use crate::conversation::Message;

/// Longest sample answer, in tokens.
const SAMPLE_TOKENS: usize = 96;

/// The adapter's shape.
pub(super) fn lora(params: &Params, seed: u64) -> Result<LoraConfig, StageError> {
    let targets = params.list("targets");
    let targets = targets
        .iter()
        .filter_map(|name| Target::from_suffix(name))
        .collect();
    let config = LoraConfig {
        r: count(params, "r", 16),
        alpha: number(params, "alpha", 32.0) as f32,
        dropout: number(params, "dropout", 0.0) as f32,
        targets,
        layers: params
            .ints("layers")
            .map(|layers| layers.into_iter().map(|layer| layer as usize).collect()),
        rank_pattern: pattern(params, "rank_pattern", |rank| rank as usize),
        alpha_pattern: pattern(params, "alpha_pattern", |alpha| alpha as f32),
        rslora: params.flag("rslora"),
        init: match params.text("init").as_deref() {
            Some("gaussian") => Init::Gaussian,
            _ => Init::Kaiming,
        },
        seed,
    };
    config.check().map_err(|error| engine(&error))?;
    Ok(config)
}

fn pattern<T>(params: &Params, name: &str, read: fn(f64) -> T) -> BTreeMap<String, T> {
    let pattern = params.map(name).into_iter();
    pattern
        .filter_map(|(key, value)| Some((key, read(value.as_f64()?))))
        .collect()
}

/// The run's settings; without a base it gives no sample answers.
pub(super) fn train_config(
    params: &Params,
    seed: u64,
    base: Option<&Base>,
    rows: &[Example],
) -> Result<TrainConfig, StageError> {
    let optional = |name: &str| params.int(name).map(|value| value as u64);
    let mut config = TrainConfig {
        epochs: count(params, "epochs", 2),
        max_steps: optional("max_steps"),
        batch: count(params, "batch", 16),
        batch_tokens: params.int("batch_tokens").map(|tokens| tokens as usize),
        lr: number(params, "lr", 2e-4),
        lora_plus: number(params, "lora_plus", 1.0),
        schedule: match params.text("schedule").as_deref() {
            Some("linear") => Schedule::Linear,
            Some("constant") => Schedule::Constant,
            _ => Schedule::Cosine,
        },
        lr_end: number(params, "lr_end", 0.0),
        warmup_ratio: number(params, "warmup_ratio", 0.05),
        warmup_steps: optional("warmup_steps"),
        weight_decay: number(params, "weight_decay", 0.01),
        betas: (number(params, "beta1", 0.9), number(params, "beta2", 0.999)),
        eps: number(params, "eps", 1e-8),
        clip: params.float("clip"),
        loss: match params.text("loss").as_deref() {
            Some("row") => LossMean::Row,
            _ => LossMean::Token,
        },
        seed,
        eval_every: optional("eval_every"),
        save_every: optional("save_every"),
        early_stop: params.int("early_stop").map(|value| value as u32),
        keep_best: params.flag("keep_best"),
        keep: count(params, "keep", 0),
        shared_prefix: params.flag("shared_prefix"),
        samples: base.map_or(Ok(None), |base| samples(params, base))?,
        ..TrainConfig::default()
    };
    if config.eval_every.is_none() {
        let epoch = TrainJob::new(rows, &config).steps_of_first_epoch();
        config.eval_every = Some(epoch.max(1).div_ceil(2));
    }
    Ok(config)
}

fn samples(params: &Params, base: &Base) -> Result<Option<Samples>, StageError> {
    let mut prompts = Vec::new();
    for text in params.list("samples") {
        let asked = [Message::User {
            content: text.clone(),
        }];
        prompts.push((text, base.encode_prompt(None, &asked)?));
    }
    let stop = base.stop_ids()?;
    Ok((!prompts.is_empty()).then_some(Samples {
        prompts,
        max_new: SAMPLE_TOKENS,
        stop,
    }))
}

fn count(params: &Params, name: &str, default: usize) -> usize {
    params.int(name).map_or(default, |value| value as usize)
}

fn number(params: &Params, name: &str, default: f64) -> f64 {
    params.float(name).unwrap_or(default)
}
