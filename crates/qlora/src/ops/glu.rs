//! The gated linear unit of decoders (Shazeer 2020): `a = f(g) * u`, with `f` SiLU or GELU in its tanh form.
//!
//! Both gates are `g` times a sigmoid: `silu(g) = g * sigmoid(g)`, and `0.5 g (1 + tanh(v)) = g * sigmoid(2v)`
//! with `v = sqrt(2/pi) (g + 0.044715 g^3)`. `gate_up` rows hold `[g | u]`, each `width` wide. Backward, with
//! `s` the sigmoid of `z(g)`: `dg = da * u * s * (1 + g * z'(g) * (1 - s))`, `du = da * g * s`. The backward
//! overwrites `[g | u]` by `[dg | du]`, as nobody needs the inputs afterwards.

use super::ROWS_PER_TASK;
use super::simd::{exp, vectorized};
use crate::config::Activation;
use crate::tensor::Matrix;
use rayon::prelude::*;

/// `2 sqrt(2 / pi)`.
const SLOPE: f32 = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::SQRT_2;
/// The cubic term of GELU's tanh form.
const CUBIC: f32 = 0.044_715;

vectorized! {
    fn silu_row(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, g), u) in out.iter_mut().zip(gate).zip(up) {
            *out = g / (1.0 + exp(-g)) * u;
        }
    }
}

vectorized! {
    fn gelu_row(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, g), u) in out.iter_mut().zip(gate).zip(up) {
            let z = SLOPE * (g + CUBIC * g * g * g);
            *out = g / (1.0 + exp(-z)) * u;
        }
    }
}

/// Writes the activations into the first `width` columns of `out`.
pub(crate) fn forward(kind: Activation, gate_up: &Matrix, width: usize, out: &mut Matrix) {
    assert_eq!(gate_up.cols(), 2 * width, "gate and up");
    let row = match kind {
        Activation::Silu => silu_row,
        Activation::GeluTanh => gelu_row,
    };
    let stride = out.cols();
    out.data_mut()
        .par_chunks_mut(stride * ROWS_PER_TASK)
        .zip(gate_up.data().par_chunks(2 * width * ROWS_PER_TASK))
        .for_each(|(out, gate_up)| {
            for (out, gate_up) in out.chunks_mut(stride).zip(gate_up.chunks(2 * width)) {
                let (gate, up) = gate_up.split_at(width);
                row(gate, up, &mut out[..width]);
            }
        });
}

vectorized! {
    fn silu_backward_row(da: &[f32], gate: &mut [f32], up: &mut [f32]) {
        for ((da, g), u) in da.iter().zip(gate).zip(up) {
            let s = 1.0 / (1.0 + exp(-*g));
            let silu = *g * s;
            let dg = da * *u * s * (1.0 + *g * (1.0 - s));
            *u = da * silu;
            *g = dg;
        }
    }
}

vectorized! {
    fn gelu_backward_row(da: &[f32], gate: &mut [f32], up: &mut [f32]) {
        for ((da, g), u) in da.iter().zip(gate).zip(up) {
            let square = *g * *g;
            let s = 1.0 / (1.0 + exp(-SLOPE * (*g + CUBIC * square * *g)));
            let slope = SLOPE * (1.0 + 3.0 * CUBIC * square);
            let gelu = *g * s;
            let dg = da * *u * s * (1.0 + *g * slope * (1.0 - s));
            *u = da * gelu;
            *g = dg;
        }
    }
}

/// Replaces `[g | u]` by its gradient; `da` sits in the first columns of its matrix.
pub(crate) fn backward(kind: Activation, da: &Matrix, gate_up: &mut Matrix) {
    let row = match kind {
        Activation::Silu => silu_backward_row,
        Activation::GeluTanh => gelu_backward_row,
    };
    let (stride, width) = (da.cols(), gate_up.cols() / 2);
    gate_up
        .data_mut()
        .par_chunks_mut(2 * width * ROWS_PER_TASK)
        .zip(da.data().par_chunks(stride * ROWS_PER_TASK))
        .for_each(|(gate_up, da)| {
            for (gate_up, da) in gate_up.chunks_mut(2 * width).zip(da.chunks(stride)) {
                let (gate, up) = gate_up.split_at_mut(width);
                row(&da[..width], gate, up);
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::simd::tests::noise;

    fn activation(kind: Activation, g: f64, u: f64) -> f64 {
        let v = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g.powi(3));
        match kind {
            Activation::Silu => g / (1.0 + (-g).exp()) * u,
            Activation::GeluTanh => 0.5 * g * (1.0 + v.tanh()) * u,
        }
    }

    #[test]
    fn forward_and_backward_match_finite_differences() {
        for kind in [Activation::Silu, Activation::GeluTanh] {
            let (rows, width) = (3, 21);
            let values: Vec<f32> = noise(rows * 2 * width, 1).iter().map(|v| 6.0 * v).collect();
            let mut gate_up = Matrix::new(rows, 2 * width, values);
            let mut out = Matrix::zeros(rows, width + 2);
            forward(kind, &gate_up, width, &mut out);
            let da = Matrix::new(rows, width + 2, noise(rows * (width + 2), 2));
            let input = gate_up.clone();
            backward(kind, &da, &mut gate_up);
            for t in 0..rows {
                for i in 0..width {
                    let (g, u) = (
                        f64::from(input.row(t)[i]),
                        f64::from(input.row(t)[width + i]),
                    );
                    let d = f64::from(da.row(t)[i]);
                    let at = |g, u| activation(kind, g, u);
                    assert!((f64::from(out.row(t)[i]) - at(g, u)).abs() < 1e-5);
                    let h = 1e-5;
                    let dg = (at(g + h, u) - at(g - h, u)) / (2.0 * h) * d;
                    let du = (at(g, u + h) - at(g, u - h)) / (2.0 * h) * d;
                    assert!((f64::from(gate_up.row(t)[i]) - dg).abs() < 1e-5);
                    assert!((f64::from(gate_up.row(t)[width + i]) - du).abs() < 1e-5);
                }
            }
        }
    }
}
