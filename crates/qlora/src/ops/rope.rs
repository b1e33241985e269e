//! Rotary position embedding (Su et al. 2021) in the half-rotated form of Hugging Face Llama: dimension
//! `i` is paired with `i + d/2`, both turned by the position times the pair's inverse frequency, and
//! multiplied by the table's amplitude (1 but for YaRN).
//!
//! The backward is the same with the opposite angle. Angles are computed as transformers does: in f32.

use super::ROWS_PER_TASK;
use super::simd::vectorized;
use crate::config::Rope;
use crate::tensor::Matrix;
use rayon::prelude::*;

/// Cosines and sines for positions `0..len`.
pub(crate) struct RopeTable {
    half: usize,
    /// Per position: `half` cosines, then `half` sines.
    values: Vec<f32>,
}

impl RopeTable {
    /// A table for `positions` positions of heads `head_dim` wide.
    pub(crate) fn new(head_dim: usize, rope: Rope, positions: usize) -> Self {
        let half = head_dim / 2;
        let (inverse, amplitude) = (rope.inverse_frequencies(head_dim), rope.amplitude());
        let mut values = Vec::with_capacity(positions * head_dim);
        for position in 0..positions {
            let angles = inverse.iter().map(|inv| position as f32 * inv);
            values.extend(angles.clone().map(|angle| angle.cos() * amplitude));
            values.extend(angles.map(|angle| angle.sin() * amplitude));
        }
        Self { half, values }
    }

    /// Per position: half a head's cosines, then its sines.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// Turns the first `heads` heads of every row in place; row `t` stands at `positions[t]`.
    pub(crate) fn rotate(&self, rows: &mut Matrix, heads: usize, positions: &[u32], turn: Turn) {
        let stride = rows.cols();
        let width = 2 * self.half;
        rows.data_mut()
            .par_chunks_mut(stride * ROWS_PER_TASK)
            .zip(positions.par_chunks(ROWS_PER_TASK))
            .for_each(|(rows, positions)| {
                for (row, position) in rows.chunks_mut(stride).zip(positions) {
                    let at = *position as usize * width;
                    let (cos, sin) = self.values[at..at + width].split_at(self.half);
                    let sign = if turn == Turn::Forward { 1.0 } else { -1.0 };
                    rotate_heads(&mut row[..heads * width], cos, sin, sign);
                }
            });
    }
}

/// Direction of a rotation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// By the position's angle.
    Forward,
    /// By the opposite angle: the backward of `Forward`.
    Back,
}

vectorized! {
    fn rotate_heads(heads: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
        let half = cos.len();
        for head in heads.chunks_exact_mut(2 * half) {
            let (low, high) = head.split_at_mut(half);
            for i in 0..half {
                let (a, b, s) = (low[i], high[i], sign * sin[i]);
                low[i] = a * cos[i] - b * s;
                high[i] = b * cos[i] + a * s;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::simd::tests::noise;

    #[test]
    fn rotation_matches_the_complex_form_and_turns_back() {
        let (dim, heads, theta) = (16, 3, 1e4);
        let table = RopeTable::new(dim, Rope::plain(theta), 600);
        let positions = [0, 1, 17, 599];
        let before = Matrix::new(4, heads * dim + 8, noise(4 * (heads * dim + 8), 1));
        let mut rows = before.clone();
        table.rotate(&mut rows, heads, &positions, Turn::Forward);
        for (t, p) in positions.iter().enumerate() {
            for h in 0..heads {
                for i in 0..dim / 2 {
                    let angle = f64::from(*p) * theta.powf(-2.0 * i as f64 / dim as f64);
                    let (re, im) = (
                        before.row(t)[h * dim + i],
                        before.row(t)[h * dim + i + dim / 2],
                    );
                    let (re, im) = (f64::from(re), f64::from(im));
                    let want_re = re * angle.cos() - im * angle.sin();
                    let want_im = im * angle.cos() + re * angle.sin();
                    assert!((f64::from(rows.row(t)[h * dim + i]) - want_re).abs() < 1e-4);
                    assert!((f64::from(rows.row(t)[h * dim + i + dim / 2]) - want_im).abs() < 1e-4);
                }
            }
            assert_eq!(
                rows.row(t)[heads * dim..],
                before.row(t)[heads * dim..],
                "values are not turned"
            );
        }
        table.rotate(&mut rows, heads, &positions, Turn::Back);
        for (a, b) in rows.data().iter().zip(before.data()) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}
