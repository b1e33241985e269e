//! One table of the CUDA engine on Mistral 7B's shape with random weights: the plan's job, dense batches,
//! generation, the decoder of weights, the card's ceiling, dropout's cost, determinism. `warm [FOLDER]` alone times
//! starts instead.
//!
//! `cargo run --release -p qlora --features cuda --example cuda_bench [-- CASE...]`; the case `ranks` needs two
//! cards and runs only if it is named.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "cuda_bench/decode.rs"]
mod decode;
#[path = "cuda_bench/ranks.rs"]
mod ranks;
#[path = "cuda_bench/warm.rs"]
mod warm;
#[path = "cuda_bench/workload.rs"]
mod workload;

use qlora::cuda::{Base, CudaEngine, Device, Keep, Options, bench};
use qlora::ranks::Collective;
use qlora::train::{Example, TrainConfig, TrainEvent, TrainJob, train_on_gpu};
use qlora::{Adapter, LoraConfig, Target};
use workload::{Draw, GIB, dense, job, mistral};

struct Case {
    name: &'static str,
    examples: Vec<Example>,
    batch: usize,
    steps: u64,
    keep: Option<Keep>,
    dropout: f32,
    shared: bool,
    micro: Option<usize>,
    /// Nothing stays decoded.
    lean: bool,
    /// Ranks divide the prefix; None: where it saves time.
    divide: Option<bool>,
}

struct Outcome {
    ms: f64,
    tokens: f64,
    labels: f64,
    losses: Vec<f64>,
    bytes: (usize, usize),
    decoded: usize,
    used: usize,
    values: Vec<f32>,
}

fn run(base: Base, case: &Case, ranks: Option<&dyn Collective>) -> (Base, Outcome) {
    let config = LoraConfig {
        r: 16,
        alpha: 32.0,
        dropout: case.dropout,
        targets: Target::ALL.to_vec(),
        seed: 5,
        ..LoraConfig::default()
    };
    let mut adapter = Adapter::new(base.config(), &config).expect("the adapter fits");
    let options = Options {
        keep: case.keep,
        divide: case.divide,
        decode_again: case.lean,
        ..Options::default()
    };
    let mut engine = CudaEngine::new(base, &adapter, options).expect("an engine");
    let settings = TrainConfig {
        epochs: 1000,
        max_steps: Some(case.steps),
        batch: case.batch,
        micro_batch: case.micro,
        lr: 1e-4,
        shared_prefix: case.shared,
        ..TrainConfig::default()
    };
    let (mut times, mut losses, mut tokens, mut labels) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut sink = |event: TrainEvent| {
        if let TrainEvent::Step {
            record, seconds, ..
        } = event
        {
            times.push(seconds * 1e3);
            losses.push(record.loss);
            tokens.push(record.tokens as f64);
            labels.push(record.labels as f64);
        }
    };
    let result = train_on_gpu(
        &mut engine,
        &mut adapter,
        TrainJob {
            ranks,
            ..TrainJob::new(&case.examples, &settings)
        },
        &mut sink,
    );
    if let Err(error) = result {
        println!("{:<26} failed: {error}", case.name);
    }
    let (free, total) = engine.base().device().memory().unwrap_or((0, 0));
    let bytes = engine.bytes();
    let warm = 3.min(times.len());
    let mut sorted = times[warm..].to_vec();
    sorted.sort_by(f64::total_cmp);
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
    let outcome = Outcome {
        ms: sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN),
        tokens: mean(&tokens[warm..]),
        labels: mean(&labels[warm..]),
        losses,
        bytes,
        decoded: engine.decoded_bytes(),
        used: total - free,
        values: adapter.values().to_vec(),
    };
    (engine.into_base(), outcome)
}

/// Model FLOPs of a step: 4 a weight and token (forward, and the gradient of the input), the head on labels
/// only, attention 3.5 x 4 x pairs x heads x width over all layers.
fn flops(case: &Case, outcome: &Outcome) -> f64 {
    let linear = 6.979e9;
    let head = 32_000.0 * 4096.0;
    let pairs: f64 = if case.shared && case.batch == 16 {
        let own = outcome.tokens - 600.0;
        600.0 * 300.0 + own * 600.0 + own * 50.0
    } else {
        let length = outcome.tokens / case.batch as f64;
        outcome.tokens * length / 2.0
    };
    4.0 * linear * outcome.tokens + 4.0 * head * outcome.labels + 3.5 * 4.0 * pairs * 4096.0 * 32.0
}

