//! What an adapter is made of: ranks, scales, which layers carry a pair, how A starts.
//!
//! Names and meanings are peft's: `rank_pattern` and `alpha_pattern` by the end of a layer's path,
//! `layers_to_transform`, `use_rslora` (Kalajdzievski 2023: the product is scaled by `alpha / sqrt(r)`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::target::Target;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::peft::pattern;

/// How A starts; B is zero in any case, so a fresh adapter changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// Uniform within `1/sqrt(in)`, peft's default.
    #[default]
    Kaiming,
    /// Normal with standard deviation `1/r`, peft's `gaussian`.
    Gaussian,
}

/// What an adapter is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank of a pair that no pattern names.
    pub r: usize,
    /// The product is scaled by `alpha / r`.
    pub alpha: f32,
    /// Share of the adapter's input that is dropped while training, in `0..1`.
    pub dropout: f32,
    /// Which linear layers carry a pair.
    pub targets: Vec<Target>,
    /// Decoder layers that carry pairs, counted from zero; none: all of them.
    pub layers: Option<Vec<usize>>,
    /// Ranks of pairs that are named by the end of their path.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas, likewise.
    pub alpha_pattern: BTreeMap<String, f32>,
    /// Scale by `alpha / sqrt(r)` instead.
    pub rslora: bool,
    pub init: Init,
    /// Seed of A.
    pub seed: u64,
}

impl Default for LoraConfig {
    /// Rank 16, alpha 32, on every linear layer.
    fn default() -> Self {
        Self {
            r: 16,
            alpha: 32.0,
            dropout: 0.0,
            targets: Target::ALL.to_vec(),
            layers: None,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            rslora: false,
            init: Init::Kaiming,
            seed: 0,
        }
    }
}

fn refuse(what: impl Into<String>, mend: &str) -> Result<()> {
    Err(Error::Config {
        what: what.into(),
        mend: mend.to_owned(),
    })
}

impl LoraConfig {
    /// Refuses settings that cannot hold for any model.
    pub fn check(&self) -> Result<()> {
        if self.r == 0 || self.rank_pattern.values().any(|r| *r == 0) {
            return refuse("lora rank is `0`", "use a rank from 4 to 64");
        }
        if self.targets.is_empty() {
            return refuse(
                "lora targets are empty",
                "name at least one linear layer, such as `q_proj`",
            );
        }
        if self.layers.as_ref().is_some_and(Vec::is_empty) {
            return refuse(
                "lora layers are empty",
                "name at least one decoder layer, or leave it out for all",
            );
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse(
                format!("lora dropout is `{}`", self.dropout),
                "use a share from 0 to below 1",
            );
        }
        let mut alphas = std::iter::once(&self.alpha).chain(self.alpha_pattern.values());
        if let Some(alpha) = alphas.find(|alpha| !alpha.is_finite()) {
            return refuse(format!("lora alpha is `{alpha}`"), "use a finite number");
        }
        Ok(())
    }

    /// Refuses what does not fit this model: layers that it lacks, pattern keys that name nothing or name a
    /// pair twice.
    pub(super) fn check_for(&self, model: &ModelConfig) -> Result<()> {
        self.check()?;
        if let Some(layer) = self.layers.iter().flatten().find(|l| **l >= model.layers) {
            return refuse(
                format!(
                    "lora layers name layer {layer}, and the model has {}",
                    model.layers
                ),
                "layers are counted from zero",
            );
        }
        let modules: Vec<String> = (0..model.layers)
            .filter(|layer| self.carries(*layer))
            .flat_map(|layer| self.targets.iter().map(move |target| target.module(layer)))
            .collect();
        pattern::check("rank_pattern", &self.rank_pattern, &modules)?;
        pattern::check("alpha_pattern", &self.alpha_pattern, &modules)
    }

    /// Whether this decoder layer carries pairs.
    pub(super) fn carries(&self, layer: usize) -> bool {
        self.layers.as_ref().is_none_or(|l| l.contains(&layer))
    }

    /// Rank of a pair, and what its product is scaled by.
    pub(super) fn pair(&self, layer: usize, target: Target) -> (usize, f32) {
        let module = target.module(layer);
        let r = pattern::find(&self.rank_pattern, &module).unwrap_or(self.r);
        let alpha = pattern::find(&self.alpha_pattern, &module).unwrap_or(self.alpha);
        let scale = if self.rslora {
            (f64::from(alpha) / (r as f64).sqrt()) as f32
        } else {
            alpha / r as f32
        };
        (r, scale)
    }

    /// Sorted, each layer once: two that mean the same are equal.
    pub(super) fn tidy(&mut self) {
        self.targets.sort_unstable();
        self.targets.dedup();
        if let Some(layers) = &mut self.layers {
            layers.sort_unstable();
            layers.dedup();
        }
    }

