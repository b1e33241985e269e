//! Weights from files onto the card.

use std::collections::BTreeMap;
use std::time::Instant;

use kernels::params;
use kernels::{Element, Grid, Kernel};

use super::super::device::Device;
use super::super::memory::{ALIGNMENT, Region, Rows, Store};
use super::super::{attention, decoders};
use super::nf4::Nf4;
use super::reading::{self, Wanted};
use super::{Base, Direct, Layer, PAD, Precision, Weight, site_shape};
use crate::config::ModelConfig;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::nf4::{self, Scales};
use crate::nn::adapter::Site;
use crate::nn::model::Quantization;
use crate::ops::rope::RopeTable;
use crate::tensor::Matrix;
use crate::weights::{FourBits, LinearWeight, ModelFiles, Stretch};

pub(super) struct Loader {
    pub(super) device: Device,
    pub(super) store: Store,
    pub(super) config: ModelConfig,
    pub(super) precision: Precision,
    /// f32 values on their way to four bits, and the scales that come out; taken when first needed.
    staging: Region,
    scales: Region,
    /// Four-bit weights and tables that lie ready in a file, until they are placed.
    pub(super) weights: BTreeMap<String, FourBits>,
    pub(super) tables: BTreeMap<&'static str, (usize, usize, Stretch)>,
    /// What is to be read once everything has its place.
    pub(super) reading: Vec<Wanted>,
}

impl Loader {
    pub(super) fn new(device: Device, config: &ModelConfig, precision: Precision) -> Result<Self> {
        device.bind()?;
        check(config, precision.element)?;
        Ok(Self::unchecked(device, config.clone(), precision))
    }

    /// For weights that are no model's.
    pub(super) fn unchecked(device: Device, config: ModelConfig, precision: Precision) -> Self {
        Self {
            device,
            store: Store::new(),
            config,
            precision,
            staging: Region::default(),
            scales: Region::default(),
            weights: BTreeMap::new(),
            tables: BTreeMap::new(),
            reading: Vec::new(),
        }
    }

    /// Room for `count` values on their way to four bits.
    pub(super) fn staging(&mut self, count: usize) -> Result<Region> {
        let bytes = 4 * count;
        if self.staging.bytes < bytes {
            self.give_staging();
            self.staging = self.device.allocate(bytes)?;
            self.scales = self.device.allocate(count / nf4::BLOCK * 4 + 4)?;
        }
        Ok(self.staging)
    }

    fn give_staging(&mut self) {
        for region in [&mut self.staging, &mut self.scales] {
            if region.bytes > 0 {
                self.device.free(std::mem::take(region));
            }
        }
    }

    /// Bytes of all that is no matrix: norms, biases, angles.
    pub(super) fn vectors(&self, positions: usize) -> usize {
        let config = &self.config;
        let padded = |values: usize| (4 * values).next_multiple_of(ALIGNMENT);
        let bias = if config.qkv_bias {
            padded(site_shape(config, Site::Qkv).0)
        } else {
            0
        };
        let layer = 2 * padded(config.hidden) + bias;
        config.layers * layer + padded(config.hidden) + padded(positions * config.head_dim)
    }

    /// Reads what was placed, and closes.
    pub(super) fn finish(
        mut self,
        layers: Vec<Layer>,
        embedding: Rows,
        head: Rows,
        print: Vec<f32>,
        positions: usize,
    ) -> Result<Base> {
        let final_norm = self.store.upload(&self.device, &print)?;
        let table = RopeTable::new(
            self.config.head_dim,
            decoders::first(&self.config).rope,
            positions,
        );
        let rope = self.store.upload(&self.device, table.values())?;
        self.give_staging();
        let begun = Instant::now();
        reading::read(&self.device, &self.reading)?;
        let direct = Direct {
            bytes: self.reading.iter().map(|wanted| wanted.stretch.bytes).sum(),
            seconds: begun.elapsed().as_secs_f64(),
        };
        Ok(Base {
            device: self.device,
            store: self.store,
            config: self.config,
            element: self.precision.element,
            layers,
            embedding,
            head,
            final_norm,
            rope,
            positions,
            print,
            direct,
        })
    }

