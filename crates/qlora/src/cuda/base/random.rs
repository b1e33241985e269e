//! A base of random values, made on the card: for benchmarks.

use kernels::params;
use kernels::{Element, Grid, Kernel};

use super::super::device::Device;
use super::super::memory::{Region, Rows};
use super::loader::Loader;
use super::{Base, Layer, Precision, Weight};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::nn::adapter::Site;

impl Base {
    /// A model of normal values with deviation 0.02.
    ///
    /// # Errors
    /// As [`Base::load`].
    pub fn random(
        device: Device,
        config: &ModelConfig,
        precision: Precision,
        positions: usize,
        seed: u64,
    ) -> Result<Self> {
        let mut loader = Loader::new(device, config, precision)?;
        let mut layers = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            layers.push(loader.random_layer(index, seed)?);
        }
        let embedding = loader.random_matrix(config.vocab, config.hidden, seed ^ 1)?;
        let head = loader.random_matrix(config.vocab, config.hidden, seed ^ 2)?;
        let ones = vec![1.0; config.hidden];
        loader.finish(layers, embedding, head, ones, positions)
    }
}

impl Loader {
    fn random_matrix(&mut self, rows: usize, cols: usize, seed: u64) -> Result<Rows> {
        let element = self.precision.element;
        let region = self
            .store
            .take(&self.device, rows * cols * element.size())?;
        noise(&self.device, region, rows * cols, element, seed, 0.02)?;
        Ok(Rows::shaped(region, rows, cols, element))
    }

    fn random_layer(&mut self, index: usize, seed: u64) -> Result<Layer> {
        let mut weights = Vec::new();
        for site in Site::ALL {
            let mut parts = Vec::new();
            for target in site.targets() {
                let (outputs, inputs) = target.shape(&self.config);
                let own = seed.wrapping_add(((index * 7 + *target as usize) << 8) as u64);
                let element = self.precision.element;
                let staging = self.staging(outputs * inputs)?;
                noise(&self.device, staging, outputs * inputs, element, own, 0.02)?;
                parts.push(self.encode(outputs, inputs, true, element)?);
            }
            weights.push(Weight::Nf4(parts));
        }
        let ones = vec![1.0f32; self.config.hidden];
        Ok(Layer {
            attention_norm: self.store.upload(&self.device, &ones)?,
            mlp_norm: self.store.upload(&self.device, &ones)?,
            qkv_bias: None,
            weights,
        })
    }
}

pub(in crate::cuda) fn noise(
    device: &Device,
    out: Region,
    count: usize,
    element: Element,
    seed: u64,
    deviation: f32,
) -> Result<()> {
    let p = params::Noise {
        out: out.at,
        count: count as u64,
        seed,
        deviation,
        unused: 0,
    };
    device.launch(Kernel::Noise, element, Grid::cover(count / 8, 256, 1), &p)
}
