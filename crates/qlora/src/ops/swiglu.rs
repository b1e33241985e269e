//! The gated activation of Llama-family decoders (Shazeer 2020): `a = silu(g) * u`.
//!
//! `gate_up` rows hold `[g | u]`, each `width` wide. Backward, with `s = sigmoid(g)`:
//! `dg = da * u * s * (1 + g * (1 - s))`, `du = da * g * s`. The backward overwrites `[g | u]` by
//! `[dg | du]`, as nobody needs the inputs afterwards.

use super::ROWS_PER_TASK;
use super::simd::{exp, vectorized};
use crate::tensor::Matrix;
use rayon::prelude::*;

vectorized! {
    fn forward_row(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, g), u) in out.iter_mut().zip(gate).zip(up) {
            *out = g / (1.0 + exp(-g)) * u;
        }
    }
}

/// Writes the activations into the first `width` columns of `out`.
pub(crate) fn forward(gate_up: &Matrix, width: usize, out: &mut Matrix) {
    assert_eq!(gate_up.cols(), 2 * width, "gate and up");
    let stride = out.cols();
    out.data_mut()
        .par_chunks_mut(stride * ROWS_PER_TASK)
        .zip(gate_up.data().par_chunks(2 * width * ROWS_PER_TASK))
        .for_each(|(out, gate_up)| {
            for (out, gate_up) in out.chunks_mut(stride).zip(gate_up.chunks(2 * width)) {
                let (gate, up) = gate_up.split_at(width);
                forward_row(gate, up, &mut out[..width]);
            }
        });
}

vectorized! {
    fn backward_row(da: &[f32], gate: &mut [f32], up: &mut [f32]) {
        for ((da, g), u) in da.iter().zip(gate).zip(up) {
            let s = 1.0 / (1.0 + exp(-*g));
            let silu = *g * s;
            let dg = da * *u * s * (1.0 + *g * (1.0 - s));
            *u = da * silu;
            *g = dg;
        }
    }
}

/// Replaces `[g | u]` by its gradient; `da` sits in the first columns of its matrix.
pub(crate) fn backward(da: &Matrix, gate_up: &mut Matrix) {
    let (stride, width) = (da.cols(), gate_up.cols() / 2);
    gate_up
        .data_mut()
        .par_chunks_mut(2 * width * ROWS_PER_TASK)
        .zip(da.data().par_chunks(stride * ROWS_PER_TASK))
        .for_each(|(gate_up, da)| {
            for (gate_up, da) in gate_up.chunks_mut(2 * width).zip(da.chunks(stride)) {
                let (gate, up) = gate_up.split_at_mut(width);
                backward_row(&da[..width], gate, up);
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::simd::tests::noise;

    fn activation(g: f64, u: f64) -> f64 {
        g / (1.0 + (-g).exp()) * u
    }

    #[test]
    fn forward_and_backward_match_finite_differences() {
        let (rows, width) = (3, 21);
        let values: Vec<f32> = noise(rows * 2 * width, 1).iter().map(|v| 6.0 * v).collect();
        let mut gate_up = Matrix::new(rows, 2 * width, values);
        let mut out = Matrix::zeros(rows, width + 2);
        forward(&gate_up, width, &mut out);
        let da = Matrix::new(rows, width + 2, noise(rows * (width + 2), 2));
        let input = gate_up.clone();
        backward(&da, &mut gate_up);
        for t in 0..rows {
            for i in 0..width {
                let (g, u) = (
                    f64::from(input.row(t)[i]),
                    f64::from(input.row(t)[width + i]),
                );
                let d = f64::from(da.row(t)[i]);
                assert!((f64::from(out.row(t)[i]) - activation(g, u)).abs() < 1e-5);
                let h = 1e-5;
                let dg = (activation(g + h, u) - activation(g - h, u)) / (2.0 * h) * d;
                let du = (activation(g, u + h) - activation(g, u - h)) / (2.0 * h) * d;
                assert!((f64::from(gate_up.row(t)[i]) - dg).abs() < 1e-5);
                assert!((f64::from(gate_up.row(t)[width + i]) - du).abs() < 1e-5);
            }
        }
    }
}
