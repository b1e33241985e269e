//! PEFT adapter folders: `adapter_config.json` and `adapter_model.safetensors`, read and written.
//!
//! Promises peft's tensor names, shapes and config keys; what changes the maths and is not known
//! here is refused by name. It must not know how adapters are trained.

mod config;
mod merge;
pub(crate) mod pattern;

use std::collections::BTreeMap;
use std::path::Path;

use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::nf4::Entry;
use crate::tensor::Matrix;
use crate::weights::shards::Shard;
use crate::weights::{write_safetensors, write_whole};
pub use config::AdapterConfig;
pub use merge::merge;

const PREFIX: &str = "base_model.model.";

/// The two factors of one adapted linear layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraPair {
    /// `[r, in]`.
    pub a: Matrix,
    /// `[out, r]`.
    pub b: Matrix,
}

/// A LoRA adapter as it lies in a folder.
#[derive(Clone, Debug, PartialEq)]
pub struct PeftAdapter {
    pub config: AdapterConfig,
    /// By module, as in the base model: `model.layers.0.self_attn.q_proj`.
    pub pairs: BTreeMap<String, LoraPair>,
}

impl PeftAdapter {
    /// Reads a folder that peft (or this) wrote.
    pub fn load(folder: &Path) -> Result<Self> {
        let config = AdapterConfig::load(&folder.join("adapter_config.json"))?;
        let path = folder.join("adapter_model.safetensors");
        let shard = Shard::open(&path)?;
        let broken = |what: String| {
            Error::format(&path, what, "export the adapter again with plain peft LoRA")
        };
        let mut halves: BTreeMap<String, (Option<Matrix>, Option<Matrix>)> = BTreeMap::new();
        for name in shard.names() {
            let stem = name.strip_prefix(PREFIX).unwrap_or(&name);
            let matrix = || -> Result<Option<Matrix>> { shard.matrix(&name) };
            if let Some(module) = stem.strip_suffix(".lora_A.weight") {
                halves.entry(module.to_string()).or_default().0 = matrix()?;
            } else if let Some(module) = stem.strip_suffix(".lora_B.weight") {
                halves.entry(module.to_string()).or_default().1 = matrix()?;
            } else {
                return Err(broken(format!(
                    "tensor `{name}` is not a lora_A or lora_B weight"
                )));
            }
        }
        let mut pairs = BTreeMap::new();
        for (module, halves) in halves {
            let (Some(a), Some(b)) = halves else {
                return Err(broken(format!(
                    "module `{module}` has only one of lora_A and lora_B"
                )));
            };
            pairs.insert(module, LoraPair { a, b });
        }
        let adapter = Self { config, pairs };
        adapter.check()?;
        Ok(adapter)
    }

    /// Writes the folder's two files; `dtype` is that of the tensors. The folder must exist.
    pub fn save(&self, folder: &Path, dtype: Dtype) -> Result<()> {
        self.check()?;
        let mut entries = Vec::new();
        for (module, pair) in &self.pairs {
            for (half, matrix) in [("lora_A", &pair.a), ("lora_B", &pair.b)] {
                let name = format!("{PREFIX}{module}.{half}.weight");
                if let Some(value) = matrix.data().iter().find(|v| !dtype.round(**v).is_finite()) {
                    return Err(Error::shape(
                        format!("`{name}`"),
                        format!("values that {} holds", dtype.torch_name()),
                        value,
                    ));
                }
                entries.push(Entry {
                    name,
                    dtype: dtype.into(),
                    shape: vec![matrix.rows(), matrix.cols()],
                    bytes: dtype.encode(matrix.data()),
                });
            }
        }
        write_safetensors(&folder.join("adapter_model.safetensors"), &entries)?;
        let config = self.config.to_json();
        write_whole(&folder.join("adapter_config.json"), config.as_bytes())
    }

    /// Bytes of the tensors at `dtype`, without the header.
    pub fn size(&self, dtype: Dtype) -> usize {
        self.pairs
            .values()
            .map(|pair| pair.a.data().len() + pair.b.data().len())
            .sum::<usize>()
            * dtype.size()
    }

    /// Every pair has the rank that the config gives it, and every module one of its suffixes.
    fn check(&self) -> Result<()> {
        let modules: Vec<String> = self.pairs.keys().cloned().collect();
        pattern::check("rank_pattern", &self.config.rank_pattern, &modules)?;
        pattern::check("alpha_pattern", &self.config.alpha_pattern, &modules)?;
        for (module, pair) in &self.pairs {
            let r = self.config.rank(module);
            if pair.a.rows() != r || pair.b.cols() != r {
                let found = format!("[{}, in] and [out, {}]", pair.a.rows(), pair.b.cols());
                return Err(Error::shape(
                    format!("the rank of `{module}`"),
                    format!("[{r}, in] and [out, {r}]"),
                    found,
                ));
            }
            let matches = |target: &String| pattern::names(target, module);
            if !self.config.target_modules.iter().any(matches) {
                let expected = self.config.target_modules.join(", ");
                return Err(Error::shape("the modules of an adapter", expected, module));
            }
        }
        Ok(())
    }
}