    /// What makes another adapter of it than `other`, by name: the setting, here and there. Dropout, seed and
    /// start are not the adapter's.
    pub(super) fn differences(&self, other: &Self) -> Vec<(&'static str, String, String)> {
        let (mut one, mut two) = (self.clone(), other.clone());
        one.tidy();
        two.tidy();
        let told = |c: &Self| {
            let suffixes: Vec<_> = c.targets.iter().map(|t| t.suffix()).collect();
            let layers = c.layers.as_ref();
            [
                ("r", c.r.to_string()),
                ("alpha", c.alpha.to_string()),
                ("targets", format!("[{}]", suffixes.join(", "))),
                (
                    "layers",
                    layers.map_or("all".to_owned(), |l| format!("{l:?}")),
                ),
                ("rank_pattern", format!("{:?}", c.rank_pattern)),
                ("alpha_pattern", format!("{:?}", c.alpha_pattern)),
                ("rslora", c.rslora.to_string()),
            ]
        };
        let pairs = told(&one).into_iter().zip(told(&two));
        pairs
            .filter(|((_, here), (_, there))| here != there)
            .map(|((name, here), (_, there))| (name, here, there))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::adapter::Adapter;
    use crate::nn::model::tests::tiny_config;

    fn fault(config: &LoraConfig) -> String {
        Adapter::new(&tiny_config(), config)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn what_fits_no_model_or_not_this_one_is_named() {
        let plain = LoraConfig::default();
        let named = |key: &str| [(key.to_owned(), 8)].into();
        let with_layers = |layers: &[usize]| LoraConfig {
            layers: Some(layers.to_vec()),
            ..plain.clone()
        };
        assert_eq!(fault(&with_layers(&[])), "lora layers are empty");
        assert_eq!(
            fault(&with_layers(&[0, 7])),
            "lora layers name layer 7, and the model has 2"
        );
        let outside = LoraConfig {
            rank_pattern: named("layers.0.mlp.up_proj"),
            ..with_layers(&[1])
        };
        assert_eq!(
            fault(&outside),
            "`rank_pattern` names `layers.0.mlp.up_proj`, and no adapted layer is called that"
        );
        let not_adapted = LoraConfig {
            rank_pattern: named("k_proj"),
            targets: vec![Target::Q],
            ..plain.clone()
        };
        assert!(fault(&not_adapted).contains("no adapted layer"));
        let zero = LoraConfig {
            rank_pattern: [("q_proj".to_owned(), 0)].into(),
            ..plain
        };
        assert_eq!(fault(&zero), "lora rank is `0`");
    }

    #[test]
    fn a_gaussian_a_has_the_deviation_of_its_own_rank() {
        let config = LoraConfig {
            r: 4,
            rank_pattern: [("q_proj".to_owned(), 16)].into(),
            init: Init::Gaussian,
            seed: 3,
            ..LoraConfig::default()
        };
        let adapter = Adapter::new(&tiny_config(), &config).unwrap();
        for r in [4, 16] {
            let slots = adapter.slots().iter().filter(|s| s.r == r);
            let a: Vec<f64> = slots
                .flat_map(|s| &adapter.values()[s.a.clone()])
                .map(|v| f64::from(*v) * r as f64)
                .collect();
            let mean = a.iter().sum::<f64>() / a.len() as f64;
            let square = a.iter().map(|v| v * v).sum::<f64>() / a.len() as f64;
            let far = 4.0 / (a.len() as f64).sqrt();
            assert!(
                mean.abs() < far && (square - 1.0).abs() < 1.5 * far,
                "{mean} {square}"
            );
        }
        let slot = &adapter.slots()[0];
        assert!(adapter.values()[slot.b.clone()].iter().all(|v| *v == 0.0));
    }

    #[test]
    fn an_adapter_goes_on_only_as_what_it_is() {
        let model = tiny_config();
        let config = LoraConfig {
            r: 4,
            rank_pattern: [("q_proj".to_owned(), 2)].into(),
            ..LoraConfig::default()
        };
        let adapter = Adapter::new(&model, &config).unwrap();
        let stored = adapter.to_peft(None, None);
        let dropped = LoraConfig {
            dropout: 0.25,
            seed: 9,
            ..config.clone()
        };
        let continued = Adapter::continued(&model, &stored, &dropped).unwrap();
        assert_eq!(continued.values(), adapter.values());
        assert_eq!(continued.config().dropout, 0.25);
        let other = LoraConfig {
            r: 8,
            rslora: true,
            layers: Some(vec![0]),
            ..config
        };
        let error = Adapter::continued(&model, &stored, &other).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the adapter to go on from is another: `r` is 8, the adapter's is 4; `layers` is [0], \
             the adapter's is all; `rslora` is true, the adapter's is false"
        );
    }
}
