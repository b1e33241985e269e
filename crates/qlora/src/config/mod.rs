//! What a decoder looks like, in numbers: read from a Hugging Face `config.json` or GGUF metadata.
//!
//! Promises that every setting which changes the maths is either in [`ModelConfig`] or was refused by
//! name. It must not know how weights are stored.

mod gguf;
mod hf;
mod hf_keys;
mod hf_layers;
mod hf_rope;
mod rope;

use crate::dtype::Dtype;
use crate::error::{Error, Result};

pub(crate) use gguf::from_gguf;
pub(crate) use hf::{eos_from_generation_config, from_hf};
pub use rope::{Rope, RopeScaling};

/// A family of decoders. They differ in [`ModelConfig`]'s fields only, never in the order of the ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama 1 to 3, SmolLM2, TinyLlama.
    Llama,
    /// Mistral 7B and its kin.
    Mistral,
    /// Qwen2 and Qwen2.5: biases on q, k and v.
    Qwen2,
    /// Qwen3: a norm on every head of q and k.
    Qwen3,
    /// Gemma 1: norms of `1 + w`, scaled embeddings, tanh-GELU gates.
    Gemma,
    /// Gemma 2: Gemma 1 with norms after the sublayers, soft caps and windows in every other layer.
    Gemma2,
    /// The text part of Gemma 3: Gemma 2 without caps, norms on heads, two rope bases.
    Gemma3,
}

impl Architecture {
    /// The `model_type` that transformers gives it.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma => "gemma",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3_text",
        }
    }

    /// One of the Gemmas.
    pub(crate) fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma | Self::Gemma2 | Self::Gemma3)
    }

    /// Every head of q and k has a norm.
    pub(crate) fn has_qk_norm(self) -> bool {
        matches!(self, Self::Qwen3 | Self::Gemma3)
    }

    /// Attention and MLP are followed by a norm.
    pub(crate) fn has_post_norms(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }
}

/// The gate of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU in its tanh form (`gelu_pytorch_tanh`).
    GeluTanh,
}

/// How one layer attends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerAttention {
    /// A position sees itself and `window - 1` before it; none means all.
    pub window: Option<usize>,
    pub rope: Rope,
}

impl Default for LayerAttention {
    /// To everything before it, by unscaled angles of base 10,000.
    fn default() -> Self {
        Self {
            window: None,
            rope: Rope::plain(1e4),
        }
    }
}

/// The shape of a Llama-family decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the gated MLP.
    pub intermediate: usize,
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; `heads * head_dim` need not be `hidden`.
    pub head_dim: usize,
    /// Per layer.
    pub attention: Vec<LayerAttention>,
    /// Scores are multiplied by it, usually `1 / sqrt(head_dim)`.
    pub attention_scale: f32,
    /// Scores `s` become `cap * tanh(s / cap)`.
    pub attention_softcap: Option<f32>,
    /// Logits `z` become `cap * tanh(z / cap)`.
    pub logit_softcap: Option<f32>,
    pub activation: Activation,
    /// Added to the mean square in every norm.
    pub rms_eps: f32,
    /// Added to every stored norm weight: 1 for Gemma's safetensors.
    pub norm_offset: f32,
    /// A norm over each head of q and k, before their rotation.
    pub qk_norm: bool,
    /// A norm over the output of attention and MLP, before the residual.
    pub post_norms: bool,
    /// Embedding rows are multiplied by it.
    pub embedding_scale: f32,
    /// The head is the embedding.
    pub tie_embeddings: bool,
    /// Biases on the q, k and v projections.
    pub qkv_bias: bool,
    /// Longest sequence that the model was made for.
    pub max_position: usize,
    pub bos: Option<u32>,
    /// Every id that ends an answer, in the file's order.
    pub eos: Vec<u32>,
    /// The format of the stored weights.
    pub dtype: Dtype,
}

impl Default for ModelConfig {
    /// A Llama as small as can be: one layer, one head, no bias, cap or window, a head of its own. A larger one names
    /// its sizes, and what goes with them: `attention` has an entry a layer, `attention_scale` follows `head_dim`.
    fn default() -> Self {
        Self {
            architecture: Architecture::Llama,
            vocab: 8,
            hidden: 16,
            intermediate: 16,
            layers: 1,
            heads: 1,
            kv_heads: 1,
            head_dim: 16,
            attention: vec![LayerAttention::default()],
            attention_scale: Self::plain_scale(16),
            attention_softcap: None,
            logit_softcap: None,
            activation: Activation::Silu,
            rms_eps: 1e-5,
            norm_offset: 0.0,
            qk_norm: false,
            post_norms: false,
            embedding_scale: 1.0,
            tie_embeddings: false,
            qkv_bias: false,
            max_position: 512,
            bos: None,
            eos: Vec::new(),
            dtype: Dtype::F32,
        }
    }
}

impl ModelConfig {
    /// Width of the concatenated query heads.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of the concatenated key (or value) heads.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// One over the root of the head's width.
    pub fn plain_scale(head_dim: usize) -> f32 {
        1.0 / (head_dim as f32).sqrt()
    }

    /// `(out, in)` of a linear layer by its suffix (`q_proj` ... `down_proj`).
    pub fn linear_shape(&self, suffix: &str) -> Option<(usize, usize)> {
        match suffix {
            "q_proj" => Some((self.query_width(), self.hidden)),
            "k_proj" | "v_proj" => Some((self.kv_width(), self.hidden)),
            "o_proj" => Some((self.hidden, self.query_width())),
            "gate_proj" | "up_proj" => Some((self.intermediate, self.hidden)),
            "down_proj" => Some((self.hidden, self.intermediate)),
            _ => None,
        }
    }

    /// Checks what no single key can show.
    fn checked(self) -> Result<Self> {
        let positive = [
            ("vocab_size", self.vocab),
            ("hidden_size", self.hidden),
            ("intermediate_size", self.intermediate),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
        ];
        let broken = "the model's config is broken: fetch it again";
        if let Some((key, value)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(Error::unsupported(key, value, broken));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(Error::shape(
                "`num_attention_heads`",
                format!("a multiple of {}", self.kv_heads),
                self.heads,
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(Error::unsupported(
                "head_dim",
                self.head_dim,
                "rotary embedding needs an even head width",
            ));
        }
        if self.attention.iter().any(|layer| layer.window == Some(0)) {
            return Err(Error::unsupported("sliding_window", 0, broken));
        }
        if self.attention.len() != self.layers {
            return Err(Error::shape(
                "`layer_types`",
                format!("one for each of {} layers", self.layers),
                self.attention.len(),
            ));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_a_shape_that_is_read_as_well() {
        let plain = ModelConfig::default();
        assert_eq!(plain.clone().checked().unwrap(), plain);
        assert_eq!(plain.query_width(), plain.hidden);
    }
}
