//! From nothing to the first optimizer step, by part: a fresh process each time, with and without the base's
//! four-bit layers as a file. The base is Mistral 7B's shape in bf16, random, written once (14.5 GB).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use qlora::cuda::{Base, CudaEngine, Device, Options, bench};
use qlora::nf4::Entry;
use qlora::train::{TrainConfig, TrainEvent, TrainJob, train_on_gpu};
use qlora::weights::write_safetensors;
use qlora::{Adapter, LinearWeight, LoraConfig, ModelFiles, Target, quantize_layers};
use rayon::prelude::*;

use super::{Draw, GIB, job, mistral};

const CONFIG: &str = r#"{
  "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
  "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
  "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "rope_theta": 1000000.0,
  "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "max_position_embeddings": 32768,
  "torch_dtype": "bfloat16", "sliding_window": null, "attention_dropout": 0.0,
  "bos_token_id": 1, "eos_token_id": 2
}"#;

const LAYERS: &str = "layers/layers.safetensors";

/// Times everything below `folder`, which is filled if it is not there.
pub(crate) fn run(folder: &Path) {
    if !folder.join("base/config.json").is_file() {
        let begun = Instant::now();
        write_base(&folder.join("base"));
        println!(
            "wrote a random base in {:.1} s",
            begun.elapsed().as_secs_f64()
        );
    }
    let layers = folder.join(LAYERS);
    if !layers.is_file() {
        let begun = Instant::now();
        std::fs::create_dir_all(folder.join("layers")).expect("a folder");
        let base = ModelFiles::open(folder.join("base")).expect("a base");
        let made = quantize_layers(&base, true, &layers, &mut |_, _| true).expect("layers");
        println!(
            "layers made on the CPU in {:.1} s: {:.2} GiB",
            begun.elapsed().as_secs_f64(),
            made.bytes as f64 / GIB
        );
    }
    for kind in ["warm", "warm", "warm", "cold"] {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock");
        let status = Command::new(std::env::current_exe().expect("this program"))
            .args(["warm-child", kind, &now.as_nanos().to_string()])
            .arg(folder)
            .status();
        assert!(status.expect("it starts").success());
    }
}

/// Parts of a start, each from the end of the one before.
struct Parts {
    start: SystemTime,
    last: Duration,
    told: String,
}

impl Parts {
    fn done(&mut self, part: &str) {
        let now = self.start.elapsed().expect("time goes on");
        self.told += &format!(
            "  {part} {:.3}",
            (now.saturating_sub(self.last)).as_secs_f64()
        );
        self.last = now;
    }
}

/// One start: `[kind, nanoseconds since 1970 at which it began, folder]`.
pub(crate) fn child(args: &[String]) {
    let nanos: u64 = args[1].parse().expect("nanoseconds");
    let mut parts = Parts {
        start: UNIX_EPOCH + Duration::from_nanos(nanos),
        last: Duration::ZERO,
        told: String::new(),
    };
    let folder = PathBuf::from(&args[2]);
    parts.done("process");
    let device = Device::open().expect("a GPU");
    parts.done("card");
    let mut files = ModelFiles::open(folder.join("base")).expect("a base");
    if args[0] == "warm" {
        files = files.with_layers(&folder.join(LAYERS)).expect("layers");
    }
    parts.done("files");
    let base = Base::load(device, &files, bench::qlora_precision(), 1024).expect("a base");
    parts.done("base");
    let direct = base.direct();
    first_steps(base, &files, &mut parts, args[0] == "warm");
    println!(
        "{}: {:.2} s to the first optimizer step;{}\n      read straight: {:.2} GiB in {:.3} s, {:.1} GB/s",
        args[0],
        parts.last.as_secs_f64(),
        parts.told,
        direct.bytes as f64 / GIB,
        direct.seconds,
        direct.bytes as f64 / direct.seconds / 1e9
    );
}

