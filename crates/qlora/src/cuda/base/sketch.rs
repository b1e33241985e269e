//! A base without its values: every place that it takes of a card, for plans.
//!
//! Promises: the bytes of the base that is read straight from files ([`Base::load`]), block by block.

use super::super::device::Device;
use super::super::memory::{ALIGNMENT, Region, Rows};
use super::loader::Loader;
use super::nf4::Nf4;
use super::{Base, Layer, PAD, Precision, Weight, site_shape};
use crate::config::ModelConfig;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::nf4::{BLOCK, NESTED_BLOCK};
use crate::nn::adapter::{Site, Target};
use crate::nn::model::Quantization;

/// Bytes of the second-level map.
const MAP: usize = 256 * 4;

impl Base {
    /// A base of this shape on a card on paper ([`Device::on_paper`]).
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] for what the card cannot run, as [`Base::load`].
    pub fn sketch(
        device: Device,
        config: &ModelConfig,
        precision: Precision,
        positions: usize,
    ) -> Result<Self> {
        let mut loader = Loader::new(device, config, precision)?;
        loader.reserve_sketch(positions)?;
        let layers = (0..config.layers)
            .map(|_| loader.sketch_layer())
            .collect::<Result<_>>()?;
        let embedding = loader.sketch_table()?;
        let head = if config.tie_embeddings {
            embedding
        } else {
            loader.sketch_table()?
        };
        loader.finish(layers, embedding, head, vec![1.0; config.hidden], positions)
    }
}

/// Bytes of a weight's codes and scales.
fn parts(count: usize, double: bool) -> [usize; 4] {
    let blocks = count.div_ceil(BLOCK);
    if double {
        let nested = 4 * blocks.div_ceil(NESTED_BLOCK);
        [count / 2, blocks, nested, MAP]
    } else {
        [count / 2, 0, 4 * blocks, 0]
    }
}

impl Loader {
    /// The block that everything lies in which is read straight from files.
    fn reserve_sketch(&mut self, positions: usize) -> Result<()> {
        let config = &self.config;
        let tables = if config.tie_embeddings { 1 } else { 2 };
        let table = config.vocab * config.hidden * self.precision.element.size();
        let mut bytes = self.vectors(positions) + tables * table.next_multiple_of(ALIGNMENT);
        if let Quantization::Nf4 { double } = self.precision.quantization {
            for target in Target::ALL {
                let (outputs, inputs) = target.shape(config);
                let padded = parts(outputs * inputs, double).map(|n| n.next_multiple_of(ALIGNMENT));
                bytes += config.layers * padded.iter().sum::<usize>();
            }
        }
        self.store.reserve(&self.device, bytes)
    }

    fn take(&mut self, bytes: usize) -> Result<Region> {
        if bytes == 0 {
            return Ok(Region::default());
        }
        self.store.take(&self.device, bytes)
    }

    fn sketch_layer(&mut self) -> Result<Layer> {
        let weights = Site::ALL
            .into_iter()
            .map(|site| self.sketch_site(site))
            .collect::<Result<_>>()?;
        let hidden = 4 * self.config.hidden;
        let bias = 4 * site_shape(&self.config, Site::Qkv).0;
        Ok(Layer {
            attention_norm: self.take(hidden)?,
            mlp_norm: self.take(hidden)?,
            qkv_bias: if self.config.qkv_bias {
                Some(self.take(bias)?)
            } else {
                None
            },
            weights,
        })
    }

    fn sketch_site(&mut self, site: Site) -> Result<Weight> {
        let element = self.precision.element;
        let Quantization::Nf4 { double } = self.precision.quantization else {
            let (outputs, inputs) = site_shape(&self.config, site);
            let room = inputs + site.targets().len() * PAD;
            let region = self.take(outputs * room * element.size())?;
            return Ok(Weight::Dense(Rows::shaped(region, outputs, room, element)));
        };
        let mut stacked = Vec::new();
        for target in site.targets() {
            let shape = target.shape(&self.config);
            let [packed, codes, absmax, map] = parts(shape.0 * shape.1, double);
            let mut nf4 = Nf4::new(self.take(packed)?, shape, BLOCK, Dtype::F32);
            nf4.codes = self.take(codes)?;
            nf4.absmax = self.take(absmax)?;
            nf4.map = self.take(map)?;
            nf4.nested = if double { NESTED_BLOCK } else { 1 };
            stacked.push(nf4);
        }
        Ok(Weight::Nf4(stacked))
    }

    fn sketch_table(&mut self) -> Result<Rows> {
        let (vocab, hidden) = (self.config.vocab, self.config.hidden);
        let element = self.precision.element;
        let region = self.take(vocab * hidden * element.size())?;
        Ok(Rows::shaped(region, vocab, hidden, element))
    }
}
