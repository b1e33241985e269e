//! One step on a card computed in different ways, and a run that is stopped and goes on: behind a shared prefix or
//! row by row, in micro-batches of any size, in one go or in two. Without a GPU each test says so and passes.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use qlora::cuda::{CudaEngine, Element, Options};
use qlora::train::{Example, Schedule, TrainConfig, TrainEvent, TrainJob, train_on_gpu};
use qlora::weights::ModelFiles;
use qlora::{Adapter, Error, LoraConfig, ModelConfig, Quantization};

use crate::cuda::{base, folder, reference, without_gpu};
use crate::cuda_work::{NF4, behind_prefix, lora};
use crate::peft_refs::{distance, golden};

/// Sixteen rows behind one prefix of `prefix` ids, and an odd one.
fn rows(prefix: u32) -> Vec<Example> {
    behind_prefix(17, 11, prefix, |row| 6 + 3 * (row % 7))
}

/// An adapter whose both halves are drawn, so that each has a gradient.
fn drawn(config: &ModelConfig) -> Adapter {
    let lora = LoraConfig {
        seed: 4,
        ..lora(0.0)
    };
    let mut adapter = Adapter::new(config, &lora).unwrap();
    for slot in adapter.slots().to_vec() {
        for (at, value) in adapter.values_mut()[slot.b.clone()].iter_mut().enumerate() {
            *value = ((at * 7919 + 13) % 101) as f32 / 2500.0 - 0.02;
        }
    }
    adapter
}

/// One step of AdamW with a huge epsilon and no decay moves each value by its gradient.
fn gradient(
    engine: &mut CudaEngine,
    start: &Adapter,
    examples: &[Example],
    shared_prefix: bool,
    micro_batch: Option<usize>,
) -> Vec<f32> {
    let config = TrainConfig {
        batch: examples.len(),
        micro_batch,
        shared_prefix,
        epochs: 1,
        lr: 1e6,
        eps: 1e6,
        weight_decay: 0.0,
        clip: None,
        warmup_ratio: 0.0,
        schedule: Schedule::Constant,
        ..TrainConfig::default()
    };
    let mut moved = start.clone();
    let job = TrainJob::new(examples, &config);
    train_on_gpu(engine, &mut moved, job, &mut |_| {}).unwrap();
    let moves = start.values().iter().zip(moved.values());
    moves.map(|(before, after)| before - after).collect()
}

/// The farthest tensor of the adapter.
fn farthest(adapter: &Adapter, got: &[f32], want: &[f32]) -> f64 {
    let ranges = adapter.slots().iter().flat_map(|s| [&s.a, &s.b]);
    ranges
        .map(|range| distance(&got[range.clone()], &want[range.clone()]))
        .fold(0.0, f64::max)
}

const WAYS: [(bool, Option<usize>); 5] = [
    (true, None),
    (true, Some(4)),
    (true, Some(1)),
    (false, Some(4)),
    (false, Some(1)),
];

#[test]
fn in_f32_prefixes_and_micro_batches_change_a_gradient_by_the_order_of_its_sums() {
    if without_gpu() {
        return;
    }
    let files = ModelFiles::open(golden("tiny_bnb4_dq_f32")).unwrap();
    let start = reference(&files.config().unwrap(), 0.0);
    let base = base(&files, Element::F32, Quantization::None);
    let mut engine = CudaEngine::new(base, &start, Options::default()).unwrap();
    let want = gradient(&mut engine, &start, &rows(21), false, None);
    for (shared, micro) in WAYS {
        let got = gradient(&mut engine, &start, &rows(21), shared, micro);
        let far = farthest(&start, &got, &want);
        assert!(far < 1e-5, "shared {shared}, micro {micro:?}: {far:.1e}");
    }
}

#[test]
fn in_bf16_prefixes_and_micro_batches_are_within_rounding() {
    if without_gpu() {
        return;
    }
    for head in [64, 128] {
        let dir = folder(head);
        let files = ModelFiles::open(dir.path()).unwrap();
        let start = drawn(&files.config().unwrap());
        let mut exact =
            CudaEngine::new(base(&files, Element::F32, NF4), &start, Options::default()).unwrap();
        let want = gradient(&mut exact, &start, &rows(85), false, None);
        drop(exact);
        let mut engine =
            CudaEngine::new(base(&files, Element::Bf16, NF4), &start, Options::default()).unwrap();
        let plain = gradient(&mut engine, &start, &rows(85), false, None);
        let rounding = farthest(&start, &plain, &want);
        assert!(rounding > 1e-4, "bf16 rounds");
        for (shared, micro) in WAYS {
            let got = gradient(&mut engine, &start, &rows(85), shared, micro);
            let far = farthest(&start, &got, &want);
            assert!(
                far < 1.3 * rounding,
                "heads of {head}, shared {shared}, micro {micro:?}: {far:.4} from f32, plainly {rounding:.4}"
            );
        }
    }
}

/// The adapter's bits after a run that is stopped after `until` steps.
fn run(dir: Option<&Path>, until: u64) -> (Vec<u32>, Result<(), Error>) {
    let model = folder(128);
    let files = ModelFiles::open(model.path()).unwrap();
    let mut start = drawn(&files.config().unwrap());
    let mut engine =
        CudaEngine::new(base(&files, Element::Bf16, NF4), &start, Options::default()).unwrap();
    let config = TrainConfig {
        batch: 5,
        epochs: 2,
        lr: 5e-3,
        save_every: Some(1),
        eval_every: Some(2),
        keep_best: true,
        ..TrainConfig::default()
    };
    let cancel = AtomicBool::new(false);
    let (train, val) = (rows(85), rows(40));
    let job = TrainJob {
        val: &val[..3],
        checkpoints: dir,
        cancel: &cancel,
        ..TrainJob::new(&train, &config)
    };
    let ended = train_on_gpu(&mut engine, &mut start, job, &mut |event| {
        if let TrainEvent::Step { record, .. } = event {
            cancel.store(record.step >= until, Ordering::Relaxed);
        }
    });
    let bits = start.values().iter().map(|v| v.to_bits()).collect();
    (bits, ended.map(|_| ()))
}

#[test]
fn a_run_on_a_card_that_is_stopped_and_goes_on_ends_with_the_same_bytes() {
    if without_gpu() {
        return;
    }
    let (want, ended) = run(None, u64::MAX);
    ended.unwrap();
    for stops in [vec![1], vec![4], vec![1, 2, 3, 5, 7]] {
        let dir = tempfile::tempdir().unwrap();
        for stop in &stops {
            let (_, ended) = run(Some(dir.path()), *stop);
            assert!(matches!(ended, Err(Error::Cancelled)), "{stop}: {ended:?}");
        }
        let (got, ended) = run(Some(dir.path()), u64::MAX);
        ended.unwrap();
        assert!(got == want, "stopped at {stops:?}: other bytes");
    }
}