fn first_steps(base: Base, files: &ModelFiles, parts: &mut Parts, check: bool) {
    let lora = LoraConfig {
        r: 16,
        alpha: 32.0,
        dropout: 0.05,
        targets: Target::ALL.to_vec(),
        seed: 5,
        ..LoraConfig::default()
    };
    let mut adapter = Adapter::new(base.config(), &lora).expect("the adapter fits");
    parts.done("adapter");
    let mut engine = CudaEngine::new(base, &adapter, Options::default()).expect("an engine");
    parts.done("engine");
    let (rows, cancel) = (job(), AtomicBool::new(false));
    parts.done("rows");
    let config = TrainConfig {
        epochs: 2,
        batch: 16,
        ..TrainConfig::default()
    };
    let job = TrainJob {
        cancel: &cancel,
        ..TrainJob::new(&rows, &config)
    };
    let mut second = None;
    let mut hear = |event: TrainEvent| match event {
        TrainEvent::Started { .. } => parts.done("plan"),
        TrainEvent::Step { record, .. } if record.step == 1 => parts.done("first step"),
        TrainEvent::Step { seconds, .. } => {
            second = Some(seconds);
            cancel.store(true, Ordering::Relaxed);
        }
        _ => {}
    };
    let _cancelled = train_on_gpu(&mut engine, &mut adapter, job, &mut hear);
    parts.told += &format!("  (second step {:.3})", second.unwrap_or(f64::NAN));
    if check {
        let target = Target::Down;
        let LinearWeight::Nf4(want) = files
            .linear(&format!("{}.weight", target.module(31)))
            .expect("a weight")
        else {
            panic!("it is four bits")
        };
        let held = bench::packed(engine.base(), 31, target).expect("codes");
        assert!(held == want.packed(), "the card holds what the file holds");
    }
}

fn write_base(folder: &Path) {
    let config = mistral();
    std::fs::create_dir_all(folder).expect("a folder");
    let mut draw = Draw(3);
    // Sums of uniform values, nearly normal, deviation 0.02.
    let table: Vec<[u8; 2]> = (0..4096)
        .map(|_| {
            let sum: f32 = (0..12)
                .map(|_| (draw.next() >> 40) as f32 / 16_777_216.0)
                .sum();
            let bits = ((sum - 6.0) * 0.02).to_bits();
            ((bits >> 16) as u16).to_le_bytes()
        })
        .collect();
    let matrix = |name: String, rows: usize, cols: usize, seed: u64| {
        let mut bytes = vec![0_u8; rows * cols * 2];
        bytes
            .par_chunks_mut(1 << 20)
            .enumerate()
            .for_each(|(at, part)| {
                let mut draw = Draw(seed << 32 | at as u64);
                for ten in part.chunks_mut(10) {
                    let word = draw.next();
                    for (pair, shift) in ten.chunks_mut(2).zip([0, 12, 24, 36, 48]) {
                        pair.copy_from_slice(&table[(word >> shift) as usize & 4095]);
                    }
                }
            });
        entry(name, vec![rows, cols], bytes)
    };
    let ones = |name: String| {
        let bytes = (0..config.hidden)
            .flat_map(|_| 0x3f80_u16.to_le_bytes())
            .collect();
        entry(name, vec![config.hidden], bytes)
    };
    let file = |at: usize| folder.join(format!("model-{at:05}-of-00033.safetensors"));
    for layer in 0..config.layers {
        let mut entries: Vec<Entry> = Target::ALL
            .into_iter()
            .map(|target| {
                let (rows, cols) = target.shape(&config);
                let seed = (layer * 7 + target as usize) as u64;
                matrix(format!("{}.weight", target.module(layer)), rows, cols, seed)
            })
            .collect();
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            entries.push(ones(format!("model.layers.{layer}.{norm}.weight")));
        }
        write_safetensors(&file(layer + 1), &entries).expect("a shard");
    }
    let (vocab, hidden) = (config.vocab, config.hidden);
    let rest = [
        matrix("model.embed_tokens.weight".to_owned(), vocab, hidden, 998),
        matrix("lm_head.weight".to_owned(), vocab, hidden, 999),
        ones("model.norm.weight".to_owned()),
    ];
    write_safetensors(&file(33), &rest).expect("a shard");
    std::fs::write(folder.join("config.json"), CONFIG).expect("a config");
}

fn entry(name: String, shape: Vec<usize>, bytes: Vec<u8>) -> Entry {
    Entry {
        name,
        dtype: safetensors::Dtype::BF16,
        shape,
        bytes,
    }
}
