//! From files to a runnable model and adapter, and from an adapter back to files.

use std::collections::BTreeMap;

use super::adapter::{Adapter, Slot, Target};
use super::lora::LoraConfig;
use super::model::{Model, Quantization};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::nf4::Nf4Tensor;
use crate::peft::{AdapterConfig, LoraPair, PeftAdapter};
use crate::tensor::Matrix;
use crate::weights::{LinearWeight, ModelFiles};

impl Model {
    /// Reads a base model and decodes it to f32. With [`Quantization::Nf4`], linear layers that are
    /// stored in more than four bits are quantized first, so the model trains on what QLoRA trains on.
    pub fn load(files: &ModelFiles, quantization: Quantization) -> Result<Self> {
        let linear = |name: &str| match (files.linear(name)?, quantization) {
            (LinearWeight::Dense(weight), Quantization::Nf4 { double }) => {
                Ok(Nf4Tensor::quantize(&weight, double)?.dequantize())
            }
            (weight, _) => Ok(weight.into_dense()),
        };
        Self::from_tensors(&files.config()?, linear, |name| files.tensor(name))
    }
}

impl Adapter {
    /// The adapter of a PEFT folder, laid over a model of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] when a pair is missing, left over or of another shape.
    pub fn from_peft(model: &ModelConfig, peft: &PeftAdapter) -> Result<Self> {
        let targets = Target::ALL
            .into_iter()
            .filter(|t| {
                peft.pairs
                    .keys()
                    .any(|name| name.ends_with(&format!(".{}", t.suffix())))
            })
            .collect();
        let config = LoraConfig {
            r: peft.config.r,
            alpha: peft.config.alpha as f32,
            dropout: peft.config.dropout as f32,
            targets,
            layers: peft.config.layers.clone(),
            rank_pattern: peft.config.rank_pattern.clone(),
            alpha_pattern: peft
                .config
                .alpha_pattern
                .iter()
                .map(|(key, alpha)| (key.clone(), *alpha as f32))
                .collect(),
            rslora: peft.config.rslora,
            ..LoraConfig::default()
        };
        let mut adapter = Self::zeros(model, &config)?;
        let slots = adapter.slots().to_vec();
        if slots.len() != peft.pairs.len() {
            return Err(Error::shape(
                "the pairs of the adapter",
                slots.len(),
                peft.pairs.len(),
            ));
        }
        for slot in slots {
            let name = slot.target.module(slot.layer);
            let pair = peft
                .pairs
                .get(&name)
                .ok_or_else(|| Error::shape("the adapter", &name, "nothing there"))?;
            let shape = |m: &Matrix| format!("{} x {}", m.rows(), m.cols());
            for (half, range, rows, cols) in [
                (&pair.a, slot.a, slot.r, slot.inputs),
                (&pair.b, slot.b, slot.outputs, slot.r),
            ] {
                if (half.rows(), half.cols()) != (rows, cols) {
                    return Err(Error::shape(
                        format!("`{name}`"),
                        format!("{rows} x {cols}"),
                        shape(half),
                    ));
                }
                adapter.values_mut()[range].copy_from_slice(half.data());
            }
        }
        Ok(adapter)
    }

    /// The adapter of a PEFT folder, to be trained on as `config` says: its dropout, its seed.
    ///
    /// # Errors
    /// As [`Adapter::from_peft`], and [`Error::Config`] that names every setting of `config` which would make
    /// another adapter of it.
    pub fn continued(model: &ModelConfig, peft: &PeftAdapter, config: &LoraConfig) -> Result<Self> {
        let stored = Self::from_peft(model, peft)?;
        let apart = config.differences(stored.config());
        if apart.is_empty() {
            let mut adapter = Self::zeros(model, config)?;
            adapter.values_mut().copy_from_slice(stored.values());
            return Ok(adapter);
        }
        let told: Vec<String> = apart
            .iter()
            .map(|(name, here, there)| format!("`{name}` is {here}, the adapter's is {there}"))
            .collect();
        Err(Error::Config {
            what: format!("the adapter to go on from is another: {}", told.join("; ")),
            mend: "write the adapter's own values".to_owned(),
        })
    }

    /// The adapter as PEFT keeps it. `base_model` and `model_type` go into its config as they are.
    pub fn to_peft(&self, base_model: Option<&str>, model_type: Option<&str>) -> PeftAdapter {
        let config = self.config();
        let mut target_modules: Vec<String> = config
            .targets
            .iter()
            .map(|t| t.suffix().to_owned())
            .collect();
        target_modules.sort();
        let pair = |slot: &Slot| LoraPair {
            a: Matrix::new(slot.r, slot.inputs, self.values()[slot.a.clone()].to_vec()),
            b: Matrix::new(slot.outputs, slot.r, self.values()[slot.b.clone()].to_vec()),
        };
        let pairs: BTreeMap<String, LoraPair> = self
            .slots()
            .iter()
            .map(|slot| (slot.target.module(slot.layer), pair(slot)))
            .collect();
        PeftAdapter {
            config: AdapterConfig {
                r: config.r,
                alpha: f64::from(config.alpha),
                // As written by a person: 0.05, not its nearest f32.
                dropout: config
                    .dropout
                    .to_string()
                    .parse()
                    .unwrap_or_else(|_| f64::from(config.dropout)),
                target_modules,
                layers: config.layers.clone(),
                rank_pattern: config.rank_pattern.clone(),
                alpha_pattern: config
                    .alpha_pattern
                    .iter()
                    .map(|(key, alpha)| (key.clone(), f64::from(*alpha)))
                    .collect(),
                rslora: config.rslora,
                base_model: base_model.map(str::to_owned),
                model_type: model_type.map(str::to_owned),
            },
            pairs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::model::tests::tiny_config;

    #[test]
    fn an_adapter_goes_to_peft_and_back() {
        let model = tiny_config();
        let config = LoraConfig {
            r: 4,
            alpha: 8.0,
            dropout: 0.05,
            targets: vec![Target::Up, Target::Q],
            seed: 1,
            ..LoraConfig::default()
        };
        let adapter = Adapter::new(&model, &config).unwrap();
        let peft = adapter.to_peft(Some("base"), Some("llama"));
        assert_eq!(peft.config.target_modules, ["q_proj", "up_proj"]);
        assert_eq!(peft.config.dropout, 0.05);
        let back = Adapter::from_peft(&model, &peft).unwrap();
        assert_eq!(back.values(), adapter.values());
        let mut short = peft.clone();
        short.pairs.remove("model.layers.1.mlp.up_proj");
        let error = Adapter::from_peft(&model, &short).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the pairs of the adapter: expected 4, found 3"
        );
    }
}
