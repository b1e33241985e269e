//! The frozen base on the card: NF4 as bitsandbytes keeps it, or dense values with room for adapter columns.
//!
//! Weights come one at a time from the files and are quantized on the card, so the host never holds the model.

use kernels::params;
use kernels::{Element, Grid, Kernel};

use super::decoders;
use super::device::Device;
use super::exec::Exec;
use super::memory::{Region, Rows, Store};
use crate::config::{Activation, LayerAttention, ModelConfig, Rope};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::nf4::{self, Nf4Tensor, Scales};
use crate::nn::adapter::{Site, Target};
use crate::nn::model::Quantization;
use crate::ops::rope::RopeTable;
use crate::tensor::Matrix;
use crate::weights::{LinearWeight, ModelFiles};

/// One four-bit weight.
pub(super) struct Nf4 {
    pub(super) packed: Region,
    /// Second-level codes; empty with plain scales.
    codes: Region,
    absmax: Region,
    map: Region,
    offset: f32,
    block: usize,
    nested: usize,
    rounding: u32,
    pub(super) outputs: usize,
    inputs: usize,
}

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
    /// [`Error::Unsupported`] for widths that are no multiple of 8; [`Error::Device`]; what reading gives.
    pub fn load(
        device: Device,
        files: &ModelFiles,
        precision: Precision,
        positions: usize,
    ) -> Result<Self> {
        let config = files.config()?;
        let mut loader = Loader::new(device, &config, precision)?;
        let mut layers = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            layers.push(loader.layer(files, index)?);
        }
        let embedding = loader.matrix(&files.tensor("model.embed_tokens.weight")?)?;
        let head = if config.tie_embeddings {
            embedding
        } else {
            loader.matrix(&files.tensor("lm_head.weight")?)?
        };
        let print = files.tensor("model.norm.weight")?.into_data();
        loader.finish(layers, embedding, head, print, positions)
    }

    /// A model of normal values with deviation 0.02, made on the card: for benchmarks.
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

struct Loader {
    device: Device,
    store: Store,
    config: ModelConfig,
    precision: Precision,
    /// f32 values on their way to four bits, and the scales that come out.
    staging: Region,
    scales: Region,
}

impl Loader {
    fn new(device: Device, config: &ModelConfig, precision: Precision) -> Result<Self> {
        device.bind()?;
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
        super::attention::check(config, precision.element)?;
        let most = Target::ALL
            .iter()
            .map(|t| t.shape(config))
            .map(|(o, i)| o * i)
            .max()
            .unwrap_or(0);
        let staging = device.allocate(most * precision.element.size().max(4))?;
        let scales = device.allocate(most / nf4::BLOCK * 4 + 4)?;
        Ok(Self {
            device,
            store: Store::new(),
            config: config.clone(),
            precision,
            staging,
            scales,
        })
    }

