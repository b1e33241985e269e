//! GGUF metadata (`llama.*`, `qwen2.*`, `qwen3.*`, `gemma.*`) to [`ModelConfig`].
//!
//! Keys of the architecture's own name space are read, known to be neutral, or refused by name.

use super::{Activation, Architecture, LayerAttention, ModelConfig, Rope, RopeScaling};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::weights::gguf::{Gguf, Value};

/// Reads the header of an opened GGUF file.
pub(crate) fn from_gguf(gguf: &Gguf) -> Result<ModelConfig> {
    let name = gguf.text("general.architecture").unwrap_or("absent");
    let architecture = match name {
        "llama" => Architecture::Llama,
        "qwen2" => Architecture::Qwen2,
        "qwen3" => Architecture::Qwen3,
        "gemma" => Architecture::Gemma,
        other => {
            return Err(Error::unsupported(
                "general.architecture",
                other,
                "use a llama, qwen2, qwen3 or gemma GGUF, or the model's safetensors",
            ));
        }
    };
    refuse_unknown(gguf, name)?;
    let heads = size(gguf, name, "attention.head_count")?;
    let hidden = size(gguf, name, "embedding_length")?;
    let layers = size(gguf, name, "block_count")?;
    let head_dim = head_dim(gguf, name, hidden, heads)?;
    let layer = LayerAttention {
        window: optional_size(gguf, name, "attention.sliding_window")?,
        rope: rope(gguf, name)?,
    };
    let gemma = architecture.is_gemma();
    let config = ModelConfig {
        architecture,
        vocab: embedding_rows(gguf)?,
        hidden,
        intermediate: size(gguf, name, "feed_forward_length")?,
        layers,
        heads,
        kv_heads: optional_size(gguf, name, "attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        attention: vec![layer; layers],
        attention_scale: ModelConfig::plain_scale(head_dim),
        attention_softcap: None,
        logit_softcap: None,
        activation: if gemma {
            Activation::GeluTanh
        } else {
            Activation::Silu
        },
        rms_eps: number(gguf, name, "attention.layer_norm_rms_epsilon")?
            .ok_or_else(|| missing(&format!("{name}.attention.layer_norm_rms_epsilon")))?
            as f32,
        // llama.cpp's converter has added Gemma's one already.
        norm_offset: 0.0,
        qk_norm: architecture.has_qk_norm(),
        post_norms: architecture.has_post_norms(),
        embedding_scale: if gemma { (hidden as f32).sqrt() } else { 1.0 },
        tie_embeddings: gguf.tensor("output.weight").is_none(),
        qkv_bias: architecture == Architecture::Qwen2,
        max_position: size(gguf, name, "context_length")?,
        bos: gguf.id("tokenizer.ggml.bos_token_id"),
        eos: gguf
            .id("tokenizer.ggml.eos_token_id")
            .into_iter()
            .chain(gguf.id("tokenizer.ggml.eot_token_id"))
            .fold(Vec::new(), |mut ids, id| {
                if !ids.contains(&id) {
                    ids.push(id);
                }
                ids
            }),
        dtype: Dtype::F32,
    };
    config.checked()
}

/// Plain or linearly scaled angles; YaRN and Llama 3's factors are refused.
fn rope(gguf: &Gguf, name: &str) -> Result<Rope> {
    let theta = number(gguf, name, "rope.freq_base")?.unwrap_or(10_000.0);
    let kind = gguf
        .get(&format!("{name}.rope.scaling.type"))
        .and_then(Value::as_text);
    let factor = number(gguf, name, "rope.scaling.factor")?;
    let scaling = match (kind, factor) {
        (Some("linear"), Some(factor)) => RopeScaling::Linear { factor },
        _ => RopeScaling::None,
    };
    Ok(Rope { theta, scaling })
}

/// Keys of the architecture that are read or change nothing. Quantized files come without a dtype:
/// their values are f32 once dequantized.
fn refuse_unknown(gguf: &Gguf, name: &str) -> Result<()> {
    let kind = gguf.get(&format!("{name}.rope.scaling.type"));
    let linear = kind.and_then(Value::as_text) == Some("linear");
    for (key, value) in gguf.metadata() {
        let Some(rest) = key
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('.'))
        else {
            continue;
        };
        let fine = match rest {
            "block_count"
            | "context_length"
            | "embedding_length"
            | "feed_forward_length"
            | "attention.head_count"
            | "attention.head_count_kv"
            | "attention.layer_norm_rms_epsilon"
            | "attention.sliding_window"
            | "attention.key_length"
            | "attention.value_length"
            | "rope.dimension_count"
            | "rope.freq_base"
            | "vocab_size" => true,
            "rope.scaling.type" => matches!(value.as_text(), Some("none" | "linear")),
            "rope.scaling.factor" => value.as_f64() == Some(1.0) || linear,
            "rope.scale_linear" => value.as_f64() == Some(1.0),
            "expert_count" | "expert_used_count" => value.as_f64() == Some(0.0),
            "attention.causal" => matches!(value, Value::Bool(true)),
            _ => false,
        };
        if !fine {
            return Err(Error::unsupported(
                key,
                value.short(),
                "use a GGUF of a plain llama, mistral, qwen or gemma model",
            ));
        }
    }
    match gguf.tensor("rope_freqs.weight") {
        Some(_) => Err(Error::unsupported(
            "rope_freqs.weight",
            "present",
            "use a model without rope scaling",
        )),
        None => Ok(()),
    }
}

fn head_dim(gguf: &Gguf, name: &str, hidden: usize, heads: usize) -> Result<usize> {
    let plain = hidden.checked_div(heads).unwrap_or(0);
    let head_dim = optional_size(gguf, name, "attention.key_length")?.unwrap_or(plain);
    for key in ["attention.value_length", "rope.dimension_count"] {
        match optional_size(gguf, name, key)? {
            Some(other) if other != head_dim => {
                return Err(Error::unsupported(
                    format!("{name}.{key}"),
                    other,
                    format!("only {head_dim} fits here"),
                ));
            }
            _ => {}
        }
    }
    Ok(head_dim)
}

fn embedding_rows(gguf: &Gguf) -> Result<usize> {
    let info = gguf
        .tensor("token_embd.weight")
        .ok_or_else(|| missing("token_embd.weight"))?;
    Ok(info.shape[0])
}

fn missing(key: &str) -> Error {
    Error::unsupported(
        key,
        "absent",
        "the GGUF file is not a whole model: fetch it again",
    )
}

fn optional_size(gguf: &Gguf, name: &str, key: &str) -> Result<Option<usize>> {
    let key = format!("{name}.{key}");
    gguf.get(&key)
        .map(|value| {
            value.as_usize().ok_or_else(|| {
                Error::unsupported(&key, value.short(), "it must be one whole number")
            })
        })
        .transpose()
}

fn size(gguf: &Gguf, name: &str, key: &str) -> Result<usize> {
    optional_size(gguf, name, key)?.ok_or_else(|| missing(&format!("{name}.{key}")))
}

fn number(gguf: &Gguf, name: &str, key: &str) -> Result<Option<f64>> {
    let key = format!("{name}.{key}");
    gguf.get(&key)
        .map(|value| {
            value
                .as_f64()
                .ok_or_else(|| Error::unsupported(&key, value.short(), "it must be a number"))
        })
        .transpose()
}
