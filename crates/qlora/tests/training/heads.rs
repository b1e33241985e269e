//! Head sizes 64, 128 and 256, four query heads to a key head, against PEFT on bitsandbytes' NF4
//! (`golden/heads/refs.py`): f32 to 1e-4 on both engines, bf16 as near to f32 as PEFT's own bf16 is (`bf16`).
//! Weights are drawn here as the reference drew them: no model is stored.

mod bf16;

use std::path::{Path, PathBuf};

use qlora::train::{Example, TrainConfig, TrainJob, TrainReport, train};
use qlora::weights::ModelFiles;
use qlora::{Adapter, Dtype, LoraConfig, Model, ModelConfig, Quantization, Target};
use safetensors::SafeTensors;

use crate::folder::{Sides, write};
use crate::peft_refs::{distance, floats, name, settings};

const HIDDEN: usize = 512;
const INNER: usize = 1024;
const VOCAB: usize = 256;
const LENGTH: usize = 200;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/heads")
        .join(name)
}

/// Uniform in [-1, 1): `SplitMix64` of a counter, from a start that FNV-1a makes of the name.
fn draw(name: &str, count: usize) -> impl Iterator<Item = f32> {
    let start = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    (1..=count as u64).map(move |at| {
        let mut z = start.wrapping_add(at.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 40) as f32 / 8_388_608.0 - 1.0
    })
}

fn values(name: &str, count: usize, centre: f32, scale: f32) -> Vec<f32> {
    let drawn = draw(name, count);
    drawn
        .map(|v| Dtype::Bf16.round(v * scale + centre))
        .collect()
}

/// A head size, and which of the reference's draws of model, ids and adapter.
#[derive(Clone, Copy)]
struct Case {
    size: usize,
    draw: usize,
}

impl Case {
    /// The draw whose f32 tensors are stored.
    fn stored(size: usize) -> Self {
        Self { size, draw: 0 }
    }

    /// The name that a tensor of this case is drawn by.
    fn name(self, tensor: &str) -> String {
        format!("{}{}.{tensor}", self.prefix(), self.size)
    }

    /// What all names of a draw begin with.
    fn prefix(self) -> String {
        match self.draw {
            0 => String::new(),
            draw => format!("draw{draw}."),
        }
    }
}

/// Query heads, key heads.
fn heads(size: usize) -> (usize, usize) {
    if size == 64 { (8, 2) } else { (4, 1) }
}

/// A model folder as a hub would hold it.
fn folder(case: Case) -> tempfile::TempDir {
    let size = case.size;
    let (queries, keys) = heads(size);
    let config = serde_json::json!({
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
        "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": 2,
        "num_attention_heads": queries, "num_key_value_heads": keys, "head_dim": size,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "tie_word_embeddings": false,
        "sliding_window": null, "attention_dropout": 0.0, "torch_dtype": "float32"
    });
    let sides = Sides {
        vocab: VOCAB,
        hidden: HIDDEN,
        inner: INNER,
        layers: 2,
        queries: queries * size,
        keys: keys * size,
    };
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &config, sides.weights(), |_, name, shape| {
        let (centre, scale) = if name.contains("norm") {
            (1.0, 0.25)
        } else {
            (0.0, 0.08)
        };
        values(&case.name(name), shape.iter().product(), centre, scale)
    });
    dir
}

fn rows(case: Case) -> Vec<Example> {
    let drawn: Vec<u32> = draw(&format!("{}ids", case.prefix()), 2 * LENGTH)
        .map(|v| ((v * 0.5 + 0.5) * (VOCAB - 3) as f32) as u32 + 3)
        .collect();
    let row = |at: usize, labelled: std::ops::Range<usize>| Example {
        id: format!("row-{at}"),
        ids: drawn[at * LENGTH..(at + 1) * LENGTH].to_vec(),
        labels: (0..LENGTH).map(|i| labelled.contains(&i)).collect(),
        weight: 1.0,
    };
    vec![row(0, 70..LENGTH), row(1, 33..150)]
}

fn start(case: Case, model: &ModelConfig) -> Adapter {
    let lora = LoraConfig {
        r: 4,
        alpha: 8.0,
        dropout: 0.0,
        targets: Target::ALL.to_vec(),
        seed: 1,
        ..LoraConfig::default()
    };
    let mut adapter = Adapter::new(model, &lora).unwrap();
    for slot in adapter.slots().to_vec() {
        for (half, range, scale) in [("A", slot.a.clone(), 0.05), ("B", slot.b.clone(), 0.03)] {
            let drawn = values(&case.name(&name(&slot, half)), range.len(), 0.0, scale);
            adapter.values_mut()[range].copy_from_slice(&drawn);
        }
    }
    adapter
}

