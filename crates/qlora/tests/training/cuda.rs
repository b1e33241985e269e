//! The CUDA engine against the CPU and against PEFT: decoded bits, f32 training, shared prefixes, dropout,
//! and equal bytes whatever is kept. Without a GPU each test says so and passes.

use qlora::cuda::{
    Base, CudaEngine, Device, Door, Element, Keep, Options, Precision, available, bench,
};
use qlora::peft::PeftAdapter;
use qlora::train::{Example, Schedule, TrainConfig, TrainJob, TrainReport, train, train_on_gpu};
use qlora::weights::ModelFiles;
use qlora::{Adapter, Dtype, LoraConfig, Matrix, Model, Nf4Tensor, Quantization};
use safetensors::SafeTensors;

use crate::cuda_work::{NF4, behind_prefix, lora};
use crate::folder::{Sides, write};
use crate::peft_refs::{batch, distance, floats, golden, name, settings};

/// A GPU test that finds no GPU has shown nothing: it says so.
#[expect(clippy::print_stderr, reason = "a test that tests nothing says so")]
pub(crate) fn without_gpu() -> bool {
    let none = !available();
    if none {
        eprintln!("skipped: there is no GPU here");
    }
    none
}

fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / 16_777_216.0 - 0.5) * 0.2
        })
        .collect()
}

fn bits(matrix: &Matrix) -> Vec<u32> {
    matrix.data().iter().map(|v| v.to_bits()).collect()
}

#[test]
fn decoding_and_encoding_give_the_cpu_s_bits() {
    if without_gpu() {
        return;
    }
    let mut values = noise(256 * 192, 3);
    // A block of zeros, one with a single outlier, one of denormals.
    values[..64].fill(0.0);
    values[64..128].fill(1e-3);
    values[70] = 900.0;
    values[128..192].iter_mut().for_each(|v| *v *= 1e-38);
    let weight = Matrix::new(256, 192, values);
    for double in [true, false] {
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            let tensor = Nf4Tensor::quantize_as(&weight, double, dtype).unwrap();
            assert_eq!(
                bench::encoded(&weight, double).unwrap(),
                tensor.packed(),
                "codes, double {double}"
            );
            let want = tensor.dequantize();
            assert_eq!(
                bits(&bench::decoded(&tensor, Element::F32).unwrap()),
                bits(&want),
                "{dtype:?} to f32"
            );
            let rounded = want.data().iter().map(|v| Dtype::Bf16.round(*v)).collect();
            let rounded = Matrix::new(256, 192, rounded);
            assert_eq!(
                bits(&bench::decoded(&tensor, Element::Bf16).unwrap()),
                bits(&rounded),
                "{dtype:?} to bf16"
            );
        }
    }
}

pub(crate) fn base(files: &ModelFiles, element: Element, quantization: Quantization) -> Base {
    Base::load(
        Device::open().unwrap(),
        files,
        Precision {
            element,
            quantization,
        },
        256,
    )
    .unwrap()
}

fn on_gpu(
    base: Base,
    start: &Adapter,
    examples: &[Example],
    config: &TrainConfig,
    keep: Option<Keep>,
) -> (Base, Adapter, TrainReport) {
    let mut adapter = start.clone();
    let options = Options {
        keep,
        ..Options::default()
    };
    let mut engine = CudaEngine::new(base, &adapter, options).unwrap();
    let report = train_on_gpu(
        &mut engine,
        &mut adapter,
        TrainJob::new(examples, config),
        &mut |_| {},
    )
    .unwrap();
    (engine.into_base(), adapter, report)
}

fn on_cpu(
    model: &mut Model,
    start: &Adapter,
    examples: &[Example],
    config: &TrainConfig,
) -> (Adapter, TrainReport) {
    let mut adapter = start.clone();
    let report = train(
        model,
        &mut adapter,
        TrainJob::new(examples, config),
        &mut |_| {},
    )
    .unwrap();
    (adapter, report)
}

/// The reference adapter with another dropout.
pub(crate) fn reference(model: &qlora::ModelConfig, dropout: f32) -> Adapter {
    let stored =
        Adapter::from_peft(model, &PeftAdapter::load(&golden("tiny_lora")).unwrap()).unwrap();
    let mut adapter = Adapter::zeros(
        model,
        &LoraConfig {
            dropout,
            ..stored.config().clone()
        },
    )
    .unwrap();
    adapter.values_mut().copy_from_slice(stored.values());
    adapter
}

#[test]
fn f32_training_is_peft_s() {
    if without_gpu() {
        return;
    }
    for (folder, file) in [
        ("tiny_f32", "train_f32"),
        ("tiny_bnb4_dq_f32", "train_nf4dq_f32"),
        ("tiny_bnb4_sq_f32", "train_nf4sq_f32"),
    ] {
        let bytes = std::fs::read(golden(&format!("{file}.safetensors"))).unwrap();
        let want = SafeTensors::deserialize(&bytes).unwrap();
        let files = ModelFiles::open(golden(folder)).unwrap();
        let start = reference(&files.config().unwrap(), 0.0);
        let base = base(&files, Element::F32, Quantization::None);
        let (base, _, report) = on_gpu(base, &start, &batch(), &settings(4, 1e-2), None);
        for (step, want) in report.steps.iter().zip(floats(&want, "losses")) {
            assert!(
                (step.loss / f64::from(want) - 1.0).abs() < 1e-5,
                "{file}: {} {want}",
                step.loss
            );
        }
        let (_, after, _) = on_gpu(base, &start, &batch(), &settings(3, 1e-2), None);
        for slot in after.slots() {
            for (half, range) in [("A", &slot.a), ("B", &slot.b)] {
                let want = floats(&want, &format!("after3.{}", name(slot, half)));
                let far = distance(&after.values()[range.clone()], &want);
                assert!(
                    far < 1e-4,
                    "{file}: {} after three steps: {far}",
                    name(slot, half)
                );
            }
        }
    }
}

