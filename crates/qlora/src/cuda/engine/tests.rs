//! Gradients under dropout, where rows that do not share their prefix are given its mask all the same: only in here
//! can they be. Without a GPU the test says so and passes.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::cuda::{Element, Precision, available};
use crate::nn::model::Quantization;
use crate::peft::PeftAdapter;
use crate::train::{Example, LossMean, Masks};
use crate::weights::ModelFiles;

static OFF: AtomicBool = AtomicBool::new(false);
const PREFIX: usize = 21;

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/peft-refs")
        .join(name)
}

/// Sixteen rows that start with the same ids.
fn examples() -> Vec<Example> {
    let ids =
        |seed: usize, count: usize| (0..count).map(move |i| 3 + (seed * 131 + i * 37) as u32 % 250);
    (0..16)
        .map(|row| {
            let ids: Vec<u32> = ids(1, PREFIX)
                .chain(ids(20 + row, 6 + 3 * (row % 7)))
                .collect();
            let labels = (0..ids.len()).map(|at| at > PREFIX + 1).collect();
            Example {
                id: format!("row {row}"),
                ids,
                labels,
                weight: 1.0,
            }
        })
        .collect()
}

fn gradient(
    engine: &mut CudaEngine,
    adapter: &Adapter,
    prefix: usize,
    micro_batch: Option<usize>,
    rate: f32,
) -> Vec<f32> {
    let groups = [Group {
        prefix,
        prefix_mask: PREFIX,
        members: (0..16).collect(),
        division: None,
    }];
    let masks = Masks {
        rate,
        seed: 3,
        step: 7,
    };
    let examples = examples();
    let work = Work {
        examples: &examples,
        groups: &groups,
        masks: (rate > 0.0).then_some(masks),
        mean: LossMean::Token,
        over: BatchLoss::count(LossMean::Token, &examples, &groups).over,
        micro_batch,
        cancel: &OFF,
        ranks: None,
    };
    CudaEngine::begin(engine, adapter, &AdamW::new(adapter.values().len())).unwrap();
    CudaEngine::learn(engine, work).unwrap();
    let mut grads = vec![0.0; engine.count];
    engine
        .base()
        .device
        .download(engine.grads, &mut grads)
        .unwrap();
    grads
}

/// The farthest tensor of the adapter, relative to its norm.
fn farthest(adapter: &Adapter, got: &[f32], want: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f32>| -> f64 {
        values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt()
    };
    let ranges = adapter
        .slots()
        .iter()
        .flat_map(|s| [s.a.clone(), s.b.clone()]);
    ranges
        .map(|range| {
            let pairs = got[range.clone()].iter().zip(&want[range.clone()]);
            norm(&mut pairs.map(|(a, b)| a - b)) / norm(&mut want[range].iter().copied())
        })
        .fold(0.0, f64::max)
}

#[test]
fn a_shared_prefix_is_separate_rows_with_its_mask() {
    if !available() {
        eprintln!("skipped: there is no GPU here");
        return;
    }
    let files = ModelFiles::open(golden("tiny_bnb4_dq_f32")).unwrap();
    let config = files.config().unwrap();
    let adapter =
        Adapter::from_peft(&config, &PeftAdapter::load(&golden("tiny_lora")).unwrap()).unwrap();
    let precision = Precision {
        element: Element::F32,
        quantization: Quantization::None,
    };
    let base = Base::load(Device::open().unwrap(), &files, precision, 256).unwrap();
    let mut engine = CudaEngine::new(base, &adapter, Options::default()).unwrap();
    let plain = gradient(&mut engine, &adapter, 0, None, 0.0);
    for rate in [0.0, 0.05] {
        let want = gradient(&mut engine, &adapter, 0, Some(4), rate);
        let masked = farthest(&adapter, &want, &plain) > 1e-3;
        assert_eq!(masked, rate > 0.0, "the masks do something");
        for micro in [Some(1), Some(4), Some(16)] {
            let got = gradient(&mut engine, &adapter, PREFIX, micro, rate);
            let far = farthest(&adapter, &got, &want);
            assert!(
                far < 1e-5,
                "rate {rate}, micro-batches of {micro:?}: {far:.1e}"
            );
        }
    }
}
