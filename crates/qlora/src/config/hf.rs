//! `config.json` of Hugging Face transformers, old and new spellings, to [`ModelConfig`].
//!
//! A key is read, known to leave the maths alone, or refused by name: never ignored because unknown.

use serde_json::Value;

use super::hf_keys::Keys;
use super::{Architecture, ModelConfig};
use crate::dtype::Dtype;
use crate::error::{Error, Result};

/// Reads the text of a `config.json`.
pub(crate) fn from_hf(root: &Value) -> Result<ModelConfig> {
    let keys = Keys::new(root)?;
    let architecture = architecture(&keys)?;
    keys.refuse_unknown()?;
    keys.expect_silu()?;
    check_quantization(&keys)?;
    let heads = keys.size("num_attention_heads")?;
    let hidden = keys.size("hidden_size")?;
    let kv_heads = match (keys.optional_size("num_key_value_heads")?, architecture) {
        (Some(kv_heads), _) => kv_heads,
        (None, Architecture::Llama) => heads,
        (None, _) => return Err(Keys::missing("num_key_value_heads")),
    };
    let head_dim = match keys.optional_size("head_dim")? {
        Some(head_dim) => head_dim,
        None if heads > 0 && hidden % heads == 0 => hidden / heads,
        None => {
            return Err(Error::shape(
                "`hidden_size`",
                format!("a multiple of {heads} heads"),
                hidden,
            ));
        }
    };
    let config = ModelConfig {
        architecture,
        vocab: keys.size("vocab_size")?,
        hidden,
        intermediate: keys.size("intermediate_size")?,
        layers: keys.size("num_hidden_layers")?,
        heads,
        kv_heads,
        head_dim,
        rope_theta: rope_theta(&keys)?,
        rms_eps: keys.optional_number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        tie_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
        qkv_bias: architecture == Architecture::Qwen2,
        sliding_window: sliding_window(&keys, architecture)?,
        max_position: keys
            .optional_size("max_position_embeddings")?
            .unwrap_or(2048),
        bos: keys.get("bos_token_id").and_then(token_id),
        eos: keys.get("eos_token_id").map(token_ids).unwrap_or_default(),
        dtype: dtype(&keys)?,
    };
    config.checked()
}

/// The end-of-answer ids of a `generation_config.json`, which override the model's.
pub(crate) fn eos_from_generation_config(root: &Value) -> Vec<u32> {
    root.get("eos_token_id").map(token_ids).unwrap_or_default()
}

fn token_id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

fn token_ids(value: &Value) -> Vec<u32> {
    match value {
        Value::Array(ids) => ids.iter().filter_map(token_id).collect(),
        one => token_id(one).into_iter().collect(),
    }
}

fn architecture(keys: &Keys) -> Result<Architecture> {
    let name = keys
        .get("model_type")
        .and_then(Value::as_str)
        .unwrap_or("absent");
    match name {
        "llama" => Ok(Architecture::Llama),
        "mistral" => Ok(Architecture::Mistral),
        "qwen2" => Ok(Architecture::Qwen2),
        other => Err(Error::unsupported(
            "model_type",
            other,
            "use a llama, mistral or qwen2 model",
        )),
    }
}

fn dtype(keys: &Keys) -> Result<Dtype> {
    let key = if keys.get("dtype").is_some() {
        "dtype"
    } else {
        "torch_dtype"
    };
    let Some(value) = keys.get(key) else {
        return Ok(Dtype::F32);
    };
    value
        .as_str()
        .and_then(Dtype::from_torch)
        .ok_or_else(|| Error::unsupported(key, value, "use float32, float16 or bfloat16 weights"))
}

/// `rope_theta`, or `rope_parameters.rope_theta` since transformers 5; any scaling is refused.
fn rope_theta(keys: &Keys) -> Result<f64> {
    let mut theta = keys.optional_number("rope_theta")?;
    for key in ["rope_parameters", "rope_scaling"] {
        let Some(value) = keys.get(key) else { continue };
        let map = value
            .as_object()
            .ok_or_else(|| Error::unsupported(key, value, "it must be an object"))?;
        for (name, inner) in map {
            let refused = || {
                Error::unsupported(
                    format!("{key}.{name}"),
                    inner,
                    "use a model without rope scaling",
                )
            };
            match name.as_str() {
                "rope_type" | "type" if inner == "default" => {}
                "rope_theta" => theta = Some(inner.as_f64().ok_or_else(refused)?),
                "partial_rotary_factor" if inner.as_f64() == Some(1.0) => {}
                _ => return Err(refused()),
            }
        }
    }
    // 10000 is the class default of all three families, and what configs older than the key mean.
    let theta = theta.unwrap_or(10_000.0);
    if theta.is_finite() && theta > 0.0 {
        Ok(theta)
    } else {
        Err(Error::unsupported(
            "rope_theta",
            theta,
            "it must be a positive number",
        ))
    }
}

fn sliding_window(keys: &Keys, architecture: Architecture) -> Result<Option<usize>> {
    let window = keys.optional_size("sliding_window")?;
    let window = match architecture {
        // Not a key of Llama: transformers would ignore it without a word.
        Architecture::Llama => match window {
            Some(window) => {
                return Err(Error::unsupported(
                    "sliding_window",
                    window,
                    "use a mistral model for a window",
                ));
            }
            None => None,
        },
        // An absent key means transformers' class default; a null means none.
        Architecture::Mistral if !keys.names("sliding_window") => Some(4096),
        Architecture::Mistral => window,
        Architecture::Qwen2 => {
            if keys.flag("use_sliding_window")? == Some(true) {
                return Err(Error::unsupported(
                    "use_sliding_window",
                    true,
                    "use a model with full attention in all layers",
                ));
            }
            None
        }
    };
    let expected = if window.is_some() {
        "sliding_attention"
    } else {
        "full_attention"
    };
    let types = keys
        .get("layer_types")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    match types.iter().find(|kind| *kind != expected) {
        Some(kind) => Err(Error::unsupported(
            "layer_types",
            kind,
            "use a model whose layers are all alike",
        )),
        None => Ok(window),
    }
}

fn check_quantization(keys: &Keys) -> Result<()> {
    let Some(quantization) = keys.get("quantization_config") else {
        return Ok(());
    };
    let method = quantization
        .get("quant_method")
        .and_then(Value::as_str)
        .unwrap_or("absent");
    let mend = "use the 16-bit model, or a bitsandbytes nf4 one";
    if method != "bitsandbytes" {
        return Err(Error::unsupported(
            "quantization_config.quant_method",
            method,
            mend,
        ));
    }
    if quantization.get("load_in_8bit") == Some(&Value::Bool(true)) {
        return Err(Error::unsupported(
            "quantization_config.load_in_8bit",
            true,
            mend,
        ));
    }
    match quantization
        .get("bnb_4bit_quant_type")
        .and_then(Value::as_str)
    {
        Some("nf4") => Ok(()),
        other => Err(Error::unsupported(
            "quantization_config.bnb_4bit_quant_type",
            other.unwrap_or("fp4"),
            mend,
        )),
    }
}
