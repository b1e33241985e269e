//! `with:` of train -> the engine's settings, and what is wrong with it before a run.

use qlora::train::{LossMean, Samples, Schedule, TrainConfig};
use qlora::{LoraConfig, Target};

use crate::base::{Base, engine};
use crate::contract::{Fault, Params, StageError};
use crate::conversation::Message;

/// Longest sample answer, in tokens.
const SAMPLE_TOKENS: usize = 96;

/// Faults that parameters alone show.
pub(super) fn faults(params: &Params) -> Vec<Fault> {
    let mut faults = Vec::new();
    for name in params.list("targets") {
        if Target::from_suffix(&name).is_none() {
            let known: Vec<_> = Target::ALL.iter().map(|target| target.suffix()).collect();
            let code = if name == "lm_head" || name == "embed_tokens" {
                "train::target-not-lora"
            } else {
                "train::unknown-target"
            };
            let mend = format!("targets are: {}", known.join(", "));
            faults.push(Fault::new(
                code,
                "with.targets",
                format!("`{name}` cannot carry an adapter"),
                mend,
            ));
        }
    }
    if params.list("targets").is_empty() {
        faults.push(Fault::new(
            "train::no-target",
            "with.targets",
            "no layer carries an adapter",
            "leave `targets` out for all linear layers",
        ));
    }
    if params.float("lr").is_some_and(|lr| lr > 0.02) {
        faults.push(Fault::new(
            "train::high-lr",
            "with.lr",
            "this learning rate makes LoRA diverge",
            "use 1e-5 to 5e-3; start with 2e-4",
        ));
    }
    faults
}

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
        seed,
    };
    config.check().map_err(|error| engine(&error))?;
    Ok(config)
}

/// The run's settings. `rows` is the number of training rows.
pub(super) fn train_config(
    params: &Params,
    seed: u64,
    base: &Base,
    rows: usize,
) -> Result<TrainConfig, StageError> {
    let batch = count(params, "batch", 16);
    let steps_an_epoch = rows.div_ceil(batch).max(1) as u64;
    let optional = |name: &str| params.int(name).map(|value| value as u64);
    Ok(TrainConfig {
        epochs: count(params, "epochs", 2),
        max_steps: optional("max_steps"),
        batch,
        lr: number(params, "lr", 2e-4),
        schedule: match params.text("schedule").as_deref() {
            Some("linear") => Schedule::Linear,
            Some("constant") => Schedule::Constant,
            _ => Schedule::Cosine,
        },
        warmup_ratio: number(params, "warmup_ratio", 0.05),
        weight_decay: number(params, "weight_decay", 0.01),
        betas: (number(params, "beta1", 0.9), number(params, "beta2", 0.999)),
        eps: number(params, "eps", 1e-8),
        clip: params.float("clip"),
        loss: match params.text("loss").as_deref() {
            Some("row") => LossMean::Row,
            _ => LossMean::Token,
        },
        seed,
        eval_every: Some(optional("eval_every").unwrap_or(steps_an_epoch.div_ceil(2))),
        save_every: optional("save_every"),
        early_stop: params.int("early_stop").map(|value| value as u32),
        keep_best: params.flag("keep_best"),
        shared_prefix: params.flag("shared_prefix"),
        samples: samples(params, base)?,
        ..TrainConfig::default()
    })
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
