//! Which decoders the card can run: those whose layers are all alike and plain. Everything else that a
//! config can ask for is refused by its key, never ignored, and trains on the CPU.

use crate::config::{Activation, LayerAttention, ModelConfig};
use crate::error::{Error, Result};

const MEND: &str = "this is not on the GPU yet; train on the CPU";

/// # Errors
/// [`Error::Unsupported`] with the first key that the card does not know.
pub(super) fn check(config: &ModelConfig) -> Result<()> {
    let unknown = [
        (
            "hidden_activation",
            config.activation != Activation::Silu,
            "gelu_pytorch_tanh",
        ),
        ("norm weights", config.norm_offset != 0.0, "stored less 1"),
        ("qk norm", config.qk_norm, "true"),
        ("post norms", config.post_norms, "true"),
        (
            "embedding scale",
            config.embedding_scale != 1.0,
            "other than 1",
        ),
        (
            "attn_logit_softcapping",
            config.attention_softcap.is_some(),
            "set",
        ),
        (
            "final_logit_softcapping",
            config.logit_softcap.is_some(),
            "set",
        ),
        (
            "layer_types",
            config.attention.iter().any(|layer| layer != first(config)),
            "of several kinds",
        ),
    ];
    match unknown.into_iter().find(|(_, found, _)| *found) {
        Some((key, _, value)) => Err(Error::unsupported(key, value, MEND)),
        None => Ok(()),
    }
}

/// How every layer attends, once [`check`] has passed.
pub(super) fn first(config: &ModelConfig) -> &LayerAttention {
    &config.attention[0]
}
