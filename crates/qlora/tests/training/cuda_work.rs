//! What the tests on a card train: rows behind a shared prefix, rows that share nothing, and the adapter's shape.

use qlora::train::Example;
use qlora::{LoraConfig, Quantization};

pub(crate) const NF4: Quantization = Quantization::Nf4 { double: true };

/// On every linear layer.
pub(crate) fn lora(dropout: f32) -> LoraConfig {
    LoraConfig {
        r: 8,
        alpha: 16.0,
        dropout,
        seed: 1,
        ..LoraConfig::default()
    }
}

/// Rows behind one prefix of `prefix` ids, but for row `odd`; row `i` has `own(i)` ids more. All but the first two
/// of those are learned.
pub(crate) fn behind_prefix(
    count: u32,
    odd: u32,
    prefix: u32,
    own: impl Fn(u32) -> u32,
) -> Vec<Example> {
    let ids = |seed: u32, count: u32| (0..count).map(move |i| 3 + (seed * 131 + i * 37) % 250);
    let row = |row| {
        let shared = ids(if row == odd { 9 } else { 1 }, prefix);
        let ids: Vec<u32> = shared.chain(ids(20 + row, own(row))).collect();
        example(row, ids, prefix as usize + 1)
    };
    (0..count).map(row).collect()
}

/// Rows that share nothing; row `i` has `length(i)` ids, and all behind the 21st are learned.
pub(crate) fn apart(count: u32, length: impl Fn(u32) -> u32) -> Vec<Example> {
    let row = |row| {
        let ids = (0..length(row)).map(|at| (row * 31 + at * 17) % 512);
        example(row, ids.collect(), 20)
    };
    (0..count).map(row).collect()
}

fn example(row: u32, ids: Vec<u32>, learned_behind: usize) -> Example {
    Example {
        id: format!("row {row}"),
        labels: (0..ids.len()).map(|at| at > learned_behind).collect(),
        ids,
        weight: 1.0,
    }
}
