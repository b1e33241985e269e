//! The promises of training, on a tiny random model: sharing and micro-batches change nothing, a resumed
//! run has the same bytes, threads do not matter, a NaN is caught with its row.

use std::sync::atomic::AtomicBool;

use super::batch::{self, Group};
use super::memory::Budget;
use super::step::{BatchLoss, Masks, Runner};
use super::*;
use crate::config::ModelConfig;
use crate::error::Error;
use crate::nn::adapter::{Adapter, Target};
use crate::nn::lora::LoraConfig;
use crate::nn::model::Model;
use crate::nn::model::tests::{tiny_config, tiny_model};
use crate::nn::pool::Pool;
use crate::nn::ropes::Ropes;
use crate::ops::simd::tests::noise;

mod options;
mod ranks;

static OFF: AtomicBool = AtomicBool::new(false);

fn adapter(config: &ModelConfig, targets: &[Target], dropout: f32) -> Adapter {
    let lora = LoraConfig {
        r: 4,
        alpha: 8.0,
        dropout,
        targets: targets.to_vec(),
        seed: 5,
        ..LoraConfig::default()
    };
    let mut adapter = Adapter::new(config, &lora).unwrap();
    let values: Vec<f32> = noise(adapter.values().len(), 9)
        .iter()
        .map(|v| 0.2 * v)
        .collect();
    adapter.values_mut().copy_from_slice(&values);
    adapter
}

/// Conversations that start alike for 33 ids, with answers of several lengths and one odd row.
fn examples(count: usize) -> Vec<Example> {
    (0..count)
        .map(|row| {
            let odd = row == 2;
            let shared = (0..33).map(|i| (i * 7 + 3 + u32::from(odd)) % 61);
            let own = noise(8 + 3 * (row % 5), row as u64 + 1);
            let ids: Vec<u32> = shared
                .chain(own.iter().map(|v| ((v + 1.0) * 30.0) as u32))
                .collect();
            let labels = (0..ids.len()).map(|i| i >= 36 && i % 5 != 0).collect();
            Example {
                id: format!("row-{row}"),
                ids,
                labels,
                weight: 1.0,
            }
        })
        .collect()
}

fn learn(
    model: &mut Model,
    adapter: &Adapter,
    examples: &[Example],
    groups: &[Group],
    config: &TrainConfig,
    rate: f32,
) -> (BatchLoss, Vec<f32>) {
    model.attach(adapter).unwrap();
    let shape = model.config().clone();
    let rope = Ropes::new(&shape, 100);
    let budget = Budget::new(&shape, adapter.rank(), config);
    let runner = Runner {
        model,
        adapter,
        rope: &rope,
        examples,
        budget,
        mean: config.loss,
        over: BatchLoss::count(config.loss, examples, groups).over,
        cancel: &OFF,
    };
    let mut grads = vec![0.0; adapter.values().len()];
    let masks = Masks {
        rate,
        seed: 3,
        step: 7,
    };
    let loss = runner
        .learn(
            groups,
            (masks.rate > 0.0).then_some(masks),
            &mut grads,
            &mut Pool::default(),
        )
        .unwrap();
    (loss, grads)
}

/// Largest difference of any pair's gradient, relative to that pair's norm.
fn distance(adapter: &Adapter, a: &[f32], b: &[f32]) -> f64 {
    let relative = |range: &std::ops::Range<usize>| {
        let (mut difference, mut norm) = (0.0f64, 0.0f64);
        for i in range.clone() {
            difference += f64::from(a[i] - b[i]).powi(2);
            norm += f64::from(a[i]).powi(2);
        }
        assert!(norm > 0.0, "every pair gets a gradient");
        (difference / norm).sqrt()
    };
    adapter
        .slots()
        .iter()
        .flat_map(|s| [relative(&s.a), relative(&s.b)])
        .fold(0.0, f64::max)
}

