//! The frozen base: weights as f32, stacked where they share an input, with room for one adapter.
//!
//! A 4-bit base is decoded once: on a CPU the products then run at full speed. The model never changes
//! its own weights; attaching an adapter only fills the columns kept for it.

use super::adapter::{Adapter, Site, Target};
use super::linear::{Linear, SiteAdapter};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::ops::attended::Heads;
use crate::tensor::Matrix;

/// One decoder layer.
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>,
    /// Over the attention's product, where the family has one.
    pub(crate) post_attention_norm: Option<Vec<f32>>,
    pub(crate) mlp_norm: Vec<f32>,
    /// Over the MLP's product, where the family has one.
    pub(crate) post_mlp_norm: Option<Vec<f32>>,
    /// Over every head of q, then of k: one weight per column.
    pub(crate) qk_norm: Option<Vec<f32>>,
    pub(crate) qkv_bias: Option<Vec<f32>>,
    pub(crate) qkv: Linear,
    pub(crate) output: Linear,
    pub(crate) gate_up: Linear,
    pub(crate) down: Linear,
}

impl Layer {
    pub(crate) fn linear(&self, site: Site) -> &Linear {
        match site {
            Site::Qkv => &self.qkv,
            Site::Output => &self.output,
            Site::GateUp => &self.gate_up,
            Site::Down => &self.down,
        }
    }

    fn linear_mut(&mut self, site: Site) -> &mut Linear {
        match site {
            Site::Qkv => &mut self.qkv,
            Site::Output => &mut self.output,
            Site::GateUp => &mut self.gate_up,
            Site::Down => &mut self.down,
        }
    }
}

/// How the linear layers of the base are held before they are decoded for use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantization {
    /// As stored (a checkpoint that is already 4-bit stays so).
    None,
    /// NF4 in blocks of 64, as bitsandbytes; `double` quantizes the scales too.
    Nf4 { double: bool },
}

/// A frozen decoder with room for one adapter.
pub struct Model {
    config: ModelConfig,
    pub(crate) embedding: Matrix,
    /// Absent when the head is the embedding.
    head: Option<Matrix>,
    pub(crate) final_norm: Vec<f32>,
    pub(crate) layers: Vec<Layer>,
}