    pub(super) fn layer(&mut self, files: &ModelFiles, index: usize) -> Result<Layer> {
        let weights = Site::ALL
            .into_iter()
            .map(|site| self.site(files, index, site))
            .collect::<Result<_>>()?;
        let prefix = format!("model.layers.{index}");
        let mut vector = |name: &str| -> Result<Region> {
            let values = files.tensor(&format!("{prefix}.{name}"))?;
            self.store.upload(&self.device, values.data())
        };
        let attention_norm = vector("input_layernorm.weight")?;
        let mlp_norm = vector("post_attention_layernorm.weight")?;
        let mut qkv_bias = None;
        if self.config.qkv_bias {
            let mut bias = Vec::new();
            for target in Site::Qkv.targets() {
                bias.extend(
                    files
                        .tensor(&format!("{prefix}.{}.bias", target.path()))?
                        .into_data(),
                );
            }
            qkv_bias = Some(self.store.upload(&self.device, &bias)?);
        }
        Ok(Layer {
            attention_norm,
            mlp_norm,
            qkv_bias,
            weights,
        })
    }

    /// The stacked weights of a site: in four bits where they lie so, or are to be so.
    fn site(&mut self, files: &ModelFiles, index: usize, site: Site) -> Result<Weight> {
        let names: Vec<String> = site
            .targets()
            .iter()
            .map(|target| format!("{}.weight", target.module(index)))
            .collect();
        let double = match self.precision.quantization {
            Quantization::Nf4 { double } => double,
            Quantization::None if names.iter().all(|n| self.weights.contains_key(n)) => true,
            Quantization::None => return self.dense(files, &names, site),
        };
        let mut stacked = Vec::with_capacity(names.len());
        for (name, target) in names.iter().zip(site.targets()) {
            let shape = target.shape(&self.config);
            stacked.push(match self.weights.remove(name) {
                Some(found) => {
                    fits(name, found.shape, shape)?;
                    self.place(found)?
                }
                None => self.quantize(files, name, shape, double)?,
            });
        }
        Ok(Weight::Nf4(stacked))
    }

    fn dense(&mut self, files: &ModelFiles, names: &[String], site: Site) -> Result<Weight> {
        let (outputs, inputs) = site_shape(&self.config, site);
        let room = inputs + site.targets().len() * PAD;
        let mut values = vec![0.0; outputs * room];
        let mut row = 0;
        for (name, target) in names.iter().zip(site.targets()) {
            let part = files.tensor(name)?;
            fits(name, (part.rows(), part.cols()), target.shape(&self.config))?;
            for source in part.data().chunks_exact(inputs) {
                values[row * room..row * room + inputs].copy_from_slice(source);
                row += 1;
            }
        }
        let rows = self.matrix(&Matrix::new(outputs, room, values))?;
        Ok(Weight::Dense(rows))
    }

    /// A weight of more bits, or one in four bits whose scales are no f32 values.
    fn quantize(
        &mut self,
        files: &ModelFiles,
        name: &str,
        shape: (usize, usize),
        double: bool,
    ) -> Result<Nf4> {
        match files.linear(name)? {
            LinearWeight::Nf4(tensor) => {
                fits(name, tensor.shape(), shape)?;
                self.stored(&tensor)
            }
            LinearWeight::Dense(weight) => {
                fits(name, (weight.rows(), weight.cols()), shape)?;
                let staging = self.staging(shape.0 * shape.1)?;
                self.device.upload(staging, weight.data())?;
                self.encode(shape.0, shape.1, double, Element::F32)
            }
        }
    }

    /// A weight that is four bits already, from the host.
    pub(super) fn stored(&mut self, tensor: &nf4::Nf4Tensor) -> Result<Nf4> {
        let packed = self.store.upload(&self.device, tensor.packed())?;
        let mut nf4 = Nf4::new(packed, tensor.shape(), tensor.block(), tensor.dtype());
        self.scales(&mut nf4, tensor.scales())?;
        nf4.check()
    }