#[test]
fn a_shared_prefix_changes_neither_loss_nor_gradient() {
    for window in [None, Some(20)] {
        let mut config = tiny_config();
        for layer in &mut config.attention {
            layer.window = window;
        }
        let mut model = tiny_model(&config);
        let adapter = adapter(&config, &Target::ALL, 0.0);
        let examples = examples(9);
        let everything: Vec<usize> = (0..9).collect();
        let settings = TrainConfig::default();
        let shared = batch::group(&examples, &everything, true);
        assert_eq!(
            shared.iter().map(|g| g.members.len()).collect::<Vec<_>>(),
            [8, 1]
        );
        assert!(shared[0].prefix >= 33);
        let separate = batch::group(&examples, &everything, false);
        let (loss, grads) = learn(&mut model, &adapter, &examples, &shared, &settings, 0.0);
        let (want, want_grads) = learn(&mut model, &adapter, &examples, &separate, &settings, 0.0);
        assert!((loss.mean() / want.mean() - 1.0).abs() < 1e-6);
        assert_eq!(
            (loss.labels, loss.separate_tokens),
            (want.labels, want.tokens)
        );
        assert!(loss.tokens < want.tokens / 2);
        let far = distance(&adapter, &want_grads, &grads);
        assert!(far < 1e-5, "{far}");
    }
}

#[test]
fn a_shared_prefix_is_exact_under_dropout_given_the_same_masks() {
    let config = tiny_config();
    let mut model = tiny_model(&config);
    let adapter = adapter(&config, &Target::ALL, 0.2);
    let examples = examples(5);
    let settings = TrainConfig::default();
    let shared = batch::group(&examples, &[0, 1, 3, 4], true);
    let separate = [Group {
        prefix: 0,
        ..shared[0].clone()
    }];
    let (loss, grads) = learn(&mut model, &adapter, &examples, &shared, &settings, 0.2);
    let (want, want_grads) = learn(&mut model, &adapter, &examples, &separate, &settings, 0.2);
    assert!((loss.mean() / want.mean() - 1.0).abs() < 1e-6);
    assert!(distance(&adapter, &want_grads, &grads) < 1e-5);
    let (plain, _) = learn(&mut model, &adapter, &examples, &separate, &settings, 0.0);
    assert!(
        (plain.mean() - want.mean()).abs() > 1e-4,
        "the masks do something"
    );
}

#[test]
fn micro_batches_and_recomputing_change_nothing_but_rounding() {
    let config = tiny_config();
    let mut model = tiny_model(&config);
    let adapter = adapter(&config, &Target::ALL, 0.1);
    let examples = examples(9);
    let everything: Vec<usize> = (0..9).collect();
    let groups = batch::group(&examples, &everything, true);
    let (want, want_grads) = learn(
        &mut model,
        &adapter,
        &examples,
        &groups,
        &TrainConfig::default(),
        0.1,
    );
    let settings = [
        TrainConfig {
            micro_batch: Some(1),
            ..TrainConfig::default()
        },
        TrainConfig {
            micro_batch: Some(3),
            ..TrainConfig::default()
        },
        TrainConfig {
            activation_bytes: 1,
            ..TrainConfig::default()
        },
    ];
    for settings in settings {
        let (loss, grads) = learn(&mut model, &adapter, &examples, &groups, &settings, 0.1);
        assert!((loss.mean() / want.mean() - 1.0).abs() < 1e-6);
        assert!(distance(&adapter, &want_grads, &grads) < 1e-5);
    }
}

/// Row by row, the loss of each is its own mean; the batch's is the mean of those.
#[test]
fn every_row_counts_alike_if_asked_whatever_the_micro_batches_and_prefixes() {
    let config = tiny_config();
    let mut model = tiny_model(&config);
    let adapter = adapter(&config, &Target::ALL, 0.0);
    let examples = examples(9);
    let everything: Vec<usize> = (0..9).collect();
    let mut learn = |rows: &[usize], shared: bool, settings: &TrainConfig| {
        let groups = batch::group(&examples, rows, shared);
        learn(&mut model, &adapter, &examples, &groups, settings, 0.0)
    };
    let token = TrainConfig::default();
    let row = TrainConfig {
        loss: LossMean::Row,
        ..TrainConfig::default()
    };
    let (mut want, mut want_grads) = (0.0, vec![0.0; adapter.values().len()]);
    for one in 0..9 {
        let (loss, grads) = learn(&[one], false, &token);
        want += loss.mean() / 9.0;
        for (sum, g) in want_grads.iter_mut().zip(grads) {
            *sum += g / 9.0;
        }
    }
    for settings in [
        row.clone(),
        TrainConfig {
            micro_batch: Some(2),
            ..row.clone()
        },
        TrainConfig {
            activation_bytes: 1,
            ..row
        },
    ] {
        for shared in [false, true] {
            let (loss, grads) = learn(&everything, shared, &settings);
            assert!((loss.mean() / want - 1.0).abs() < 1e-6);
            assert!(distance(&adapter, &want_grads, &grads) < 1e-5);
        }
    }
    let (by_token, _) = learn(&everything, true, &token);
    assert!(
        (by_token.mean() / want - 1.0).abs() > 1e-3,
        "the rows differ in length"
    );
}

