//! Dropout of the adapter's input, by a counter instead of a stream: the mask of one value is a pure
//! function of (seed, step, layer, site, stream, position, column).
//!
//! So the mask does not depend on a row's place in the batch, on micro-batches or on threads, and the
//! backward draws it again instead of keeping it. Kept values are scaled by `1 / (1 - rate)`.
//! One mask serves all adapters that read the same input (PEFT draws one per module; both are unbiased).
#![expect(
    clippy::inline_always,
    reason = "a vector loop must be compiled into each of its instruction sets"
)]

use super::ROWS_PER_TASK;
use super::simd::vectorized;
use crate::tensor::Matrix;
use rayon::prelude::*;

/// The finaliser of SplitMix64 (Steele et al. 2014): every input bit reaches every output bit.
#[inline(always)]
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A 32-bit finaliser (Ettinger's `lowbias32`), cheap enough to draw for every two values.
#[inline(always)]
fn mix32(value: u32) -> u32 {
    let mut z = value ^ (value >> 16);
    z = z.wrapping_mul(0x7feb_352d);
    z = (z ^ (z >> 15)).wrapping_mul(0x846c_a68b);
    z ^ (z >> 16)
}

/// Of the 65,536 draws of a value, how many drop it at `rate`, and what the kept ones are scaled by: with
/// rates rounded to 1/65,536, the expectation stays exact.
pub(crate) fn draws(rate: f32) -> (u32, f32) {
    let dropped = (f64::from(rate) * 65_536.0).round().clamp(0.0, 65_535.0);
    (dropped as u32, (65_536.0 / (65_536.0 - dropped)) as f32)
}

/// The masks of one pass over some tokens.
pub(crate) struct Dropout {
    rate: f32,
    /// Per token: mixed from seed, step, stream and position.
    tokens: Vec<u64>,
}

/// The key of one token: `stream` names the row (or the shared prefix), `position` the place in it.
pub(crate) fn token_key(seed: u64, step: u64, stream: u64, position: u32) -> u64 {
    mix(mix(mix(seed ^ 0xD50F) ^ step) ^ mix(stream)).wrapping_add(u64::from(position))
}

impl Dropout {
    /// Masks at `rate` for tokens with the given keys.
    pub(crate) fn new(rate: f32, tokens: Vec<u64>) -> Self {
        Self { rate, tokens }
    }

    /// Writes the masked and scaled first `width` columns of `x` into `out`. `place` numbers the layer
    /// and site. Applied to a gradient, this is the backward.
    pub(crate) fn apply(&self, x: &Matrix, width: usize, place: u64, out: &mut Matrix) {
        assert_eq!(out.cols(), width, "dropout output");
        let stride = x.cols();
        let (threshold, keep) = draws(self.rate);
        out.data_mut()
            .par_chunks_mut(width * ROWS_PER_TASK)
            .zip(x.data().par_chunks(stride * ROWS_PER_TASK))
            .zip(self.tokens.par_chunks(ROWS_PER_TASK))
            .for_each(|((out, x), keys)| {
                for ((out, x), key) in out.chunks_mut(width).zip(x.chunks(stride)).zip(keys) {
                    let key = mix(key ^ mix(place));
                    mask_row(
                        &x[..width],
                        (key >> 32) as u32,
                        key as u32,
                        threshold,
                        keep,
                        out,
                    );
                }
            });
    }
}

vectorized! {
    fn mask_row(x: &[f32], high: u32, low: u32, threshold: u32, keep: f32, out: &mut [f32]) {
        for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
            // One draw of 32 bits serves two neighbouring columns.
            let drawn = mix32(mix32(low.wrapping_add(i as u32 / 2)) ^ high);
            let own = (drawn >> (16 * (i as u32 & 1))) & 0xFFFF;
            *out = if own >= threshold { x * keep } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_scale_are_right_and_masks_are_functions_of_their_names() {
        let (rows, width) = (64, 500);
        let keys: Vec<u64> = (0..rows).map(|p| token_key(7, 3, 11, p as u32)).collect();
        let ones = Matrix::new(rows, width, vec![1.0; rows * width]);
        let draw = |keys: &[u64], place| {
            let mut out = Matrix::zeros(keys.len(), width);
            let ones = Matrix::new(
                keys.len(),
                width,
                ones.data()[..keys.len() * width].to_vec(),
            );
            Dropout::new(0.1, keys.to_vec()).apply(&ones, width, place, &mut out);
            out
        };
        let first = draw(&keys, 5);
        let dropped = first.data().iter().filter(|v| **v == 0.0).count() as f64;
        let share = dropped / (rows * width) as f64;
        assert!((share - 0.1).abs() < 0.01, "{share}");
        assert!(
            first
                .data()
                .iter()
                .all(|v| *v == 0.0 || (*v - 1.0 / 0.9).abs() < 1e-4)
        );
        assert_eq!(
            first.row(9),
            draw(&keys[9..10], 5).row(0),
            "place in the batch does not matter"
        );
        assert_ne!(first.data(), draw(&keys, 6).data(), "sites differ");
        let neighbours = first.data().as_chunks::<2>().0;
        let pairs = neighbours.iter().filter(|[a, b]| *a == 0.0 && *b == 0.0);
        let share = pairs.count() as f64 / neighbours.len() as f64;
        assert!(
            (share - 0.01).abs() < 0.005,
            "neighbours are independent: {share}"
        );
        let both = first
            .data()
            .iter()
            .zip(draw(&keys, 6).data())
            .filter(|(a, b)| **a == 0.0 && **b == 0.0)
            .count();
        assert!(
            (both as f64 / (rows * width) as f64 - 0.01).abs() < 0.005,
            "sites are independent"
        );
    }
}
