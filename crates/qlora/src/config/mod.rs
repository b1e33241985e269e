//! What a decoder looks like, in numbers: read from a Hugging Face `config.json` or GGUF metadata.
//!
//! Promises that every setting which changes the maths is either in [`ModelConfig`] or was refused by
//! name. It must not know how weights are stored.

mod gguf;
mod hf;
mod hf_keys;

use crate::dtype::Dtype;
use crate::error::{Error, Result};

pub(crate) use gguf::from_gguf;
pub(crate) use hf::{eos_from_generation_config, from_hf};

/// A family of decoders. They differ in [`ModelConfig`]'s fields only, never in the order of the ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama 1 and 2, SmolLM2, TinyLlama.
    Llama,
    /// Mistral 7B and its kin.
    Mistral,
    /// Qwen2 and Qwen2.5: biases on q, k and v.
    Qwen2,
}

impl Architecture {
    /// The `model_type` that transformers gives it.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
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
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// Added to the mean square in every norm.
    pub rms_eps: f32,
    /// The head is the embedding.
    pub tie_embeddings: bool,
    /// Biases on the q, k and v projections.
    pub qkv_bias: bool,
    /// A position sees itself and `window - 1` before it; none means all.
    pub sliding_window: Option<usize>,
    /// Longest sequence that the model was made for.
    pub max_position: usize,
    pub bos: Option<u32>,
    /// Every id that ends an answer, in the file's order.
    pub eos: Vec<u32>,
    /// The format of the stored weights.
    pub dtype: Dtype,
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
        if self.sliding_window == Some(0) {
            return Err(Error::unsupported("sliding_window", 0, broken));
        }
        Ok(self)
    }
}
