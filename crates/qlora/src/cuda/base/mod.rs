//! The frozen base on the card: NF4 as bitsandbytes keeps it, or dense values with room for adapter columns.
//!
//! What lies ready in a file (four-bit layers, an embedding in the type that is worked in) is read straight onto the
//! card; all else comes one weight at a time and is quantized there, so the host never holds the model.

mod alone;
mod loader;
mod nf4;
mod placed;
mod random;
mod reading;
mod sketch;

use kernels::{Element, params};

use super::device::Device;
use super::exec::Exec;
use super::memory::{Region, Rows, Store};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::nn::adapter::Site;
use crate::nn::model::Quantization;
use crate::weights::ModelFiles;
pub(super) use alone::{decoded, encoded};
use loader::Loader;
pub(super) use nf4::Nf4;
pub(super) use random::noise;

/// The stacked weights of one site.
pub(super) enum Weight {
    Nf4(Vec<Nf4>),
    /// Rows of weights, each followed by the adapter columns.
    Dense(Rows),
}

/// One decoder layer.
pub(super) struct Layer {
    pub(super) attention_norm: Region,
    pub(super) mlp_norm: Region,
    pub(super) qkv_bias: Option<Region>,
    /// In the order of [`Site::ALL`].
    pub(super) weights: Vec<Weight>,
}

/// A base model on the card, without an adapter.
pub struct Base {
    pub(super) device: Device,
    pub(super) store: Store,
    pub(super) config: ModelConfig,
    pub(super) element: Element,
    pub(super) layers: Vec<Layer>,
    pub(super) embedding: Rows,
    pub(super) head: Rows,
    pub(super) final_norm: Region,
    pub(super) rope: Region,
    pub(super) positions: usize,
    /// Of the final norm: names the model in a checkpoint's fingerprint.
    pub(super) print: Vec<f32>,
    direct: Direct,
}

/// What was read straight from files onto the card.
#[derive(Clone, Copy, Debug, Default)]
pub struct Direct {
    pub bytes: usize,
    pub seconds: f64,
}

/// Adapter columns are padded to this many: products run on whole tiles.
pub(super) const PAD: usize = 64;

/// How the base is held and what products work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// The type of activations and of decoded weights.
    pub element: Element,
    pub quantization: Quantization,
}

impl Base {
    /// Reads a base model onto the card. Positions up to `positions` can be used.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) for widths that are no multiple of 8; [`Error::Device`](crate::Error::Device); what reading gives.
    pub fn load(
        device: Device,
        files: &ModelFiles,
        precision: Precision,
        positions: usize,
    ) -> Result<Self> {
        let config = files.config()?;
        let mut loader = Loader::new(device, &config, precision)?;
        loader.find(files, positions)?;
        let mut layers = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            layers.push(loader.layer(files, index)?);
        }
        let embedding = loader.table(files, placed::EMBEDDING)?;
        let head = if config.tie_embeddings {
            embedding
        } else {
            loader.table(files, placed::HEAD)?
        };
        let print = files.tensor("model.norm.weight")?.into_data();
        loader.finish(layers, embedding, head, print, positions)
    }

    /// The shape of the decoder.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The card.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes of the card that weights take.
    pub fn bytes(&self) -> usize {
        self.store.bytes()
    }

    /// What was read straight from files.
    pub fn direct(&self) -> Direct {
        self.direct
    }

    pub(super) fn weight(&self, layer: usize, site: Site) -> &Weight {
        &self.layers[layer].weights[site as usize]
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        self.store.free(&self.device);
    }
}

/// `(outputs, inputs)` of a site's stacked weights.
pub(super) fn site_shape(config: &ModelConfig, site: Site) -> (usize, usize) {
    let shapes = site.targets().iter().map(|t| t.shape(config));
    let inputs = site.targets()[0].shape(config).1;
    (shapes.map(|s| s.0).sum(), inputs)
}

impl Weight {
    /// Writes four-bit weights as values into the first columns of `rows`.
    pub(super) fn decode(&self, exec: &mut Exec<'_>, rows: Rows) {
        let Self::Nf4(stacked) = self else {
            return;
        };
        let mut from = 0;
        for part in stacked {
            part.decode(exec, rows.slice(from, part.outputs));
            from += part.outputs;
        }
    }

    /// All stacked weights for a product with a few rows; nothing where one of them is laid out otherwise.
    pub(super) fn narrow(&self) -> Option<[params::Nf4Part; 3]> {
        let Self::Nf4(stacked) = self else {
            return None;
        };
        let mut end = 0;
        let mut parts = [params::Nf4Part::default(); 3];
        for (part, weight) in parts.iter_mut().zip(stacked) {
            end += weight.outputs;
            *part = weight.part(end)?;
        }
        for part in &mut parts[stacked.len()..] {
            part.end = end as u32;
        }
        Some(parts)
    }
}
