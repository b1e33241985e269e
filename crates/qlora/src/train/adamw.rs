//! AdamW (Loshchilov and Hutter 2019), with PyTorch's order of operations, over one flat vector.
//!
//! `p *= 1 - lr * decay; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
//! p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)`. Also the norm of a gradient, summed in
//! a fixed order.

use std::ops::Range;

use rayon::prelude::*;

use super::config::TrainConfig;

const CHUNK: usize = 1 << 14;

/// Moments of every trained value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AdamW {
    pub(crate) first: Vec<f32>,
    pub(crate) second: Vec<f32>,
    /// Steps taken.
    pub(crate) steps: u64,
}

impl AdamW {
    pub(crate) fn new(len: usize) -> Self {
        Self {
            first: vec![0.0; len],
            second: vec![0.0; len],
            steps: 0,
        }
    }

    /// One step; the gradient is scaled by `factor` first (clipping). `rates` covers the values, part by part.
    pub(super) fn step(
        &mut self,
        values: &mut [f32],
        gradient: &[f32],
        factor: f32,
        rates: &[(Range<usize>, f64)],
        config: &TrainConfig,
    ) {
        self.steps += 1;
        for (part, lr) in rates {
            let update = self.update(factor, *lr, config);
            values[part.clone()]
                .par_chunks_mut(CHUNK)
                .zip(gradient[part.clone()].par_chunks(CHUNK))
                .zip(self.first[part.clone()].par_chunks_mut(CHUNK))
                .zip(self.second[part.clone()].par_chunks_mut(CHUNK))
                .for_each(|(((p, g), m), v)| update.apply(p, g, m, v));
        }
    }

    /// Counts a step and gives its numbers; whoever holds the moments applies them.
    pub(crate) fn next(&mut self, factor: f32, lr: f64, config: &TrainConfig) -> Update {
        self.steps += 1;
        self.update(factor, lr, config)
    }

    fn update(&self, factor: f32, lr: f64, config: &TrainConfig) -> Update {
        let (b1, b2) = config.betas;
        let t = self.steps as f64;
        Update {
            factor,
            shrink: (1.0 - lr * config.weight_decay) as f32,
            b1: b1 as f32,
            one_minus_b1: (1.0 - b1) as f32,
            b2: b2 as f32,
            one_minus_b2: (1.0 - b2) as f32,
            rate: (lr / (1.0 - b1.powf(t))) as f32,
            root: (1.0 - b2.powf(t)).sqrt() as f32,
            eps: config.eps as f32,
        }
    }
}

/// The numbers of one step.
pub(crate) struct Update {
    pub(crate) factor: f32,
    pub(crate) shrink: f32,
    pub(crate) b1: f32,
    pub(crate) one_minus_b1: f32,
    pub(crate) b2: f32,
    pub(crate) one_minus_b2: f32,
    pub(crate) rate: f32,
    pub(crate) root: f32,
    pub(crate) eps: f32,
}

impl Update {
    fn apply(&self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = g * self.factor;
            *p *= self.shrink;
            *m = self.b1 * *m + self.one_minus_b1 * g;
            *v = self.b2 * *v + self.one_minus_b2 * g * g;
            *p -= self.rate * (*m / (v.sqrt() / self.root + self.eps));
        }
    }
}

/// The Euclidean norm, in f64.
pub(super) fn norm(gradient: &[f32]) -> f64 {
    let parts: Vec<f64> = gradient
        .par_chunks(CHUNK)
        .map(|chunk| chunk.iter().map(|g| f64::from(*g) * f64::from(*g)).sum())
        .collect();
    parts.iter().sum::<f64>().sqrt()
}

/// The factor that brings a gradient of this norm down to `clip`, as PyTorch's `clip_grad_norm_`.
pub(super) fn clip_factor(norm: f64, clip: Option<f64>) -> f32 {
    clip.map_or(1.0, |clip| (clip / (norm + 1e-6)).min(1.0) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_match_the_formula_in_f64() {
        let config = TrainConfig {
            weight_decay: 0.1,
            ..TrainConfig::default()
        };
        let mut values = vec![0.5f32, -1.0];
        let mut adam = AdamW::new(2);
        let gradients = [[0.3f32, -2.0], [0.1, 4.0]];
        let (mut p, mut m, mut v) = ([0.5f64, -1.0], [0.0f64; 2], [0.0f64; 2]);
        for (t, g) in gradients.iter().enumerate() {
            adam.step(&mut values, g, 0.5, &[(0..2, 0.01)], &config);
            for i in 0..2 {
                let g = 0.5 * f64::from(g[i]);
                p[i] *= 1.0 - 0.01 * 0.1;
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                let t = t as i32 + 1;
                let (m_hat, v_hat) = (
                    m[i] / (1.0 - 0.9f64.powi(t)),
                    v[i] / (1.0 - 0.999f64.powi(t)),
                );
                p[i] -= 0.01 * m_hat / (v_hat.sqrt() + 1e-8);
                assert!((f64::from(values[i]) - p[i]).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn clipping_only_shortens() {
        assert_eq!(norm(&[3.0, 4.0]), 5.0);
        assert_eq!(clip_factor(5.0, None), 1.0);
        assert_eq!(clip_factor(0.5, Some(1.0)), 1.0);
        assert!((clip_factor(5.0, Some(1.0)) - 0.2).abs() < 1e-6);
    }
}
