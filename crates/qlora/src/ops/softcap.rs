//! Soft caps (Gemma 2): `y = cap * tanh(x / cap)`, and its backward `dx = dy * (1 - (y / cap)^2)`.
//!
//! Attention caps its scores inside its own blocks; this is for whole matrices of logits.

use rayon::prelude::*;

/// Values per task.
const CHUNK: usize = 1 << 14;

/// Caps every value.
pub(crate) fn forward(values: &mut [f32], cap: f32) {
    values.par_chunks_mut(CHUNK).for_each(|values| {
        for value in values {
            *value = cap * (*value / cap).tanh();
        }
    });
}

/// Turns the gradient of capped values into that of the values before the cap.
pub(crate) fn backward(gradient: &mut [f32], capped: &[f32], cap: f32) {
    gradient
        .par_chunks_mut(CHUNK)
        .zip(capped.par_chunks(CHUNK))
        .for_each(|(gradient, capped)| {
            for (g, y) in gradient.iter_mut().zip(capped) {
                let t = y / cap;
                *g *= 1.0 - t * t;
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_and_backward_match_finite_differences() {
        for x in [-90.0f32, -3.0, 0.0, 0.25, 29.0, 31.0] {
            let at = |x: f64| 30.0 * (x / 30.0).tanh();
            let mut y = [x];
            forward(&mut y, 30.0);
            assert!((f64::from(y[0]) - at(f64::from(x))).abs() < 1e-5);
            let mut d = [2.0];
            backward(&mut d, &y, 30.0);
            let want = (at(f64::from(x) + 1e-4) - at(f64::from(x) - 1e-4)) / 1e-4;
            assert!((f64::from(d[0]) - want).abs() < 1e-5);
        }
    }
}