/// One engine's training from the drawn adapter.
type Run<'a> = dyn FnMut(&TrainConfig) -> (Adapter, TrainReport) + 'a;

/// What the reference has names for, from three runs of an engine.
struct Found {
    losses: Vec<f64>,
    tensors: Vec<(String, Vec<f32>)>,
}

fn found(start: &Adapter, run: &mut Run<'_>) -> Found {
    // One step of AdamW with a huge epsilon and no decay moves each value by its gradient.
    let read = TrainConfig {
        weight_decay: 0.0,
        eps: 1e6,
        lr: 1e6,
        ..settings(1, 0.0)
    };
    let (moved, _) = run(&read);
    let steps = |count| TrainConfig {
        eps: 1e-5,
        ..settings(count, 1e-3)
    };
    let (after, _) = run(&steps(3));
    let (_, report) = run(&steps(4));
    let mut tensors = Vec::new();
    for slot in start.slots() {
        for (half, range) in [("A", &slot.a), ("B", &slot.b)] {
            let moves = range.clone().map(|i| start.values()[i] - moved.values()[i]);
            tensors.push((format!("grad0.{}", name(slot, half)), moves.collect()));
            let end = after.values()[range.clone()].to_vec();
            tensors.push((format!("after3.{}", name(slot, half)), end));
        }
    }
    Found {
        losses: report.steps.iter().map(|step| step.loss).collect(),
        tensors,
    }
}

/// Every tensor within 1e-4 of the reference, losses within 1e-5, all relative. Says all that is not.
fn near(size: usize, found: &Found) {
    let file = std::fs::read(golden(&format!("head{size}.safetensors"))).unwrap();
    let want = SafeTensors::deserialize(&file).unwrap();
    let losses = floats(&want, "losses");
    assert_eq!(found.losses.len(), losses.len());
    let mut off = Vec::new();
    for (step, (got, want)) in found.losses.iter().zip(losses).enumerate() {
        let far = (got / f64::from(want) - 1.0).abs();
        if far.is_nan() || far >= 1e-5 {
            off.push(format!("loss {step}: {far:.1e}"));
        }
    }
    for (name, got) in &found.tensors {
        let far = distance(got, &floats(&want, name));
        if far.is_nan() || far >= 1e-4 {
            off.push(format!("{name}: {far:.1e}"));
        }
    }
    let off = off.join("\n");
    assert!(off.is_empty(), "heads of {size}, too far off:\n{off}");
}

const NF4: Quantization = Quantization::Nf4 { double: true };
const SIZES: [usize; 3] = [64, 128, 256];

#[test]
fn f32_training_is_peft_s_at_every_head_size() {
    for size in SIZES {
        let case = Case::stored(size);
        let dir = folder(case);
        let files = ModelFiles::open(dir.path()).unwrap();
        let mut model = Model::load(&files, NF4).unwrap();
        let start = start(case, model.config());
        let mut run = |settings: &TrainConfig| {
            let mut adapter = start.clone();
            let report = train(
                &mut model,
                &mut adapter,
                TrainJob::new(&rows(case), settings),
                &mut |_| {},
            );
            (adapter, report.unwrap())
        };
        near(size, &found(&start, &mut run));
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use qlora::cuda::{Base, CudaEngine, Device, Element, Options, Precision};
    use qlora::train::train_on_gpu;

    use super::*;
    use crate::cuda::without_gpu;

    /// Trains on the card in `element`.
    pub(super) fn on_gpu(case: Case, element: Element) -> Found {
        let dir = folder(case);
        let files = ModelFiles::open(dir.path()).unwrap();
        let precision = Precision {
            element,
            quantization: NF4,
        };
        let start = start(case, &files.config().unwrap());
        let mut base =
            Some(Base::load(Device::open().unwrap(), &files, precision, LENGTH).unwrap());
        let mut run = |settings: &TrainConfig| {
            let mut adapter = start.clone();
            let card = base.take().unwrap();
            let mut engine = CudaEngine::new(card, &adapter, Options::default()).unwrap();
            let report = train_on_gpu(
                &mut engine,
                &mut adapter,
                TrainJob::new(&rows(case), settings),
                &mut |_| {},
            );
            base = Some(engine.into_base());
            (adapter, report.unwrap())
        };
        found(&start, &mut run)
    }

    #[test]
    fn cuda_f32_training_is_peft_s_at_every_head_size() {
        if without_gpu() {
            return;
        }
        for size in SIZES {
            near(size, &on_gpu(Case::stored(size), Element::F32));
        }
    }
}
