//! What each option promises: kept adapters, batches by tokens, weights of rows, and that a run with all of
//! them resumes to the same bytes.

use super::*;
use crate::nn::lora::Init;

fn plain() -> TrainConfig {
    TrainConfig {
        schedule: Schedule::Constant,
        warmup_ratio: 0.0,
        keep_best: false,
        ..settings()
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn the_best_are_kept_in_order_with_the_values_that_were_judged() {
    let config = TrainConfig {
        epochs: 4,
        lr: 3e-2,
        eval_every: Some(1),
        keep: 3,
        ..plain()
    };
    let (_, report) = run(None, u64::MAX, &config);
    let report = report.unwrap();
    let mut losses: Vec<f64> = report.validations.iter().map(|v| v.loss).collect();
    assert!(losses.len() > 5);
    losses.sort_by(f64::total_cmp);
    let kept: Vec<f64> = report.kept.iter().map(|k| k.validation.loss).collect();
    assert_eq!(kept, losses[..3]);
    for kept in &report.kept {
        // The rate does not depend on the length of the run, so a shorter run ends with the same values.
        let short = TrainConfig {
            max_steps: Some(kept.validation.step),
            ..config.clone()
        };
        assert!(run(None, u64::MAX, &short).0 == bits(&kept.values));
    }
    let best = TrainConfig {
        keep_best: true,
        ..config.clone()
    };
    assert!(run(None, u64::MAX, &best).0 == bits(&report.kept[0].values));
    let fewer = TrainConfig { keep: 0, ..best };
    assert!(run(None, u64::MAX, &fewer).1.unwrap().kept.is_empty());
}

/// An adapter with a pair of every kind, and a run with every option.
fn everything() -> (Adapter, Vec<Example>, TrainConfig) {
    let model = tiny_config();
    let lora = LoraConfig {
        r: 4,
        alpha: 8.0,
        dropout: 0.1,
        layers: Some(vec![1]),
        rank_pattern: [("q_proj".to_owned(), 2)].into(),
        alpha_pattern: [("up_proj".to_owned(), 3.0)].into(),
        rslora: true,
        init: Init::Gaussian,
        ..LoraConfig::default()
    };
    let mut all = examples(13);
    for (at, example) in all.iter_mut().enumerate() {
        example.weight = [1.0, 0.5, 3.0][at % 3];
    }
    let config = TrainConfig {
        epochs: 6,
        batch: 4,
        batch_tokens: Some(120),
        lr: 5e-2,
        lora_plus: 4.0,
        schedule: Schedule::Linear,
        lr_end: 0.1,
        warmup_steps: Some(3),
        loss: LossMean::Row,
        eval_every: Some(2),
        save_every: Some(3),
        early_stop: Some(2),
        keep_best: true,
        keep: 2,
        ..TrainConfig::default()
    };
    (Adapter::new(&model, &lora).unwrap(), all, config)
}

#[test]
fn a_run_with_every_option_resumes_to_the_same_bytes() {
    let (adapter, all, config) = everything();
    let run = |dir: Option<&std::path::Path>, until: u64| {
        run_from(adapter.clone(), &all, dir, until, &config)
    };
    let (want, want_report) = run(None, u64::MAX);
    let want_report = want_report.unwrap();
    assert_eq!(want_report.stop, Stop::Early, "it stops by itself");
    let steps = want_report.steps.len() as u64;
    assert!(steps > 6, "{steps}");
    for stops in [
        vec![1],
        vec![4],
        vec![2, 3, 5, 6],
        vec![steps - 1],
        vec![steps],
    ] {
        let dir = tempfile::tempdir().unwrap();
        for stop in &stops {
            let _ = run(Some(dir.path()), *stop);
        }
        let (got, report) = run(Some(dir.path()), u64::MAX);
        assert!(got == want, "stopped at {stops:?}");
        assert_eq!(report.unwrap(), want_report);
    }
}

#[test]
fn other_weights_are_another_run() {
    let (adapter, mut all, config) = everything();
    let dir = tempfile::tempdir().unwrap();
    let run = |all: &[Example], dir: Option<&std::path::Path>, until| {
        run_from(adapter.clone(), all, dir, until, &config)
    };
    run(&all, Some(dir.path()), 2).1.unwrap_err();
    all[0].weight = 2.0;
    let (fresh, _) = run(&all, None, 9);
    let (beside, _) = run(&all, Some(dir.path()), 9);
    assert!(fresh == beside, "it starts from the beginning");
}