#[test]
fn gradients_match_finite_differences_for_every_subset_of_targets() {
    let config = ModelConfig {
        qkv_bias: true,
        tie_embeddings: true,
        ..tiny_config()
    };
    let examples = examples(4);
    for targets in [
        Target::ALL.to_vec(),
        vec![Target::Q, Target::V],
        vec![Target::Up],
        vec![Target::Down, Target::K],
    ] {
        let mut model = tiny_model(&config);
        let mut adapter = adapter(&config, &targets, 0.0);
        let groups = batch::group(&examples, &[0, 1, 2, 3], true);
        let settings = TrainConfig::default();
        let (_, grads) = learn(&mut model, &adapter, &examples, &groups, &settings, 0.0);
        // Along the gradient the loss must rise by its squared norm: all values take part at once.
        let square: f64 = grads.iter().map(|g| f64::from(*g).powi(2)).sum();
        let start = adapter.values().to_vec();
        let reach = 2e-2 / square.sqrt();
        let mut at = |factor: f64| {
            for ((v, s), g) in adapter.values_mut().iter_mut().zip(&start).zip(&grads) {
                *v = s + (factor * reach * f64::from(*g)) as f32;
            }
            learn(&mut model, &adapter, &examples, &groups, &settings, 0.0)
                .0
                .mean()
        };
        let slope = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * reach);
        assert!(
            (slope / square - 1.0).abs() < 1e-3,
            "{targets:?}: {slope} {square}"
        );
    }
}

fn settings() -> TrainConfig {
    TrainConfig {
        epochs: 2,
        batch: 4,
        lr: 5e-3,
        eval_every: Some(2),
        save_every: Some(1),
        keep_best: true,
        ..TrainConfig::default()
    }
}

/// A whole run: the adapter's bytes and the report. Stops (by `cancel`) after `until` steps.
fn run(
    dir: Option<&std::path::Path>,
    until: u64,
    config: &TrainConfig,
) -> (Vec<u32>, Result<TrainReport, Error>) {
    let adapter = adapter(&tiny_config(), &Target::ALL, 0.1);
    run_from(adapter, &examples(13), dir, until, config)
}

