//! Greedy generation on the same base: prompts of 600 shared ids and 64 own ones, 200 ids each, an adapter of
//! r = 16 beside all linear layers.

use std::time::Instant;

use qlora::cuda::{Base, Generator, How, bench};
use qlora::{Adapter, LoraConfig, Matrix, Result, Target};

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
        ..LoraConfig::default()
    };
    let mut adapter = Adapter::new(base.config(), &config).expect("the adapter fits");
    let mut draw = Draw(23);
    for value in adapter.values_mut() {
        *value += ((draw.next() >> 40) as f32 / 16_777_216.0 - 0.5) * 0.01;
    }
    adapter
}

/// Seconds of the median run.
fn seconds(
    generator: &mut Generator,
    prompts: &[Vec<u32>],
    new: usize,
    runs: usize,
) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..runs {
        let begun = Instant::now();
        generator.generate(prompts, new, &[])?;
        times.push(begun.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[runs / 2])
}

fn distance(a: &Matrix, b: &Matrix) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let pairs = a.data().iter().zip(b.data());
    let apart = square(&mut pairs.map(|(a, b)| f64::from(a - b)));
    (apart / square(&mut b.data().iter().map(|v| f64::from(*v)))).sqrt()
}

/// The steps against one pass over everything, and against weights decoded before the products.
fn check(generator: &mut Generator, prompts: &[Vec<u32>]) -> Result<()> {
    let read = generator.next_logits(prompts)?;
    generator.how.narrow = false;
    let before = generator.stepped_logits(prompts, 4)?;
    println!(
        "  logits off by {:.2e} (decoded before)",
        distance(&before, &read)
    );
    generator.how.narrow = true;
    let inside = generator.stepped_logits(prompts, 4)?;
    println!(
        "  logits off by {:.2e} (decoded inside), {:.2e} from decoded before",
        distance(&inside, &read),
        distance(&inside, &before)
    );
    Ok(())
}

/// Times one way; gives its first answers.
fn time(
    generator: &mut Generator,
    prompts: &[Vec<u32>],
    name: &str,
    runs: usize,
) -> Result<Vec<Vec<u32>>> {
    let answers = generator.generate(prompts, 24, &[])?;
    let first = seconds(generator, prompts, 1, runs)?;
    let all = seconds(generator, prompts, NEW, runs)?;
    let (weights, block) = generator.bytes();
    println!(
        "{name:<26}{:>9.3} ms a step{:>9.0} tok/s stepping{:>9.0} tok/s in all, prompts {:.0} ms, {:.2} GiB",
        (all - first) * 1e3 / (NEW - 1) as f64,
        (prompts.len() * (NEW - 1)) as f64 / (all - first),
        (prompts.len() * NEW) as f64 / all,
        first * 1e3,
        (weights + block) as f64 / GIB
    );
    Ok(answers)
}

fn case(generator: &mut Generator, rows: usize, profile: bool) -> Result<()> {
    let (name, prompts) = (format!("decode {rows}"), prompts(rows));
    check(generator, &prompts)?;
    let mut answers = Vec::new();
    for (captured, narrow, kind, runs) in [
        (true, true, "", 3),
        (false, true, " plain", 1),
        (true, false, " decoded before", 1),
    ] {
        generator.how = How { captured, narrow };
        answers.push(time(generator, &prompts, &format!("{name}{kind}"), runs)?);
    }
    generator.how = How::default();
    println!(
        "  chosen alike: plain {}, decoded before {}",
        answers[0] == answers[1],
        answers[0] == answers[2]
    );
    if !profile {
        return Ok(());
    }
    bench::start_profile(generator.base().device());
    let answered = generator.generate(&prompts, 33, &[]);
    for (name, ms, calls) in bench::stop_profile(generator.base().device()) {
        println!(
            "  {name:<44}{ms:>9.3} ms{calls:>8} calls{:>9.1} us",
            ms * 1e3 / calls as f64
        );
    }
    answered.map(drop)
}

/// Runs the cases that `names` ask for.
pub(super) fn run(base: Base, names: &[String], profile: bool) -> Base {
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == "decode" || n == name);
    let adapter = adapter(&base);
    let mut generator = Generator::new(base, Some(&adapter)).expect("a generator");
    for rows in [1, 8, 16, 50] {
        if !wanted(&format!("decode {rows}")) {
            continue;
        }
        if let Err(error) = case(&mut generator, rows, profile) {
            println!("decode {rows} failed: {error}");
        }
    }
    generator.into_base()
}
