//! Speed and error of the engine's matrix products on this machine, for the shapes of SmolLM2-135M:
//! vector instructions on f32 beside the tile unit.
//!
//! Errors are against f64, over 2,000 elements: root mean square and largest, relative to the root mean
//! square of the result. Speed is the best of five.
//!
//! `cargo run --release -p qlora --example products`
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::time::Instant;

use qlora::Matrix;
use qlora::products::{Unit, times, times_transposed};

const ROUNDS: usize = 5;
const SAMPLES: usize = 2_000;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        self.0 >> 33
    }

    /// Sums of three uniform values: a bell of width one.
    fn matrix(&mut self, rows: usize, cols: usize) -> Matrix {
        let mut draw = || {
            (0..3)
                .map(|_| self.next() as f32 / (1_u64 << 30) as f32 - 1.0)
                .sum()
        };
        Matrix::new(rows, cols, (0..rows * cols).map(|_| draw()).collect())
    }
}

/// A product: what it is, `m x k` times `k x n`, and whether the right operand lies as `n x k`.
struct Shape(&'static str, usize, usize, usize, bool);

const SHAPES: [Shape; 14] = [
    Shape("qkv forward", 2200, 960, 576, true),
    Shape("output forward", 2200, 576, 592, true),
    Shape("gate, up forward", 2200, 3072, 576, true),
    Shape("down forward", 2200, 576, 1552, true),
    Shape("qkv backward", 2200, 624, 960, false),
    Shape("gate, up backward", 2200, 608, 3072, false),
    Shape("down backward", 2200, 1552, 576, false),
    Shape("adapter down", 2200, 48, 576, true),
    Shape("adapter input gradient", 2200, 576, 48, false),
    Shape("head forward", 300, 49_152, 576, true),
    Shape("head backward", 300, 576, 49_152, false),
    Shape("decode 80, gate and up", 80, 3072, 576, true),
    Shape("decode 80, head", 80, 49_152, 576, true),
    Shape("decode 16, gate and up", 16, 3072, 576, true),
];

fn main() {
    println!(
        "threads: {}, unit: {}",
        rayon::current_num_threads(),
        Unit::here()
    );
    println!(
        "| product | m x n x k | f32 GFLOP/s | rms error | largest | tile GFLOP/s | rms error | largest |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for shape in &SHAPES {
        let Shape(name, m, n, k, transposed) = *shape;
        let mut random = Random(7);
        let a = random.matrix(m, k);
        let b = if transposed {
            random.matrix(n, k)
        } else {
            random.matrix(k, n)
        };
        let mut cells = format!("| {name} | {m} x {n} x {k} |");
        for unit in [Unit::Vector, Unit::Tile] {
            let (y, seconds) = best(unit, &a, &b, transposed);
            let (rms, largest) = error(&a, &b, transposed, &y);
            let speed = 2.0 * (m * n * k) as f64 / seconds / 1e9;
            cells += &format!(" {speed:.0} | {rms:.1e} | {largest:.1e} |");
        }
        println!("{cells}");
    }
}

fn best(unit: Unit, a: &Matrix, b: &Matrix, transposed: bool) -> (Matrix, f64) {
    let run = || {
        let begun = Instant::now();
        let y = if transposed {
            times_transposed(unit, a, b)
        } else {
            times(unit, a, b)
        };
        (y, begun.elapsed().as_secs_f64())
    };
    let mut best = run();
    for _ in 1..ROUNDS {
        let next = run();
        if next.1 < best.1 {
            best = next;
        }
    }
    best
}

fn error(a: &Matrix, b: &Matrix, transposed: bool, y: &Matrix) -> (f64, f64) {
    let mut random = Random(11);
    let (mut squares, mut size, mut largest) = (0.0, 0.0, 0.0_f64);
    for _ in 0..SAMPLES {
        let i = random.next() as usize % y.rows();
        let j = random.next() as usize % y.cols();
        let right = |k: usize| if transposed { b.row(j)[k] } else { b.row(k)[j] };
        let want: f64 = a
            .row(i)
            .iter()
            .enumerate()
            .map(|(k, v)| f64::from(*v) * f64::from(right(k)))
            .sum();
        let off = f64::from(y.row(i)[j]) - want;
        squares += off * off;
        size += want * want;
        largest = largest.max(off.abs());
    }
    let size = (size / SAMPLES as f64).sqrt();
    ((squares / SAMPLES as f64).sqrt() / size, largest / size)
}