/// The same from any adapter, the last three examples held out.
fn run_from(
    mut adapter: Adapter,
    all: &[Example],
    dir: Option<&std::path::Path>,
    until: u64,
    config: &TrainConfig,
) -> (Vec<u32>, Result<TrainReport, Error>) {
    let mut model = tiny_model(&tiny_config());
    let cancel = AtomicBool::new(false);
    let mut sink = |event: TrainEvent| {
        if let TrainEvent::Step { record, .. } = event {
            cancel.store(record.step >= until, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let (train_on, val) = all.split_at(all.len() - 3);
    let job = TrainJob {
        val,
        checkpoints: dir,
        cancel: &cancel,
        ..TrainJob::new(train_on, config)
    };
    let report = train(&mut model, &mut adapter, job, &mut sink);
    (
        adapter.values().iter().map(|v| v.to_bits()).collect(),
        report,
    )
}

#[test]
fn training_lowers_the_loss_and_reports_it() {
    let config = TrainConfig {
        epochs: 12,
        lr: 2e-2,
        ..settings()
    };
    let (_, report) = run(None, u64::MAX, &config);
    let report = report.unwrap();
    assert_eq!(report.steps.len(), 36);
    let (first, last) = (report.steps[0].loss, report.steps[35].loss);
    assert!(last < 0.6 * first, "{first} {last}");
    assert_eq!(report.validations.len(), 18);
    assert_eq!(report.best.as_ref().unwrap().step, report.returned_step);
    let lowest = report
        .validations
        .iter()
        .map(|v| v.loss)
        .fold(f64::INFINITY, f64::min);
    assert_eq!(report.best.unwrap().loss, lowest);
}

#[test]
fn a_resumed_run_ends_with_the_same_bytes() {
    let (want, want_report) = run(None, u64::MAX, &settings());
    let want_report = want_report.unwrap();
    for stops in [vec![1], vec![3], vec![1, 2, 3, 4, 5], vec![6]] {
        let dir = tempfile::tempdir().unwrap();
        for stop in &stops {
            let (_, report) = run(Some(dir.path()), *stop, &settings());
            assert!(*stop == 6 || matches!(report, Err(Error::Cancelled)));
        }
        let (got, report) = run(Some(dir.path()), u64::MAX, &settings());
        assert!(got == want, "stopped at {stops:?}");
        assert_eq!(report.unwrap(), want_report);
    }
}

#[test]
fn a_run_does_not_go_on_from_anothers_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    run(Some(dir.path()), 2, &settings()).1.unwrap_err();
    let other = TrainConfig {
        lr: 1e-3,
        ..settings()
    };
    let (fresh, _) = run(None, u64::MAX, &other);
    let (beside, _) = run(Some(dir.path()), u64::MAX, &other);
    assert!(fresh == beside, "it starts from the beginning");
    let saves_less = TrainConfig {
        save_every: None,
        ..settings()
    };
    assert!(run(Some(dir.path()), u64::MAX, &saves_less).1.is_ok());
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let at = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| run(None, u64::MAX, &settings()))
    };
    let (one, report) = at(1);
    for threads in [2, 4] {
        let (more, other) = at(threads);
        assert!(one == more);
        assert_eq!(report.as_ref().unwrap(), other.as_ref().unwrap());
    }
}

#[test]
fn early_stop_waits_for_its_patience() {
    let config = TrainConfig {
        lr: 0.0,
        weight_decay: 0.0,
        epochs: 9,
        early_stop: Some(2),
        eval_every: Some(1),
        ..settings()
    };
    let report = run(None, u64::MAX, &config).1.unwrap();
    assert_eq!(report.stop, Stop::Early);
    assert_eq!(
        report.steps.len(),
        3,
        "one best validation, two that are no better"
    );
    assert_eq!(report.returned_step, 1);
}

#[test]
fn a_nan_is_caught_at_its_step_with_its_row() {
    let shape = tiny_config();
    let mut model = tiny_model(&shape);
    let mut all = examples(8);
    all[5].ids[37] = 59;
    model.embedding.row_mut(59).fill(f32::NAN);
    for example in &mut all {
        let broken = example.id == "row-5";
        for id in &mut example.ids {
            if *id == 59 && !broken {
                *id = 58;
            }
        }
    }
    let mut adapter = adapter(&shape, &Target::ALL, 0.0);
    let before = adapter.clone();
    let config = TrainConfig {
        batch: 8,
        ..TrainConfig::default()
    };
    let error = train(
        &mut model,
        &mut adapter,
        TrainJob::new(&all, &config),
        &mut |_| {},
    )
    .unwrap_err();
    assert!(
        matches!(&error, Error::NonFinite { step: 1, rows } if rows == &["row-5"]),
        "{error}"
    );
    assert_eq!(adapter, before, "the adapter is not touched");
}

#[test]
fn samples_are_told_at_validations() {
    let shape = tiny_config();
    let mut model = tiny_model(&shape);
    let mut adapter = adapter(&shape, &Target::ALL, 0.0);
    let all = examples(6);
    let samples = Samples {
        prompts: vec![("greeting".to_owned(), vec![3, 4, 5])],
        max_new: 4,
        stop: vec![],
    };
    let config = TrainConfig {
        samples: Some(samples),
        ..settings()
    };
    let mut heard = Vec::new();
    let mut sink = |event| {
        if let TrainEvent::Sample { step, name, ids } = event {
            heard.push((step, name, ids.len()));
        }
    };
    train(
        &mut model,
        &mut adapter,
        TrainJob {
            val: &all[4..],
            ..TrainJob::new(&all[..4], &config)
        },
        &mut sink,
    )
    .unwrap();
    assert_eq!(heard, [(2, "greeting".to_owned(), 4)]);
}
