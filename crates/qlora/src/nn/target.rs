//! The linear layers of a decoder that can carry an adapter, and which of them read the same input.

use serde::{Deserialize, Serialize};

use crate::config::ModelConfig;

/// A linear layer of the decoder that can carry an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl Target {
    /// Every linear layer, in the decoder's order.
    pub const ALL: [Self; 7] = [
        Self::Q,
        Self::K,
        Self::V,
        Self::O,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    /// The layer's name in Hugging Face models, as PEFT's `target_modules` writes it.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The module's path inside a decoder layer, such as `self_attn.q_proj`.
    pub fn path(self) -> &'static str {
        match self {
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::O => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// The module's path in a Hugging Face model, such as `model.layers.0.self_attn.q_proj`.
    pub fn module(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}", self.path())
    }

    /// The target with this [`Target::suffix`].
    pub fn from_suffix(suffix: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|target| target.suffix() == suffix)
    }

    /// `(out, in)` of the frozen weight.
    pub fn shape(self, config: &ModelConfig) -> (usize, usize) {
        config
            .linear_shape(self.suffix())
            .expect("every target is a linear layer of the decoder")
    }
}

/// Linear layers that read the same input, and so share one product and one dropout mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    Qkv,
    Output,
    GateUp,
    Down,
}

impl Site {
    pub(crate) const ALL: [Self; 4] = [Self::Qkv, Self::Output, Self::GateUp, Self::Down];

    pub(crate) fn targets(self) -> &'static [Target] {
        match self {
            Self::Qkv => &[Target::Q, Target::K, Target::V],
            Self::Output => &[Target::O],
            Self::GateUp => &[Target::Gate, Target::Up],
            Self::Down => &[Target::Down],
        }
    }
}