    fn finish(
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
        self.device.free(self.staging);
        self.device.free(self.scales);
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
        })
    }

    fn layer(&mut self, files: &ModelFiles, index: usize) -> Result<Layer> {
        let prefix = format!("model.layers.{index}");
        let mut weights = Vec::new();
        for site in Site::ALL {
            let mut parts = Vec::new();
            for target in site.targets() {
                let name = format!("{prefix}.{}.weight", target.path());
                let weight = files.linear(&name)?;
                let (found, want) = (shape_of(&weight), target.shape(&self.config));
                if found != want {
                    return Err(Error::shape(
                        format!("`{name}`"),
                        format!("{want:?}"),
                        format!("{found:?}"),
                    ));
                }
                parts.push(weight);
            }
            weights.push(self.stack(parts, site)?);
        }
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

    fn stack(&mut self, parts: Vec<LinearWeight>, site: Site) -> Result<Weight> {
        let four_bits = parts.iter().all(|p| matches!(p, LinearWeight::Nf4(_)));
        match self.precision.quantization {
            Quantization::None if !four_bits => self.dense(parts, site),
            Quantization::None => self.nf4(parts, true),
            Quantization::Nf4 { double } => self.nf4(parts, double),
        }
    }

    fn dense(&mut self, parts: Vec<LinearWeight>, site: Site) -> Result<Weight> {
        let (outputs, inputs) = site_shape(&self.config, site);
        let room = inputs + site.targets().len() * PAD;
        let mut values = vec![0.0; outputs * room];
        let mut row = 0;
        for part in parts {
            for source in part.into_dense().data().chunks_exact(inputs) {
                values[row * room..row * room + inputs].copy_from_slice(source);
                row += 1;
            }
        }
        Ok(Weight::Dense(
            self.matrix(&Matrix::new(outputs, room, values))?,
        ))
    }

    fn nf4(&mut self, parts: Vec<LinearWeight>, double: bool) -> Result<Weight> {
        let mut stacked = Vec::with_capacity(parts.len());
        for part in parts {
            stacked.push(match part {
                LinearWeight::Nf4(tensor) => self.stored(&tensor)?,
                LinearWeight::Dense(weight) => {
                    self.device.upload(self.staging, weight.data())?;
                    self.encode(weight.rows(), weight.cols(), double, Element::F32)?
                }
            });
        }
        Ok(Weight::Nf4(stacked))
    }

    /// A weight that is four bits already.
    fn stored(&mut self, tensor: &Nf4Tensor) -> Result<Nf4> {
        let (device, store) = (&self.device, &mut self.store);
        let (outputs, inputs) = tensor.shape();
        let mut nf4 = Nf4 {
            packed: store.upload(device, tensor.packed())?,
            codes: Region::default(),
            absmax: Region::default(),
            map: Region::default(),
            offset: 0.0,
            block: tensor.block(),
            nested: 1,
            rounding: match tensor.dtype() {
                Dtype::F32 => 0,
                Dtype::Bf16 => 1,
                Dtype::F16 => 2,
            },
            outputs,
            inputs,
        };
        scales(device, store, &mut nf4, tensor.scales())?;
        if !nf4.block.is_power_of_two() || !nf4.nested.is_power_of_two() || nf4.block < 8 {
            return Err(Error::unsupported(
                "blocksize",
                nf4.block,
                "use bitsandbytes' own block sizes",
            ));
        }
        Ok(nf4)
    }

    /// Quantizes the staged values. Scales go through the host, where double quantization is one code.
    fn encode(
        &mut self,
        outputs: usize,
        inputs: usize,
        double: bool,
        element: Element,
    ) -> Result<Nf4> {
        let (device, store) = (&self.device, &mut self.store);
        let count = outputs * inputs;
        if !count.is_multiple_of(nf4::BLOCK) {
            return Err(Error::unsupported(
                "a weight's size",
                count,
                "a multiple of 64 is needed to quantize on a GPU",
            ));
        }
        let packed = store.take(device, count / 2)?;
        let p = params::Nf4Encode {
            values: self.staging.at,
            packed: packed.at,
            absmax: self.scales.at,
            vectors: (count / 8) as u32,
            bounds: nf4::bounds(),
        };
        device.launch(
            Kernel::Nf4Encode,
            element,
            Grid::cover(count / 8, 256, 1),
            &p,
        )?;
        let mut absmax = vec![0.0f32; count / nf4::BLOCK];
        device.download(self.scales.part(0, 4 * absmax.len()), &mut absmax)?;
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
        let mut nf4 = Nf4 {
            packed,
            codes: Region::default(),
            absmax: Region::default(),
            map: Region::default(),
            offset: 0.0,
            block: nf4::BLOCK,
            nested: 1,
            rounding: 0,
            outputs,
            inputs,
        };
        scales(device, store, &mut nf4, &held)?;
        Ok(nf4)
    }

    /// Values in the element type, staged from f32.
    fn matrix(&mut self, matrix: &Matrix) -> Result<Rows> {
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
                noise(
                    &self.device,
                    self.staging,
                    outputs * inputs,
                    element,
                    own,
                    0.02,
                )?;
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

pub(super) fn noise(
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

fn scales(device: &Device, store: &mut Store, nf4: &mut Nf4, scales: &Scales) -> Result<()> {
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

fn shape_of(weight: &LinearWeight) -> (usize, usize) {
    match weight {
        LinearWeight::Dense(m) => (m.rows(), m.cols()),
        LinearWeight::Nf4(t) => t.shape(),
    }
}

impl Nf4 {
    /// Decodes into the first columns of `out`.
    pub(super) fn decode(&self, exec: &mut Exec<'_>, out: Rows) {
        let vectors = self.outputs * self.inputs / 8;
        let p = params::Nf4Decode {
            packed: self.packed.at,
            codes: if self.codes.bytes == 0 {
                0
            } else {
                self.codes.at
            },
            absmax: self.absmax.at,
            map: if self.map.bytes == 0 { 0 } else { self.map.at },
            out: out.at,
            vectors: vectors as u32,
            row_vectors: (self.inputs / 8) as u32,
            stride: out.stride as u32,
            block_shift: self.block.trailing_zeros(),
            nested_shift: self.nested.trailing_zeros(),
            rounding: self.rounding,
            offset: self.offset,
            unused: 0,
        };
        exec.launch(
            Kernel::Nf4Decode,
            Grid::cover(vectors, 1024, 1).threads(256),
            &p,
        );
    }
}

impl Nf4 {
    /// What the products with a few rows read, where they serve this layout; `end` is the site's output after
    /// this weight's last.
    fn part(&self, end: usize) -> Option<params::Nf4Part> {
        use kernels::decode;
        let whole = |n: usize| n.is_multiple_of(decode::STEP);
        let nested = self.codes.bytes > 0;
        let serves = whole(self.outputs)
            && whole(self.inputs)
            && self.block == decode::BLOCK
            && (!nested || self.nested == decode::NESTED)
            && self.rounding != 2;
        serves.then_some(params::Nf4Part {
            packed: self.packed.at,
            codes: if nested { self.codes.at } else { 0 },
            absmax: self.absmax.at,
            map: if nested { self.map.at } else { 0 },
            offset: self.offset,
            end: end as u32,
        })
    }
}

impl Weight {
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

/// A loader for one weight of its own.
fn lone(device: Device, element: Element, weight: (usize, usize)) -> Result<Loader> {
    let staging = device.allocate(weight.0 * weight.1 * 4)?;
    let scales = device.allocate(weight.0 * weight.1 / nf4::BLOCK * 4 + 4)?;
    let config = ModelConfig {
        architecture: crate::config::Architecture::Llama,
        vocab: 8,
        hidden: 8,
        intermediate: 8,
        layers: 1,
        heads: 1,
        kv_heads: 1,
        head_dim: 16,
        attention: vec![LayerAttention {
            window: None,
            rope: Rope::plain(1e4),
        }],
        attention_scale: ModelConfig::plain_scale(16),
        attention_softcap: None,
        logit_softcap: None,
        activation: Activation::Silu,
        rms_eps: 1e-5,
        norm_offset: 0.0,
        qk_norm: false,
        post_norms: false,
        embedding_scale: 1.0,
        tie_embeddings: true,
        qkv_bias: false,
        max_position: 1,
        bos: None,
        eos: Vec::new(),
        dtype: Dtype::F32,
    };
    let precision = Precision {
        element,
        quantization: Quantization::Nf4 { double: true },
    };
    Ok(Loader {
        device,
        store: Store::new(),
        config,
        precision,
        staging,
        scales,
    })
}

pub(super) fn decoded(device: Device, tensor: &Nf4Tensor, element: Element) -> Result<Matrix> {
    let (outputs, inputs) = tensor.shape();
    let mut loader = lone(device, element, (outputs, inputs))?;
    let nf4 = loader.stored(tensor)?;
    let room = 64;
    let stride = inputs + room;
    let block = loader.device.allocate(outputs * stride * 4 + (64 << 20))?;
    let mut exec = Exec::on(&loader.device, element, block);
    let out = exec.rows(outputs, stride);
    nf4.decode(&mut exec, out.columns(0, inputs));
    exec.check()?;
    let mut bytes = vec![0u8; outputs * stride * element.size()];
    loader.device.download(out.region(), &mut bytes)?;
    let dtype = match element {
        Element::Bf16 => Dtype::Bf16,
        Element::F32 => Dtype::F32,
    };
    let values = dtype.decode(&bytes);
    let dense: Vec<f32> = values
        .chunks_exact(stride)
        .flat_map(|r| r[..inputs].to_vec())
        .collect();
    loader.device.free(block);
    Ok(Matrix::new(outputs, inputs, dense))
}

pub(super) fn encoded(device: Device, weight: &Matrix, double: bool) -> Result<Vec<u8>> {
    let mut loader = lone(device, Element::F32, (weight.rows(), weight.cols()))?;
    loader.device.upload(loader.staging, weight.data())?;
    let nf4 = loader.encode(weight.rows(), weight.cols(), double, Element::F32)?;
    let mut packed = vec![0; weight.rows() * weight.cols() / 2];
    loader.device.download(nf4.packed, &mut packed)?;
    Ok(packed)
}