    fn scales(&mut self, nf4: &mut Nf4, scales: &Scales) -> Result<()> {
        let (device, store) = (&self.device, &mut self.store);
        match scales {
            Scales::Plain(absmax) => nf4.absmax = store.upload(device, absmax)?,
            Scales::Double {
                codes,
                absmax,
                map,
                offset,
                block,
            } => {
                nf4.codes = store.upload(device, codes)?;
                nf4.absmax = store.upload(device, absmax)?;
                nf4.map = store.upload(device, &map[..])?;
                nf4.offset = *offset;
                nf4.nested = *block;
            }
        }
        Ok(())
    }

    /// Quantizes the staged values. Scales go through the host, where double quantization is one code.
    pub(super) fn encode(
        &mut self,
        outputs: usize,
        inputs: usize,
        double: bool,
        element: Element,
    ) -> Result<Nf4> {
        let count = outputs * inputs;
        if !count.is_multiple_of(nf4::BLOCK) {
            return Err(Error::unsupported(
                "a weight's size",
                count,
                "a multiple of 64 is needed to quantize on a GPU",
            ));
        }
        let packed = self.store.take(&self.device, count / 2)?;
        let p = params::Nf4Encode {
            values: self.staging.at,
            packed: packed.at,
            absmax: self.scales.at,
            vectors: (count / 8) as u32,
            bounds: nf4::bounds(),
        };
        self.device.launch(
            Kernel::Nf4Encode,
            element,
            Grid::cover(count / 8, 256, 1),
            &p,
        )?;
        let mut absmax = vec![0.0f32; count / nf4::BLOCK];
        self.device
            .download(self.scales.part(0, 4 * absmax.len()), &mut absmax)?;
        if absmax.iter().any(|a| !a.is_finite()) {
            return Err(Error::shape(
                "a weight to quantize",
                "finite values",
                "NaN or infinity",
            ));
        }
        let held = if double {
            nf4::nest(&absmax)
        } else {
            Scales::Plain(absmax)
        };
        let mut nf4 = Nf4::new(packed, (outputs, inputs), nf4::BLOCK, Dtype::F32);
        self.scales(&mut nf4, &held)?;
        Ok(nf4)
    }

    /// Values in the element type, staged from f32.
    pub(super) fn matrix(&mut self, matrix: &Matrix) -> Result<Rows> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let region = match self.precision.element {
            Element::F32 => self.store.upload(&self.device, matrix.data())?,
            Element::Bf16 => {
                let bytes = Dtype::Bf16.encode(matrix.data());
                self.store.upload(&self.device, &bytes)?
            }
        };
        Ok(Rows::shaped(region, rows, cols, self.precision.element))
    }
}

/// Refuses what the card cannot run, by its key.
fn check(config: &ModelConfig, element: Element) -> Result<()> {
    decoders::check(config)?;
    let widths = [
        ("hidden_size", config.hidden, 8192),
        ("intermediate_size", config.intermediate, usize::MAX),
        ("vocab_size", config.vocab, usize::MAX),
    ];
    for (key, width, most) in widths {
        if !width.is_multiple_of(8) || width > most {
            return Err(Error::unsupported(
                key,
                width,
                "on a GPU, widths are multiples of 8 and rows at most 8192; train on the CPU",
            ));
        }
    }
    if !config.head_dim.is_multiple_of(16) {
        return Err(Error::unsupported(
            "head_dim",
            config.head_dim,
            "on a GPU, heads are multiples of 16 wide; train on the CPU",
        ));
    }
    attention::check(config, element)
}

fn fits(name: &str, found: (usize, usize), want: (usize, usize)) -> Result<()> {
    if found == want {
        return Ok(());
    }
    Err(Error::shape(
        format!("`{name}`"),
        format!("{want:?}"),
        format!("{found:?}"),
    ))
}
