//! Root-mean-square norm (Zhang and Sennrich 2019) with a frozen weight.
//!
//! Forward, per row: `inv = 1 / sqrt(mean(x^2) + eps)`, `y = x * inv * w`.
//! Backward: `g = dy * w`, `dx += inv * g - x * inv^3 * mean(g * x)`. The weight is frozen, so it gets
//! no gradient. `y` and `dy` may be wider than the row (their stride is given): the columns beyond
//! belong to the adapter.

use super::ROWS_PER_TASK;
use super::simd::{dot_inline, vectorized};
use crate::tensor::Matrix;
use rayon::prelude::*;

vectorized! {
    pub(super) fn forward_row(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) -> f32 {
        let mean = dot_inline(x, x) / x.len() as f32;
        let inv = 1.0 / (mean + eps).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            *y = x * inv * w;
        }
        inv
    }
}

/// Writes the normed rows of `x` into the first columns of `y`; gives each row's `inv`.
pub(crate) fn forward(x: &Matrix, weight: &[f32], eps: f32, y: &mut Matrix) -> Vec<f32> {
    assert_eq!(x.cols(), weight.len(), "norm weight");
    let (width, stride) = (x.cols(), y.cols());
    let mut inv = vec![0.0; x.rows()];
    y.data_mut()
        .par_chunks_mut(stride * ROWS_PER_TASK)
        .zip(x.data().par_chunks(width * ROWS_PER_TASK))
        .zip(inv.par_chunks_mut(ROWS_PER_TASK))
        .for_each(|((y, x), inv)| {
            for ((y, x), inv) in y.chunks_mut(stride).zip(x.chunks(width)).zip(inv) {
                *inv = forward_row(x, weight, eps, &mut y[..width]);
            }
        });
    inv
}

vectorized! {
    pub(super) fn backward_row(dy: &[f32], x: &[f32], weight: &[f32], inv: f32, dx: &mut [f32]) {
        let mut scaled = [0.0; super::simd::LANES];
        let n = x.len();
        let whole = n - n % super::simd::LANES;
        for at in (0..whole).step_by(super::simd::LANES) {
            for i in 0..super::simd::LANES {
                scaled[i] += dy[at + i] * weight[at + i] * x[at + i];
            }
        }
        let mut sum: f32 = scaled.iter().sum();
        for i in whole..n {
            sum += dy[i] * weight[i] * x[i];
        }
        let pull = inv * inv * inv * sum / n as f32;
        for i in 0..n {
            dx[i] += inv * (dy[i] * weight[i]) - x[i] * pull;
        }
    }
}

/// Adds the gradient of the norm's input to `dx`; `dy` sits in the first columns of its matrix.
pub(crate) fn backward(dy: &Matrix, x: &Matrix, weight: &[f32], inv: &[f32], dx: &mut Matrix) {
    let (width, stride) = (x.cols(), dy.cols());
    dx.data_mut()
        .par_chunks_mut(width * ROWS_PER_TASK)
        .zip(dy.data().par_chunks(stride * ROWS_PER_TASK))
        .zip(x.data().par_chunks(width * ROWS_PER_TASK))
        .zip(inv.par_chunks(ROWS_PER_TASK))
        .for_each(|(((dx, dy), x), inv)| {
            let rows = dx
                .chunks_mut(width)
                .zip(dy.chunks(stride))
                .zip(x.chunks(width))
                .zip(inv);
            for (((dx, dy), x), inv) in rows {
                backward_row(&dy[..width], x, weight, *inv, dx);
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::simd::tests::noise;

    /// The formula in f64: `sum_t r_t . norm(x_t)`.
    fn objective(x: &[f64], weight: &[f32], r: &[f32]) -> f64 {
        let n = weight.len();
        x.chunks(n)
            .zip(r.chunks(n))
            .map(|(x, r)| {
                let mean = x.iter().map(|v| v * v).sum::<f64>() / n as f64;
                let inv = 1.0 / (mean + 1e-5).sqrt();
                (0..n)
                    .map(|i| x[i] * inv * f64::from(weight[i]) * f64::from(r[i]))
                    .sum::<f64>()
            })
            .sum()
    }

    #[test]
    fn forward_and_backward_match_finite_differences() {
        let (rows, n) = (3, 37);
        let x = Matrix::new(rows, n, noise(rows * n, 1));
        let (weight, r) = (noise(n, 2), noise(rows * n, 3));
        let mut y = Matrix::zeros(rows, n + 5);
        let inv = forward(&x, &weight, 1e-5, &mut y);
        let x64: Vec<f64> = x.data().iter().map(|v| f64::from(*v)).collect();
        let got: f64 = (0..rows * n)
            .map(|i| f64::from(y.row(i / n)[i % n]) * f64::from(r[i]))
            .sum();
        assert!((got - objective(&x64, &weight, &r)).abs() < 1e-5);

        let mut dy = Matrix::zeros(rows, n + 5);
        for i in 0..rows {
            dy.row_mut(i)[..n].copy_from_slice(&r[i * n..(i + 1) * n]);
        }
        let mut dx = Matrix::zeros(rows, n);
        backward(&dy, &x, &weight, &inv, &mut dx);
        for i in 0..rows * n {
            let mut moved = x64.clone();
            moved[i] += 1e-5;
            let up = objective(&moved, &weight, &r);
            moved[i] -= 2e-5;
            let want = (up - objective(&moved, &weight, &r)) / 2e-5;
            assert!((f64::from(dx.data()[i]) - want).abs() < 1e-5, "{i}");
        }
    }
}
