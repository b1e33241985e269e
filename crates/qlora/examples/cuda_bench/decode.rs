//! Greedy generation on the same base: prompts of 600 shared ids and 64 own ones, 200 ids each, an adapter of
//! r = 16 beside all linear layers.

use std::time::Instant;

use qlora::cuda::{Base, Generator, How, bench};
use qlora::{Adapter, LoraConfig, Matrix, Target};

use super::{Draw, GIB};

const NEW: usize = 200;

fn prompts(rows: usize) -> Vec<Vec<u32>> {
    let mut draw = Draw(17);
    let shared = draw.ids(600);
    (0..rows)
        .map(|_| [shared.clone(), draw.ids(64)].concat())
        .collect()
}

fn adapter(base: &Base) -> Adapter {
    let config = LoraConfig {
        r: 16,
        alpha: 32.0,
        dropout: 0.0,
        targets: Target::ALL.to_vec(),
        seed: 5,
    };
    let mut adapter = Adapter::new(base.config(), &config).expect("the adapter fits");
    let mut draw = Draw(23);
    for value in adapter.values_mut() {
        *value += ((draw.next() >> 40) as f32 / 16_777_216.0 - 0.5) * 0.01;
    }
    adapter
}

/// Seconds of the median run.
fn seconds(generator: &mut Generator, prompts: &[Vec<u32>], new: usize) -> f64 {
    let mut times: Vec<f64> = (0..3)
        .map(|_| {
            let begun = Instant::now();
            let answers = generator.generate(prompts, new, &[]).expect("answers");
            assert!(answers.iter().all(|a| a.len() == new));
            begun.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[1]
}

fn distance(a: &Matrix, b: &Matrix) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let pairs = a.data().iter().zip(b.data());
    let apart = square(&mut pairs.map(|(a, b)| f64::from(a - b)));
    (apart / square(&mut b.data().iter().map(|v| f64::from(*v)))).sqrt()
}

/// The steps against one pass over everything, and against weights decoded before the products.
fn check(generator: &mut Generator, prompts: &[Vec<u32>]) {
    let read = generator.next_logits(prompts).expect("logits");
    let [inside, before] = [true, false].map(|narrow| {
        generator.how.narrow = narrow;
        generator.stepped_logits(prompts, 4).expect("logits")
    });
    println!(
        "  logits off by {:.2e} (decoded inside), {:.2e} (before), {:.2e} from each other",
        distance(&inside, &read),
        distance(&before, &read),
        distance(&inside, &before)
    );
    generator.how.narrow = true;
}

/// Runs the cases that `names` ask for.
pub(super) fn run(base: Base, names: &[String], profile: bool) -> Base {
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| name.contains(n.as_str()));
    let adapter = adapter(&base);
    let mut generator = Generator::new(base, Some(&adapter)).expect("a generator");
    for rows in [1, 8, 16, 50] {
        let name = format!("decode {rows}");
        if !wanted(&name) {
            continue;
        }
        let prompts = prompts(rows);
        check(&mut generator, &prompts);
        let mut answers = Vec::new();
        for (how, kind) in [
            (How::default(), ""),
            (
                How {
                    captured: false,
                    ..How::default()
                },
                " plain",
            ),
            (
                How {
                    narrow: false,
                    ..How::default()
                },
                " decoded before",
            ),
        ] {
            generator.how = how;
            answers.push(generator.generate(&prompts, 24, &[]).expect("answers"));
            let (first, all) = (
                seconds(&mut generator, &prompts, 1),
                seconds(&mut generator, &prompts, NEW),
            );
            let (weights, block) = generator.bytes();
            println!(
                "{:<26}{:>9.3} ms a step{:>9.0} tok/s stepping{:>9.0} tok/s in all, prompts {:.0} ms, {:.2} GiB",
                format!("{name}{kind}"),
                (all - first) * 1e3 / (NEW - 1) as f64,
                (rows * (NEW - 1)) as f64 / (all - first),
                (rows * NEW) as f64 / all,
                first * 1e3,
                (weights + block) as f64 / GIB
            );
        }
        println!(
            "  captured and plain choose alike: {}; decoded inside and before: {}",
            answers[0] == answers[1],
            answers[0] == answers[2]
        );
        generator.how = How::default();
        if profile {
            bench::start_profile(generator.base().device());
            generator.generate(&prompts, 33, &[]).expect("answers");
            for (name, ms, calls) in bench::stop_profile(generator.base().device()) {
                println!(
                    "  {name:<44}{ms:>9.3} ms{calls:>8} calls{:>9.1} us",
                    ms * 1e3 / calls as f64
                );
            }
        }
    }
    generator.into_base()
}
