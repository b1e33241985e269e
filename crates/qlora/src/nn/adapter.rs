//! A LoRA adapter (Hu et al. 2021): for a frozen `W [out, in]`, `y = W x + scale B A x` with
//! `A [r, in]` and `B [out, r]` in f32.
//!
//! All values stand in one vector in a fixed order, so the optimizer, the gradient norm and checkpoints
//! each see one slice. Initialised as PEFT does; every pair draws from a stream of its own, so no other
//! pair shifts its values.

use std::ops::Range;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::lora::{Init, LoraConfig};
pub(crate) use super::target::Site;
pub use super::target::Target;
use crate::config::ModelConfig;
use crate::error::Result;

/// Where one pair stands in the adapter's values.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    pub layer: usize,
    pub target: Target,
    /// A, `r x in`, row-major.
    pub a: Range<usize>,
    /// B, `out x r`, row-major.
    pub b: Range<usize>,
    pub inputs: usize,
    pub outputs: usize,
    /// Its rank.
    pub r: usize,
    /// What its product is scaled by.
    pub scale: f32,
}

/// The trained values of all layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    config: LoraConfig,
    slots: Vec<Slot>,
    values: Vec<f32>,
}

impl Adapter {
    /// A fresh adapter: it changes nothing until B has been trained.
    pub fn new(model: &ModelConfig, config: &LoraConfig) -> Result<Self> {
        let mut adapter = Self::zeros(model, config)?;
        for slot in &adapter.slots {
            let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
            rng.set_stream((slot.layer * Target::ALL.len() + slot.target as usize) as u64);
            let a = &mut adapter.values[slot.a.clone()];
            match config.init {
                Init::Kaiming => {
                    let bound = 1.0 / (slot.inputs as f32).sqrt();
                    a.fill_with(|| (2.0 * rng.random::<f32>() - 1.0) * bound);
                }
                Init::Gaussian => a.fill_with(|| normal(&mut rng) / slot.r as f32),
            }
        }
        Ok(adapter)
    }

    /// An adapter of zeros, to be filled with stored values.
    pub fn zeros(model: &ModelConfig, config: &LoraConfig) -> Result<Self> {
        let mut config = config.clone();
        config.tidy();
        config.check_for(model)?;
        let mut slots = Vec::new();
        let mut len = 0;
        let mut reserve = |count: usize| {
            len += count;
            len - count..len
        };
        for layer in (0..model.layers).filter(|layer| config.carries(*layer)) {
            for site in Site::ALL {
                // The A matrices of a site lie side by side: they are one matrix to the products.
                let present: Vec<Target> = site
                    .targets()
                    .iter()
                    .copied()
                    .filter(|t| config.targets.contains(t))
                    .collect();
                let downs: Vec<_> = present
                    .iter()
                    .map(|t| reserve(config.pair(layer, *t).0 * t.shape(model).1))
                    .collect();
                for (target, a) in present.into_iter().zip(downs) {
                    let (outputs, inputs) = target.shape(model);
                    let (r, scale) = config.pair(layer, target);
                    let b = reserve(r * outputs);
                    slots.push(Slot {
                        layer,
                        target,
                        a,
                        b,
                        inputs,
                        outputs,
                        r,
                        scale,
                    });
                }
            }
        }
        Ok(Self {
            config,
            slots,
            values: vec![0.0; len],
        })
    }

    /// How it was made.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// Every pair, by layer and then by target.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// All trained values; [`Slot`] says what stands where.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All trained values, for writing.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The highest rank of a pair.
    pub(crate) fn rank(&self) -> usize {
        self.slots.iter().map(|s| s.r).max().unwrap_or(0)
    }

    /// The lowest decoder layer that carries a pair: below it there is nothing to learn.
    pub(crate) fn lowest(&self) -> usize {
        self.slots.first().map_or(0, |s| s.layer)
    }

    /// The learning rate of each part of the values: `lr`, and `up` times as much for every B.
    pub(crate) fn rates(&self, lr: f64, up: f64) -> Vec<(Range<usize>, f64)> {
        if up == 1.0 {
            return vec![(0..self.values.len(), lr)];
        }
        let parts = self.slots.iter();
        parts
            .flat_map(|s| [(s.a.clone(), lr), (s.b.clone(), lr * up)])
            .collect()
    }

    /// The pairs of one site of one layer.
    pub(crate) fn site(&self, layer: usize, site: Site) -> &[Slot] {
        let from = self
            .slots
            .partition_point(|s| (s.layer, s.target) < (layer, site.targets()[0]));
        let rest = &self.slots[from..];
        let len = rest
            .iter()
            .take_while(|s| s.layer == layer && site.targets().contains(&s.target))
            .count();
        &rest[..len]
    }
}

/// A standard normal number (Box and Muller).
fn normal(rng: &mut impl Rng) -> f32 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    ((-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::model::tests::tiny_config;

    #[test]
    fn sites_find_their_pairs_for_every_subset() {
        let model = tiny_config();
        for targets in [
            Target::ALL.to_vec(),
            vec![Target::V, Target::Q],
            vec![Target::Up],
            vec![Target::Down, Target::K],
        ] {
            let config = LoraConfig {
                r: 4,
                alpha: 8.0,
                dropout: 0.0,
                targets: targets.clone(),
                seed: 1,
                ..LoraConfig::default()
            };
            let adapter = Adapter::new(&model, &config).unwrap();
            assert_eq!(adapter.slots().len(), model.layers * targets.len());
            let mut covered = 0;
            for layer in 0..model.layers {
                for site in Site::ALL {
                    for slot in adapter.site(layer, site) {
                        assert_eq!(slot.layer, layer);
                        assert!(site.targets().contains(&slot.target));
                        covered += slot.a.len() + slot.b.len();
                    }
                }
            }
            assert_eq!(covered, adapter.values().len());
        }
    }

    #[test]
    fn a_fresh_pair_is_uniform_and_silent_and_its_seed_is_its_own() {
        let model = tiny_config();
        let config = LoraConfig {
            r: 8,
            alpha: 8.0,
            dropout: 0.0,
            targets: Target::ALL.to_vec(),
            seed: 3,
            ..LoraConfig::default()
        };
        let all = Adapter::new(&model, &config).unwrap();
        for slot in all.slots() {
            let bound = 1.0 / (slot.inputs as f32).sqrt();
            let a = &all.values()[slot.a.clone()];
            let largest = a.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            assert!(largest <= bound && largest > 0.9 * bound);
            assert!(all.values()[slot.b.clone()].iter().all(|v| *v == 0.0));
        }
        let only_v = Adapter::new(
            &model,
            &LoraConfig {
                targets: vec![Target::V],
                ..config
            },
        )
        .unwrap();
        let v = |adapter: &Adapter| {
            let slot = adapter
                .slots()
                .iter()
                .find(|s| s.layer == 1 && s.target == Target::V)
                .unwrap()
                .clone();
            adapter.values()[slot.a].to_vec()
        };
        assert_eq!(
            v(&all),
            v(&only_v),
            "other targets do not shift a pair's values"
        );
    }
}