/// Rows behind one prefix of 21 ids times `scale`, one odd row among them.
pub(crate) fn rows(scale: u32) -> Vec<Example> {
    behind_prefix(9, 4, 21 * scale, |row| (5 + row) * scale)
}

#[test]
fn shared_prefixes_dropout_and_micro_batches_are_the_cpu_s() {
    if without_gpu() {
        return;
    }
    let files = ModelFiles::open(golden("tiny_bnb4_dq_f32")).unwrap();
    let mut model = Model::load(&files, Quantization::None).unwrap();
    let mut card = base(&files, Element::F32, Quantization::None);
    for dropout in [0.0, 0.25] {
        let start = reference(model.config(), dropout);
        for (micro, shared) in [
            (None, true),
            (Some(1), true),
            (Some(3), true),
            (None, false),
        ] {
            let config = TrainConfig {
                batch: 9,
                micro_batch: micro,
                shared_prefix: shared,
                epochs: 3,
                lr: 1e-2,
                schedule: Schedule::Constant,
                warmup_ratio: 0.0,
                ..TrainConfig::default()
            };
            let (want, report) = on_cpu(&mut model, &start, &rows(1), &config);
            for keep in [Keep::Everything, Keep::Inputs] {
                let (back, got, gpu) = on_gpu(card, &start, &rows(1), &config, Some(keep));
                card = back;
                let place =
                    format!("dropout {dropout}, micro {micro:?}, shared {shared}, {keep:?}");
                let off = (gpu.steps[0].grad_norm / report.steps[0].grad_norm - 1.0).abs();
                assert!(
                    off < 1e-4,
                    "{place}: norm of the first gradient off by {off}"
                );
                let far = distance(got.values(), want.values());
                assert!(far < 1e-4, "{place}: adapter off by {far}");
            }
        }
    }
}

/// A small model with heads of 64 or 128, four to a key head, through the file format.
pub(crate) fn folder(head_dim: usize) -> tempfile::TempDir {
    folder_of(512, 1024, (512 / head_dim, 128 / head_dim), head_dim)
}

/// One of other sides; `heads` are query heads and key heads.
pub(crate) fn folder_of(
    hidden: usize,
    inner: usize,
    heads: (usize, usize),
    head_dim: usize,
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = serde_json::json!({
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
        "vocab_size": 512, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": 3,
        "num_attention_heads": heads.0, "num_key_value_heads": heads.1,
        "head_dim": head_dim, "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "max_position_embeddings": 512,
        "torch_dtype": "float32", "sliding_window": null, "attention_dropout": 0.0
    });
    let sides = Sides {
        vocab: 512,
        hidden,
        inner,
        layers: 3,
        queries: heads.0 * head_dim,
        keys: heads.1 * head_dim,
    };
    write(dir.path(), &config, sides.weights(), |at, _, shape| {
        let mut values = noise(shape.iter().product(), at as u64 + 1);
        if shape.len() == 1 {
            for value in &mut values {
                *value += 1.0;
            }
        }
        values
    });
    dir
}

#[test]
fn bf16_is_near_and_gives_the_same_bytes_whatever_is_kept() {
    if without_gpu() {
        return;
    }
    bf16_is_near(64, &rows(1));
    bf16_is_near(128, &rows(7));
}

/// The forward kernel that a card's door stands for at this head size.
fn attention_kernel(device: &Device, head_dim: usize) -> String {
    match (device.info().attention, head_dim) {
        (Door::Warpgroup, 128) => "attention_forward_sm90_hd128".to_owned(),
        _ => format!("attention_forward_bf16_hd{head_dim}"),
    }
}

fn bf16_is_near(head_dim: usize, rows: &[Example]) {
    let dir = folder(head_dim);
    let files = ModelFiles::open(dir.path()).unwrap();
    let mut model = Model::load(&files, NF4).unwrap();
    let start = Adapter::new(model.config(), &lora(0.05)).unwrap();
    let config = TrainConfig {
        batch: 9,
        epochs: 4,
        lr: 1e-2,
        ..TrainConfig::default()
    };
    let (_, want) = on_cpu(&mut model, &start, rows, &config);
    let mut card = base(&files, Element::Bf16, NF4);
    let kernel = attention_kernel(card.device(), head_dim);
    let mut first: Option<Adapter> = None;
    for keep in [
        Keep::Everything,
        Keep::Everything,
        Keep::Inputs,
        Keep::Offloaded,
    ] {
        bench::start_profile(card.device());
        let (back, got, report) = on_gpu(card, &start, rows, &config, Some(keep));
        card = back;
        let ops = bench::stop_profile(card.device());
        assert!(
            ops.iter().any(|(name, _, _)| *name == kernel),
            "{kernel} did not run"
        );
        // Later steps start from other adapters: they are only near.
        for (i, (a, b)) in report.steps.iter().zip(&want.steps).enumerate() {
            let (loss, norm) = if i == 0 { (5e-4, 2e-2) } else { (5e-2, 2e-1) };
            let (off, norm_off) = (a.loss / b.loss - 1.0, a.grad_norm / b.grad_norm - 1.0);
            assert!(off.abs() < loss, "{keep:?}, step {i}: loss off by {off}");
            assert!(
                norm_off.abs() < norm,
                "{keep:?}, step {i}: norm off by {norm_off}"
            );
        }
        let before = first.get_or_insert_with(|| got.clone());
        let same = before
            .values()
            .iter()
            .zip(got.values())
            .all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{keep:?} gives other bytes");
    }
}
