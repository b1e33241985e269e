//! What the service can serve: its limits, and the shapes of the bases that were made for
//! adapters.
//!
//! Limits: Workers AI documentation, 2026 (rank up to 32, below 300 MB, 100 adapters, not
//! quantized). Whether the 300 MB are decimal, or per file, is not stated; the stricter
//! reading is used. Shapes: the `config.json` of each base.

/// The highest rank that is served.
pub(super) const MOST_RANK: u64 = 32;

/// Both files together stay below this many bytes.
pub(super) const MOST_BYTES: u64 = 300_000_000;

/// Values of `model_type` that the service knows.
pub(super) const MODEL_TYPES: [&str; 3] = ["mistral", "gemma", "llama"];

/// The shape of a base.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) model: &'static str,
    pub(super) model_type: &'static str,
    pub(super) layers: u64,
    /// Width of the residual stream.
    pub(super) hidden: u64,
    /// Query heads times head size.
    pub(super) query: u64,
    /// Key-value heads times head size.
    pub(super) key: u64,
    /// Width of the feed-forward layer.
    pub(super) ffn: u64,
}

const BASES: [Base; 4] = [
    Base {
        model: "@cf/mistral/mistral-7b-instruct-v0.2-lora",
        model_type: "mistral",
        layers: 32,
        hidden: 4096,
        query: 4096,
        key: 1024,
        ffn: 14336,
    },
    Base {
        model: "@cf/meta-llama/llama-2-7b-chat-hf-lora",
        model_type: "llama",
        layers: 32,
        hidden: 4096,
        query: 4096,
        key: 4096,
        ffn: 11008,
    },
    Base {
        model: "@cf/google/gemma-2b-it-lora",
        model_type: "gemma",
        layers: 18,
        hidden: 2048,
        query: 2048,
        key: 256,
        ffn: 16384,
    },
    Base {
        model: "@cf/google/gemma-7b-it-lora",
        model_type: "gemma",
        layers: 28,
        hidden: 3072,
        query: 4096,
        key: 4096,
        ffn: 24576,
    },
];

/// The base behind a model id, when it is one we know; any other is left to the service.
pub(super) fn base(model: &str) -> Option<&'static Base> {
    BASES.iter().find(|base| base.model == model)
}

/// The `model_type` an adapter for `model` must state.
pub(super) fn model_type(model: &str) -> Option<&'static str> {
    if let Some(base) = base(model) {
        return Some(base.model_type);
    }
    let lower = model.to_ascii_lowercase();
    MODEL_TYPES.into_iter().find(|name| lower.contains(name))
}

impl Base {
    /// Input and output width of a linear layer, by its suffix.
    pub(super) fn widths(&self, suffix: &str) -> Option<(u64, u64)> {
        Some(match suffix {
            "q_proj" => (self.hidden, self.query),
            "k_proj" | "v_proj" => (self.hidden, self.key),
            "o_proj" => (self.query, self.hidden),
            "gate_proj" | "up_proj" => (self.hidden, self.ffn),
            "down_proj" => (self.ffn, self.hidden),
            _ => return None,
        })
    }
}
