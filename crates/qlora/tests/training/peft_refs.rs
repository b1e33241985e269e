//! Losses, first gradients and the adapter after three AdamW steps of Hugging Face PEFT, in f32, on a
//! tiny Mistral: dense, NF4 with double quantization, NF4 with plain scales (`golden/peft-refs/refs.py`).

use std::path::{Path, PathBuf};

use qlora::peft::PeftAdapter;
use qlora::train::{Example, Schedule, TrainConfig, TrainEvent, TrainJob, train};
use qlora::weights::ModelFiles;
use qlora::{Adapter, Model, Quantization};
use safetensors::SafeTensors;

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/peft-refs")
        .join(name)
}

pub(crate) fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let view = tensors.tensor(name).unwrap();
    let (chunks, _) = view.data().as_chunks::<4>();
    chunks.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn integers(tensors: &SafeTensors<'_>, name: &str) -> Vec<i64> {
    let view = tensors.tensor(name).unwrap();
    let (chunks, _) = view.data().as_chunks::<8>();
    chunks.iter().map(|b| i64::from_le_bytes(*b)).collect()
}

/// The two rows of 24 ids that the reference trained on.
pub(crate) fn batch() -> Vec<Example> {
    let file = std::fs::read(golden("batch.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let (ids, labels) = (
        integers(&tensors, "input_ids"),
        integers(&tensors, "labels"),
    );
    let row = |i: usize| Example {
        id: format!("row-{i}"),
        ids: ids[i * 24..(i + 1) * 24]
            .iter()
            .map(|id| *id as u32)
            .collect(),
        labels: labels[i * 24..(i + 1) * 24]
            .iter()
            .map(|l| *l != -100)
            .collect(),
        weight: 1.0,
    };
    vec![row(0), row(1)]
}

/// `|got - want| / |want|` over a whole tensor.
pub(crate) fn distance(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let difference = square(&mut got.iter().zip(want).map(|(a, b)| f64::from(a - b)));
    (difference / square(&mut want.iter().map(|v| f64::from(*v)))).sqrt()
}

pub(crate) fn settings(steps: u64, lr: f64) -> TrainConfig {
    TrainConfig {
        epochs: steps as usize,
        batch: 2,
        lr,
        schedule: Schedule::Constant,
        warmup_ratio: 0.0,
        weight_decay: 0.01,
        clip: None,
        ..TrainConfig::default()
    }
}

/// PEFT's name for one half of a slot.
pub(crate) fn name(slot: &qlora::Slot, half: &str) -> String {
    format!(
        "base_model.model.model.layers.{}.{}.lora_{half}.default.weight",
        slot.layer,
        slot.target.path()
    )
}

fn check(base: &str, reference: &str, quantization: Quantization) {
    let file = std::fs::read(golden(reference)).unwrap();
    let want = SafeTensors::deserialize(&file).unwrap();
    let files = ModelFiles::open(golden(base)).unwrap();
    let mut model = Model::load(&files, quantization).unwrap();
    let start = Adapter::from_peft(
        model.config(),
        &PeftAdapter::load(&golden("tiny_lora")).unwrap(),
    )
    .unwrap();
    let run = |model: &mut Model, settings: &TrainConfig| {
        let mut adapter = start.clone();
        // Dropout was switched off in the reference; the file says 0.05.
        let mut plain = Adapter::zeros(
            model.config(),
            &qlora::LoraConfig {
                dropout: 0.0,
                ..start.config().clone()
            },
        )
        .unwrap();
        plain.values_mut().copy_from_slice(adapter.values());
        let report = train(
            model,
            &mut plain,
            TrainJob::new(&batch(), settings),
            &mut |_: TrainEvent| {},
        )
        .unwrap();
        adapter.values_mut().copy_from_slice(plain.values());
        (adapter, report)
    };

    let (_, report) = run(&mut model, &settings(4, 1e-2));
    for (step, want) in report.steps.iter().zip(floats(&want, "losses")) {
        assert!(
            (step.loss / f64::from(want) - 1.0).abs() < 1e-5,
            "{reference}: {} {want}",
            step.loss
        );
    }
    let (after, _) = run(&mut model, &settings(3, 1e-2));
    for slot in after.slots() {
        for (half, range) in [("A", &slot.a), ("B", &slot.b)] {
            let want = floats(&want, &format!("after3.{}", name(slot, half)));
            let far = distance(&after.values()[range.clone()], &want);
            assert!(
                far < 1e-4,
                "{reference}: {} after three steps: {far}",
                name(slot, half)
            );
        }
    }
    check_first_gradient(&mut model, &start, &want, reference);
}

/// The public door shows no gradients. One step of AdamW with a huge epsilon and no decay moves each value
/// by `lr * g / eps` (both moments are corrected to `g` and `g^2`), so the gradient is read off the step.
fn check_first_gradient(
    model: &mut Model,
    start: &Adapter,
    want: &SafeTensors<'_>,
    reference: &str,
) {
    let eps = 1e6;
    let read = TrainConfig {
        weight_decay: 0.0,
        eps,
        lr: eps,
        ..settings(1, 0.0)
    };
    let config = qlora::LoraConfig {
        dropout: 0.0,
        ..start.config().clone()
    };
    let mut moved = Adapter::zeros(model.config(), &config).unwrap();
    moved.values_mut().copy_from_slice(start.values());
    train(
        model,
        &mut moved,
        TrainJob::new(&batch(), &read),
        &mut |_: TrainEvent| {},
    )
    .unwrap();
    for slot in moved.slots() {
        for (half, range) in [("A", &slot.a), ("B", &slot.b)] {
            let got: Vec<f32> = range
                .clone()
                .map(|i| start.values()[i] - moved.values()[i])
                .collect();
            let want = floats(want, &format!("grad0.{}", name(slot, half)));
            let far = distance(&got, &want);
            assert!(
                far < 1e-4,
                "{reference}: gradient of {}: {far}",
                name(slot, half)
            );
        }
    }
}

#[test]
fn a_dense_base_trains_as_peft_does() {
    check("tiny_f32", "train_f32.safetensors", Quantization::None);
}

#[test]
fn a_double_quantized_base_trains_as_peft_does() {
    check(
        "tiny_bnb4_dq_f32",
        "train_nf4dq_f32.safetensors",
        Quantization::None,
    );
    check(
        "tiny_f32",
        "train_nf4dq_f32.safetensors",
        Quantization::Nf4 { double: true },
    );
}

#[test]
fn a_base_with_plain_scales_trains_as_peft_does() {
    check(
        "tiny_bnb4_sq_f32",
        "train_nf4sq_f32.safetensors",
        Quantization::None,
    );
    check(
        "tiny_f32",
        "train_nf4sq_f32.safetensors",
        Quantization::Nf4 { double: false },
    );
}
