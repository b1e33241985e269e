//! A root-mean-square norm over each head of queries and keys (Qwen3, Gemma 3), with frozen weights.
//!
//! Heads lie side by side in the first columns of a row, queries before keys; the weight is given at the
//! same width, so both kinds of heads have their own. The maths is that of [`super::rmsnorm`], per head.

use super::ROWS_PER_TASK;
use super::rmsnorm::{backward_row, forward_row};
use crate::tensor::Matrix;
use rayon::prelude::*;

/// Replaces the heads in `qkv` by their norms; gives the heads as they were, and one `inv` per head.
pub(crate) fn forward(
    qkv: &mut Matrix,
    dim: usize,
    weight: &[f32],
    eps: f32,
    raw: &mut Matrix,
) -> Vec<f32> {
    let (stride, width) = (qkv.cols(), weight.len());
    assert_eq!(raw.cols(), width, "one weight per column of the heads");
    let heads = width / dim;
    let mut inv = vec![0.0; qkv.rows() * heads];
    qkv.data_mut()
        .par_chunks_mut(stride * ROWS_PER_TASK)
        .zip(raw.data_mut().par_chunks_mut(width * ROWS_PER_TASK))
        .zip(inv.par_chunks_mut(heads * ROWS_PER_TASK))
        .for_each(|((qkv, raw), inv)| {
            let rows = qkv
                .chunks_mut(stride)
                .zip(raw.chunks_mut(width))
                .zip(inv.chunks_mut(heads));
            for ((qkv, raw), inv) in rows {
                raw.copy_from_slice(&qkv[..width]);
                for (head, inv) in inv.iter_mut().enumerate() {
                    let at = head * dim..(head + 1) * dim;
                    *inv = forward_row(&raw[at.clone()], &weight[at.clone()], eps, &mut qkv[at]);
                }
            }
        });
    inv
}

/// Replaces the gradient of the normed heads in `dqkv` by that of the heads before their norm.
pub(crate) fn backward(dqkv: &mut Matrix, dim: usize, weight: &[f32], raw: &Matrix, inv: &[f32]) {
    let (stride, width) = (dqkv.cols(), weight.len());
    let heads = width / dim;
    dqkv.data_mut()
        .par_chunks_mut(stride * ROWS_PER_TASK)
        .zip(raw.data().par_chunks(width * ROWS_PER_TASK))
        .zip(inv.par_chunks(heads * ROWS_PER_TASK))
        .for_each(|((dqkv, raw), inv)| {
            let mut through = vec![0.0; dim];
            let rows = dqkv
                .chunks_mut(stride)
                .zip(raw.chunks(width))
                .zip(inv.chunks(heads));
            for ((dqkv, raw), inv) in rows {
                for (head, inv) in inv.iter().enumerate() {
                    let at = head * dim..(head + 1) * dim;
                    through.fill(0.0);
                    backward_row(
                        &dqkv[at.clone()],
                        &raw[at.clone()],
                        &weight[at.clone()],
                        *inv,
                        &mut through,
                    );
                    dqkv[at].copy_from_slice(&through);
                }
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::rmsnorm;
    use crate::ops::simd::tests::noise;

    #[test]
    fn every_head_has_the_norm_of_a_row_and_values_are_left_alone() {
        let (rows, dim, heads, stride) = (5, 12, 3, 50);
        let weight = noise(dim * heads, 1);
        let before = Matrix::new(rows, stride, noise(rows * stride, 2));
        let mut qkv = before.clone();
        let mut raw = Matrix::zeros(rows, dim * heads);
        let inv = forward(&mut qkv, dim, &weight, 1e-6, &mut raw);
        let dy = Matrix::new(rows, stride, noise(rows * stride, 3));
        let mut dqkv = dy.clone();
        backward(&mut dqkv, dim, &weight, &raw, &inv);
        for head in 0..heads {
            let at = head * dim..(head + 1) * dim;
            let pick = |m: &Matrix| {
                let data = (0..rows).flat_map(|t| m.row(t)[at.clone()].to_vec());
                Matrix::new(rows, dim, data.collect())
            };
            let mut want = Matrix::zeros(rows, dim);
            let x = pick(&before);
            let inv = rmsnorm::forward(&x, &weight[at.clone()], 1e-6, &mut want);
            assert_eq!(pick(&qkv), want);
            let mut dx = Matrix::zeros(rows, dim);
            rmsnorm::backward(&pick(&dy), &x, &weight[at.clone()], &inv, &mut dx);
            assert_eq!(pick(&dqkv), dx);
        }
        for t in 0..rows {
            assert_eq!(qkv.row(t)[dim * heads..], before.row(t)[dim * heads..]);
            assert_eq!(dqkv.row(t)[dim * heads..], dy.row(t)[dim * heads..]);
        }
    }
}
