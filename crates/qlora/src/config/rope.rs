//! Rotary embedding as data: the base of the angles and how they are scaled for longer contexts.
//!
//! Promises the inverse frequencies that transformers computes (`modeling_rope_utils`): plain, linear
//! (kaiokendev), Llama 3's and YaRN (Peng et al. 2023). It must not know positions, heads or devices.

use std::f64::consts::PI;

/// The angles of one kind of layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Dimension `i` of a head `d` wide turns by `theta^(-2i/d)` a position, before scaling.
    pub theta: f64,
    pub scaling: RopeScaling,
}

/// How angles are slowed down for contexts longer than those of pretraining.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All alike.
    Linear { factor: f64 },
    /// Llama 3: slow turns by `factor`, fast ones not at all, those in between smoothly.
    Llama3 {
        factor: f64,
        /// Turns within `original` positions below which an angle is slow, and above which it is fast.
        low: f64,
        high: f64,
        /// Positions of pretraining.
        original: f64,
    },
    /// YaRN: the same idea over dimensions, and larger queries and keys.
    Yarn {
        factor: f64,
        original: f64,
        /// Turns within `original` positions above which an angle is kept.
        fast: f64,
        /// Turns below which it is slowed by the whole factor.
        slow: f64,
        /// Cosines and sines are multiplied by it.
        amplitude: f64,
        /// The bounds of the ramp are whole dimensions.
        truncate: bool,
    },
}

impl Rope {
    /// Unscaled angles.
    pub fn plain(theta: f64) -> Self {
        Self {
            theta,
            scaling: RopeScaling::None,
        }
    }

    /// Radians per position of each of the `head_dim / 2` pairs.
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        let plain =
            (0..head_dim / 2).map(|i| 1.0 / self.theta.powf((2 * i) as f64 / head_dim as f64));
        let scaled: Vec<f64> = match self.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|inv| inv / factor).collect(),
            RopeScaling::Llama3 {
                factor,
                low,
                high,
                original,
            } => plain
                .map(|inv| llama3(inv, factor, low, high, original))
                .collect(),
            RopeScaling::Yarn { .. } => self.yarn(head_dim, plain),
        };
        scaled.into_iter().map(|inv| inv as f32).collect()
    }

    /// What cosines and sines are multiplied by.
    pub fn amplitude(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { amplitude, .. } => amplitude as f32,
            _ => 1.0,
        }
    }

    fn yarn(&self, head_dim: usize, plain: impl Iterator<Item = f64>) -> Vec<f64> {
        let RopeScaling::Yarn {
            factor,
            original,
            fast,
            slow,
            truncate,
            ..
        } = self.scaling
        else {
            return plain.collect();
        };
        // The dimension that turns `turns` times within the pretraining context.
        let dimension = |turns: f64| {
            head_dim as f64 * (original / (turns * 2.0 * PI)).ln() / (2.0 * self.theta.ln())
        };
        let (mut low, mut high) = (dimension(fast), dimension(slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        low = low.max(0.0);
        high = high.min(head_dim as f64 - 1.0);
        if low == high {
            high += 0.001;
        }
        plain
            .enumerate()
            .map(|(i, inv)| {
                let slowed = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                inv / factor * slowed + inv * (1.0 - slowed)
            })
            .collect()
    }
}

fn llama3(inv: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let length = 2.0 * PI / inv;
    if length > original / low {
        inv / factor
    } else if length < original / high {
        inv
    } else {
        let smooth = (original / length - low) / (high - low);
        (1.0 - smooth) * inv / factor + smooth * inv
    }
}

/// YaRN's own choice of [`RopeScaling::Yarn`]'s amplitude.
pub(super) fn yarn_amplitude(factor: f64) -> f64 {
    if factor <= 1.0 {
        1.0
    } else {
        0.1 * factor.ln() + 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_slows_the_slow_turns_and_keeps_the_fast_ones() {
        let plain = Rope::plain(5e5).inverse_frequencies(128);
        let llama = Rope {
            theta: 5e5,
            scaling: RopeScaling::Llama3 {
                factor: 8.0,
                low: 1.0,
                high: 4.0,
                original: 8192.0,
            },
        }
        .inverse_frequencies(128);
        let yarn = Rope {
            theta: 5e5,
            scaling: RopeScaling::Yarn {
                factor: 4.0,
                original: 32768.0,
                fast: 32.0,
                slow: 1.0,
                amplitude: yarn_amplitude(4.0),
                truncate: true,
            },
        };
        assert!((yarn.amplitude() - 1.138_629_4).abs() < 1e-6);
        for (scaled, factor) in [(llama, 8.0), (yarn.inverse_frequencies(128), 4.0)] {
            assert_eq!(scaled[0], plain[0]);
            assert!((scaled[63] * factor / plain[63] - 1.0).abs() < 1e-6);
            for (slow, fast) in scaled.iter().skip(1).zip(&scaled) {
                assert!(slow < fast, "angles stay in order");
            }
        }
    }
}