fn cases(names: &[String]) -> Vec<Case> {
    let dense = |name, rows, tokens, keep, dropout| Case {
        name,
        examples: dense(rows * 4, tokens),
        batch: rows,
        steps: 10,
        keep: Some(keep),
        dropout,
        shared: false,
        micro: None,
        lean: keep == Keep::Offloaded,
        divide: None,
    };
    let job = |name, dropout, keep| Case {
        name,
        examples: job(),
        batch: 16,
        steps: 16,
        keep,
        dropout,
        shared: true,
        micro: None,
        lean: keep == Some(Keep::Offloaded),
        divide: None,
    };
    let lean = |name, case| Case {
        name,
        lean: true,
        ..case
    };
    let all = vec![
        job("job p=.05", 0.05, None),
        job("job p=0", 0.0, None),
        job("job p=.05 again", 0.05, None),
        lean("job p=.05 lean", job("", 0.05, None)),
        job("job p=.05 offloaded", 0.05, Some(Keep::Offloaded)),
        Case {
            name: "job p=.05 micro 4",
            micro: Some(4),
            ..job("", 0.05, None)
        },
        dense("4x2048 kept p=.05", 4, 2048, Keep::Everything, 0.05),
        lean(
            "4x2048 kept lean p=.05",
            dense("", 4, 2048, Keep::Everything, 0.05),
        ),
        dense("4x2048 kept p=0", 4, 2048, Keep::Everything, 0.0),
        dense("4x512 kept p=.05", 4, 512, Keep::Everything, 0.05),
        lean(
            "4x512 kept lean p=.05",
            dense("", 4, 512, Keep::Everything, 0.05),
        ),
        dense("4x512 kept p=0", 4, 512, Keep::Everything, 0.0),
        dense("4x2048 offloaded p=.05", 4, 2048, Keep::Offloaded, 0.05),
        dense("4x2048 inputs p=.05", 4, 2048, Keep::Inputs, 0.05),
        dense("4x2048 offloaded p=0", 4, 2048, Keep::Offloaded, 0.0),
        dense("4x4096 offloaded p=.05", 4, 4096, Keep::Offloaded, 0.05),
        dense("4x4096 offloaded p=0", 4, 4096, Keep::Offloaded, 0.0),
        dense("1x4096 offloaded p=.05", 1, 4096, Keep::Offloaded, 0.05),
    ];
    all.into_iter()
        .filter(|c| names.is_empty() || names.iter().any(|n| c.name.contains(n.as_str())))
        .collect()
}

fn main() {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    match names.first().map(String::as_str) {
        Some("warm-child") => return warm::child(&names[1..]),
        Some("warm") => {
            let folder = names.get(1).map_or_else(
                || std::env::temp_dir().join("tunesmith-warm"),
                std::path::PathBuf::from,
            );
            return warm::run(&folder);
        }
        _ => {}
    }
    let profile = names.iter().any(|n| n == "--profile");
    names.retain(|n| n != "--profile");
    if ranks::is_other(&names) {
        return ranks::other(&names);
    }
    let started = std::time::Instant::now();
    let device = Device::open().expect("a GPU");
    println!("{}", device.info().numerics());
    let ceiling = bench::sustained_products(&device, 8192, 2.0).expect("products");
    println!("sustained 8192^3 bf16: {ceiling:.0} TFLOP/s");
    let mut base =
        Base::random(device, &mistral(), bench::qlora_precision(), 4100, 1).expect("a base");
    println!(
        "base: {:.2} GiB on the card, made in {:.1} s",
        base.bytes() as f64 / GIB,
        started.elapsed().as_secs_f64()
    );
    let (us, rate) = bench::decoding(&base).expect("decoding");
    println!("decode 14336x4096 double-quantized: {us:.1} us, {rate:.2} TB/s in+out");
    println!(
        "{:<26}{:>9}{:>9}{:>9}{:>8}{:>8}{:>8}{:>7}  loss first, last",
        "case", "ms", "rows/s", "tok/s", "GiB", "block", "nvml", "MFU"
    );
    let mut first: Option<Vec<f32>> = None;
    for case in cases(&names) {
        if profile {
            bench::start_profile(base.device());
        }
        let (back, o) = run(base, &case, None);
        base = back;
        for (name, ms, calls) in bench::stop_profile(base.device()) {
            let steps = case.steps as f64;
            println!(
                "  {name:<44}{:>9.3} ms{:>8.0} calls{:>9.1} us",
                ms / steps,
                calls as f64 / steps,
                ms * 1e3 / calls as f64
            );
        }
        let mfu = flops(&case, &o) / o.ms / 1e9 / ceiling * 100.0;
        let in_use = (o.bytes.0 + o.bytes.1 + o.decoded) as f64 / GIB;
        println!(
            "{:<26}{:>9.1}{:>9.1}{:>9.0}{:>8.2}{:>8.2}{:>8.2}{:>6.1}%  {:.4} {:.4}",
            case.name,
            o.ms,
            case.batch as f64 / o.ms * 1e3,
            o.tokens / o.ms * 1e3,
            in_use,
            o.bytes.1 as f64 / GIB,
            o.used as f64 / GIB,
            mfu,
            o.losses.first().unwrap_or(&f64::NAN),
            o.losses.last().unwrap_or(&f64::NAN),
        );
        match (&first, case.name) {
            (None, "job p=.05") => first = Some(o.values),
            (Some(values), "job p=.05 again") => {
                println!("  two runs byte-equal: {}", same(values, &o.values));
            }
            (Some(values), "job p=.05 lean") => println!(
                "  layers decoded once and again byte-equal: {}",
                same(values, &o.values)
            ),
            (Some(values), "job p=.05 offloaded") => println!(
                "  kept and recomputed byte-equal: {}",
                same(values, &o.values)
            ),
            _ => {}
        }
    }
    if names.iter().any(|n| n == "ranks") {
        base = ranks::run_both(base);
    }
    if names.is_empty() || names.iter().any(|n| n.contains("decode")) {
        decode::run(base, &names, profile);
    }
    println!("total {:.1} s", started.elapsed().as_secs_f64());
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}
