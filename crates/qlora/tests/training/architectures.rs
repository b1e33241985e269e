//! Every family of decoders against transformers and PEFT (`golden/architectures/refs.py`): logits, loss and
//! LoRA gradients of small random models, read from files of their own format. Rows share a prefix and are
//! longer than every window.

use std::path::{Path, PathBuf};

use qlora::train::{Example, Schedule, TrainConfig, TrainEvent, TrainJob, train};
use qlora::weights::ModelFiles;
use qlora::{Adapter, Generator, LoraConfig, Model, Quantization, Slot, Target};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::folder;
use crate::peft_refs::{distance, floats};

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/architectures")
        .join(name)
}

/// The reference's draws: xorshift, seeded by the name.
fn noise(count: usize, name: &str) -> Vec<f32> {
    let seed = name
        .bytes()
        .fold(5u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| draw()).collect()
}

pub(crate) fn rows() -> Vec<Example> {
    let row = |own: usize| {
        let shared = (0..14).map(|i| (i * 11 + 5) % 64);
        let drawn = noise(own, &format!("ids.{own}"));
        let ids: Vec<u32> = shared
            .chain(drawn.into_iter().map(|v| ((v + 1.0) * 31.0) as u32))
            .collect();
        let labels = (0..ids.len()).map(|i| i > 16 && i % 4 != 1).collect();
        Example {
            id: format!("row-{own}"),
            ids,
            labels,
            weight: 1.0,
        }
    };
    vec![row(23), row(17)]
}

/// A model folder as a hub would hold it: `config.json` and drawn weights.
pub(crate) fn write_model(into: &Path, case: &Value) {
    let config = &case["config"];
    let gemma = config["model_type"].as_str().unwrap().starts_with("gemma");
    let weights = case["weights"].as_object().unwrap().iter();
    let weights = weights.map(|(name, shape)| {
        let sides = shape.as_array().unwrap().iter();
        let sides = sides.map(|side| side.as_u64().unwrap() as usize);
        (name.clone(), sides.collect())
    });
    folder::write(into, config, weights.collect(), |_, name, shape| {
        let centre = if name.ends_with("norm.weight") && !gemma {
            1.0
        } else {
            0.0
        };
        let values = noise(shape.iter().product(), name).into_iter();
        values.map(|v| centre + 0.25 * v).collect()
    });
}

fn name(slot: &Slot, half: &str) -> String {
    format!(
        "base_model.model.model.layers.{}.{}.lora_{half}.default.weight",
        slot.layer,
        slot.target.path()
    )
}

/// Our gradient, read off one step of AdamW with a huge epsilon (it moves each value by the gradient).
fn gradient(model: &mut Model, start: &Adapter, settings: &TrainConfig) -> (f64, Vec<f32>) {
    let mut moved = start.clone();
    let report = train(
        model,
        &mut moved,
        TrainJob::new(&rows(), settings),
        &mut |_: TrainEvent| {},
    )
    .unwrap();
    let moves = start.values().iter().zip(moved.values());
    (report.steps[0].loss, moves.map(|(a, b)| a - b).collect())
}

fn check(family: &str) {
    let cases: Value =
        serde_json::from_slice(&std::fs::read(golden("cases.json")).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), &cases[family]);
    let files = ModelFiles::open(folder.path()).unwrap();
    let mut model = Model::load(&files, Quantization::None).unwrap();
    let lora = LoraConfig {
        r: 4,
        alpha: 6.0,
        dropout: 0.0,
        targets: Target::ALL.to_vec(),
        seed: 1,
        ..LoraConfig::default()
    };
    let mut start = Adapter::new(model.config(), &lora).unwrap();
    for slot in start.slots().to_vec() {
        for (half, range) in [("A", slot.a.clone()), ("B", slot.b.clone())] {
            let drawn = noise(range.len(), &name(&slot, half));
            for (into, v) in start.values_mut()[range].iter_mut().zip(drawn) {
                *into = 0.2 * v;
            }
        }
    }
    let file = std::fs::read(golden(&format!("{family}.safetensors"))).unwrap();
    let want = SafeTensors::deserialize(&file).unwrap();

    let prompts: Vec<Vec<u32>> = rows().into_iter().map(|row| row.ids).collect();
    let logits = Generator::new(&mut model, Some(&start))
        .unwrap()
        .next_logits(&prompts)
        .unwrap();
    let far = distance(logits.data(), &floats(&want, "logits"));
    assert!(far < 1e-5, "{family}: logits {far}");

    let shared = TrainConfig {
        batch: 2,
        lr: 1e6,
        eps: 1e6,
        weight_decay: 0.0,
        warmup_ratio: 0.0,
        schedule: Schedule::Constant,
        clip: None,
        ..TrainConfig::default()
    };
    let separate = TrainConfig {
        shared_prefix: false,
        ..shared.clone()
    };
    let recomputed = TrainConfig {
        activation_bytes: 1,
        ..shared.clone()
    };
    for (way, settings) in [
        ("shared prefix", shared),
        ("separate rows", separate),
        ("recomputed", recomputed),
    ] {
        let (loss, got) = gradient(&mut model, &start, &settings);
        let wanted = f64::from(floats(&want, "loss")[0]);
        assert!(
            (loss / wanted - 1.0).abs() < 1e-5,
            "{family}, {way}: loss {loss} {wanted}"
        );
        for slot in start.slots() {
            for (half, range) in [("A", &slot.a), ("B", &slot.b)] {
                let name = name(slot, half);
                let far = distance(&got[range.clone()], &floats(&want, &format!("grad.{name}")));
                assert!(far < 1e-4, "{family}, {way}: {name}: {far}");
            }
        }
    }
}

#[test]
fn llama_with_llama3_scaling() {
    check("llama3");
}

#[test]
fn llama_with_linear_scaling() {
    check("linear");
}

#[test]
fn mistral_with_a_window() {
    check("mistral");
}

#[test]
fn qwen2_with_yarn_and_windows_in_its_upper_layers() {
    check("qwen2");
}

#[test]
fn qwen3() {
    check("qwen3");
}

#[test]
fn gemma() {
    check("gemma");
}

#[test]
fn gemma2() {
    check("gemma2");
}

#[test]
fn gemma3() {
    check("gemma3");
}
