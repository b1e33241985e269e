//! A LoRA adapter (Hu et al. 2021): for a frozen `W [out, in]`, `y = W x + (alpha / r) B A x` with
//! `A [r, in]` and `B [out, r]` in f32.
//!
//! All values stand in one vector in a fixed order, so the optimizer, the gradient norm and checkpoints
//! each see one slice. Initialised as PEFT does: A uniform within `1/sqrt(in)` (Kaiming, a = sqrt 5), B zero.

use std::ops::Range;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// A linear layer of the decoder that can carry an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl Target {
    /// Every linear layer, in the decoder's order.
    pub const ALL: [Self; 7] = [
        Self::Q,
        Self::K,
        Self::V,
        Self::O,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    /// The layer's name in Hugging Face models, as PEFT's `target_modules` writes it.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The module's path inside a decoder layer, such as `self_attn.q_proj`.
    pub fn path(self) -> &'static str {
        match self {
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::O => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// The target with this [`Target::suffix`].
    pub fn from_suffix(suffix: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|target| target.suffix() == suffix)
    }

    /// `(out, in)` of the frozen weight.
    pub fn shape(self, config: &ModelConfig) -> (usize, usize) {
        config
            .linear_shape(self.suffix())
            .expect("every target is a linear layer of the decoder")
    }
}

/// Linear layers that read the same input, and so share one product and one dropout mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    Qkv,
    Output,
    GateUp,
    Down,
}

impl Site {
    pub(crate) const ALL: [Self; 4] = [Self::Qkv, Self::Output, Self::GateUp, Self::Down];

    pub(crate) fn targets(self) -> &'static [Target] {
        match self {
            Self::Qkv => &[Target::Q, Target::K, Target::V],
            Self::Output => &[Target::O],
            Self::GateUp => &[Target::Gate, Target::Up],
            Self::Down => &[Target::Down],
        }
    }
}

/// What an adapter is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank of every pair.
    pub r: usize,
    /// The product is scaled by `alpha / r`.
    pub alpha: f32,
    /// Share of the adapter's input that is dropped while training, in `0..1`.
    pub dropout: f32,
    /// Which linear layers carry a pair.
    pub targets: Vec<Target>,
    /// Seed of A.
    pub seed: u64,
}

impl LoraConfig {
    /// Refuses settings that cannot hold.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String, mend: &str| {
            Err(Error::Config {
                what,
                mend: mend.to_owned(),
            })
        };
        if self.r == 0 {
            return refuse("lora rank is `0`".to_owned(), "use a rank from 4 to 64");
        }
        if self.targets.is_empty() {
            return refuse(
                "lora targets are empty".to_owned(),
                "name at least one linear layer, such as `q_proj`",
            );
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse(
                format!("lora dropout is `{}`", self.dropout),
                "use a share from 0 to below 1",
            );
        }
        if !self.alpha.is_finite() {
            return refuse(
                format!("lora alpha is `{}`", self.alpha),
                "use a finite number",
            );
        }
        Ok(())
    }

    /// `alpha / r`.
    pub fn scale(&self) -> f32 {
        self.alpha / self.r as f32
    }
}

/// Where one pair stands in the adapter's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub layer: usize,
    pub target: Target,
    /// A, `r x in`, row-major.
    pub a: Range<usize>,
    /// B, `out x r`, row-major.
    pub b: Range<usize>,
    pub inputs: usize,
    pub outputs: usize,
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
            let bound = 1.0 / (slot.inputs as f32).sqrt();
            for value in &mut adapter.values[slot.a.clone()] {
                *value = (2.0 * rng.random::<f32>() - 1.0) * bound;
            }
        }
        Ok(adapter)
    }

    /// An adapter of zeros, to be filled with stored values.
    pub fn zeros(model: &ModelConfig, config: &LoraConfig) -> Result<Self> {
        config.check()?;
        let mut config = config.clone();
        config.targets.sort_unstable();
        config.targets.dedup();
        let mut slots = Vec::new();
        let mut len = 0;
        let mut reserve = |count: usize| {
            len += count;
            len - count..len
        };
        for layer in 0..model.layers {
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
                    .map(|t| reserve(config.r * t.shape(model).1))
                    .collect();
                for (target, a) in present.into_iter().zip(downs) {
                    let (outputs, inputs) = target.shape(model);
                    let b = reserve(config.r * outputs);
                    slots.push(Slot {
                        layer,
                        target,
                        a,
                        b,
                        inputs,
                        outputs,
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