impl Model {
    /// Builds a model from named tensors in Hugging Face's names and layout. `linear` gives the decoded
    /// weight of a linear layer, `tensor` everything else (vectors as one row or one column).
    pub fn from_tensors(
        config: &ModelConfig,
        mut linear: impl FnMut(&str) -> Result<Matrix>,
        mut tensor: impl FnMut(&str) -> Result<Matrix>,
    ) -> Result<Self> {
        let mut layers = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            let prefix = format!("model.layers.{index}");
            let mut stack = |site: Site| -> Result<Linear> {
                let parts = site.targets().iter().map(|target| {
                    let name = format!("{prefix}.{}.weight", target.path());
                    let weight = linear(&name)?;
                    shaped(&name, weight, target.shape(config))
                });
                Ok(Linear::stack(parts.collect::<Result<_>>()?))
            };
            let (qkv, output) = (stack(Site::Qkv)?, stack(Site::Output)?);
            let (gate_up, down) = (stack(Site::GateUp)?, stack(Site::Down)?);
            let mut vector =
                |name: &str, len: usize| vector(&mut tensor, &format!("{prefix}.{name}"), len);
            let mut qkv_bias = None;
            if config.qkv_bias {
                let mut bias = Vec::new();
                for target in Site::Qkv.targets() {
                    bias.extend(vector(
                        &format!("{}.bias", target.path()),
                        target.shape(config).0,
                    )?);
                }
                qkv_bias = Some(bias);
            }
            let mut norm = |name: &str, len: usize| {
                let weight = vector(&format!("{name}.weight"), len)?;
                Ok(shifted(weight, config.norm_offset))
            };
            let qk_norm = if config.qk_norm {
                let query = norm("self_attn.q_norm", config.head_dim)?;
                let key = norm("self_attn.k_norm", config.head_dim)?;
                let mut all = query.repeat(config.heads);
                all.extend(key.repeat(config.kv_heads));
                Some(all)
            } else {
                None
            };
            let attention_norm = norm("input_layernorm", config.hidden)?;
            let after_attention = norm("post_attention_layernorm", config.hidden)?;
            let (post_attention_norm, mlp_norm, post_mlp_norm) = if config.post_norms {
                (
                    Some(after_attention),
                    norm("pre_feedforward_layernorm", config.hidden)?,
                    Some(norm("post_feedforward_layernorm", config.hidden)?),
                )
            } else {
                (None, after_attention, None)
            };
            layers.push(Layer {
                attention_norm,
                post_attention_norm,
                mlp_norm,
                post_mlp_norm,
                qk_norm,
                qkv_bias,
                qkv,
                output,
                gate_up,
                down,
            });
        }
        let table = (config.vocab, config.hidden);
        let embedding = shaped(
            "model.embed_tokens.weight",
            tensor("model.embed_tokens.weight")?,
            table,
        )?;
        let head = if config.tie_embeddings {
            None
        } else {
            Some(shaped("lm_head.weight", tensor("lm_head.weight")?, table)?)
        };
        let final_norm = vector(&mut tensor, "model.norm.weight", config.hidden)?;
        let final_norm = shifted(final_norm, config.norm_offset);
        Ok(Self {
            config: config.clone(),
            embedding,
            head,
            final_norm,
            layers,
        })
    }

    /// The shape of the decoder.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The weights that turn a hidden state into logits, `vocab x hidden`.
    pub(crate) fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    pub(crate) fn heads(&self, layer: usize) -> Heads {
        Heads {
            heads: self.config.heads,
            kv_heads: self.config.kv_heads,
            dim: self.config.head_dim,
            window: self.config.attention[layer].window,
            scale: self.config.attention_scale,
            softcap: self.config.attention_softcap,
        }
    }

    /// The adapter's part at one site, if it has one there.
    pub(crate) fn site_adapter<'a>(
        &self,
        adapter: &'a Adapter,
        layer: usize,
        site: Site,
    ) -> Option<SiteAdapter<'a>> {
        SiteAdapter::of(adapter, layer, site, |i| {
            site.targets()[i].shape(&self.config).0
        })
    }

    /// Copies the adapter's B beside the frozen weights. Must be called again whenever its values change.
    pub(crate) fn attach(&mut self, adapter: &Adapter) -> Result<()> {
        let fits = adapter.slots().iter().all(|s| {
            s.layer < self.config.layers && s.target.shape(&self.config) == (s.outputs, s.inputs)
        });
        if !fits {
            let (hidden, layers) = (self.config.hidden, self.config.layers);
            return Err(Error::shape(
                "the adapter",
                format!("one for {layers} layers of width {hidden}"),
                "another",
            ));
        }
        for layer in 0..self.layers.len() {
            for site in Site::ALL {
                let part = self.site_adapter(adapter, layer, site);
                let linear = self.layers[layer].linear_mut(site);
                let Some(part) = part else {
                    linear.reserve(0);
                    continue;
                };
                linear.reserve(part.extra());
                linear.write_up(&part.pairs);
            }
        }
        Ok(())
    }
}

/// Bytes of f32 weights that a model of this shape takes once decoded.
pub fn decoded_bytes(config: &ModelConfig) -> u64 {
    let linear: usize = Target::ALL
        .iter()
        .map(|t| t.shape(config))
        .map(|(o, i)| o * i)
        .sum();
    let tables = if config.tie_embeddings { 1 } else { 2 };
    let norms = if config.post_norms { 4 } else { 2 };
    let values = config.layers * (linear + norms * config.hidden)
        + tables * config.vocab * config.hidden
        + config.hidden;
    4 * values as u64
}

fn shaped(name: &str, weight: Matrix, shape: (usize, usize)) -> Result<Matrix> {
    if (weight.rows(), weight.cols()) == shape {
        return Ok(weight);
    }
    let found = format!("{} x {}", weight.rows(), weight.cols());
    Err(Error::shape(
        format!("`{name}`"),
        format!("{} x {}", shape.0, shape.1),
        found,
    ))
}

/// Gemma stores a norm's weight less one.
fn shifted(mut weight: Vec<f32>, offset: f32) -> Vec<f32> {
    for value in &mut weight {
        *value += offset;
    }
    weight
}

fn vector(
    tensor: &mut impl FnMut(&str) -> Result<Matrix>,
    name: &str,
    len: usize,
) -> Result<Vec<f32>> {
    let values = tensor(name)?.into_data();
    if values.len() == len {
        return Ok(values);
    }
    Err(Error::shape(format!("`{name}`"), len, values.len()))
}

#[cfg(test)]
#[path = "model_tests.rs"]
pub(crate) mod tests;
