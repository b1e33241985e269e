//! `config.json` of Hugging Face transformers, old and new spellings, to [`ModelConfig`].
//!
//! A key is read, known to leave the maths alone, or refused by name: never ignored because unknown.

use serde_json::Value;

use super::hf_keys::Keys;
use super::hf_layers::windows;
use super::hf_rope::ropes;
use super::{Activation, Architecture, LayerAttention, ModelConfig};
use crate::dtype::Dtype;
use crate::error::{Error, Result};

/// Reads the text of a `config.json`.
pub(crate) fn from_hf(root: &Value) -> Result<ModelConfig> {
    let text = (root.get("model_type").and_then(Value::as_str) == Some("gemma3"))
        .then(|| text_part(root))
        .flatten();
    let keys = Keys::new(text.as_ref().unwrap_or(root))?;
    let architecture = architecture(&keys)?;
    keys.refuse_unknown(architecture)?;
    check_quantization(&keys)?;
    let class = Defaults::of(architecture);
    let heads = keys.size_or("num_attention_heads", class.heads)?;
    let hidden = keys.size("hidden_size")?;
    let kv_heads = match (keys.optional_size("num_key_value_heads")?, architecture) {
        (Some(kv_heads), _) => kv_heads,
        (None, Architecture::Llama) => heads,
        (None, _) => class
            .kv_heads
            .ok_or_else(|| Keys::missing("num_key_value_heads"))?,
    };
    let head_dim = match keys.optional_size("head_dim")?.or(class.head_dim) {
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
    let layers = keys.size("num_hidden_layers")?;
    let ropes = ropes(&keys, architecture)?;
    let attention = windows(&keys, architecture, layers)?
        .into_iter()
        .map(|window| LayerAttention {
            window,
            rope: if window.is_some() {
                ropes.local
            } else {
                ropes.full
            },
        })
        .collect();
    let dtype = dtype(&keys)?;
    let gemma = architecture.is_gemma();
    let config = ModelConfig {
        architecture,
        vocab: keys.size_or("vocab_size", class.vocab)?,
        hidden,
        intermediate: keys.size("intermediate_size")?,
        layers,
        heads,
        kv_heads,
        head_dim,
        attention,
        attention_scale: attention_scale(&keys, architecture, head_dim)?,
        attention_softcap: softcap(&keys, "attn_logit_softcapping", architecture, 50.0)?,
        logit_softcap: softcap(&keys, "final_logit_softcapping", architecture, 30.0)?,
        activation: activation(&keys, architecture)?,
        rms_eps: keys.optional_number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        norm_offset: if gemma { 1.0 } else { 0.0 },
        qk_norm: architecture.has_qk_norm(),
        post_norms: architecture.has_post_norms(),
        // transformers holds the factor in the model's own format: sqrt(3072) is 55.5 in bfloat16.
        embedding_scale: if gemma {
            dtype.round((hidden as f32).sqrt())
        } else {
            1.0
        },
        tie_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(gemma),
        qkv_bias: architecture == Architecture::Qwen2,
        max_position: keys
            .optional_size("max_position_embeddings")?
            .unwrap_or(2048),
        bos: keys.get("bos_token_id").and_then(token_id),
        eos: keys.get("eos_token_id").map(token_ids).unwrap_or_default(),
        dtype,
    };
    config.checked()
}

/// What transformers' classes assume where a file is silent. Only Gemma 3's files leave shapes out.
#[derive(Default)]
struct Defaults {
    vocab: Option<usize>,
    heads: Option<usize>,
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
}

impl Defaults {
    fn of(architecture: Architecture) -> Self {
        match architecture {
            Architecture::Gemma3 => Self {
                vocab: Some(262_208),
                heads: Some(8),
                kv_heads: Some(4),
                head_dim: Some(256),
            },
            Architecture::Gemma | Architecture::Gemma2 => Self {
                head_dim: Some(256),
                ..Self::default()
            },
            Architecture::Qwen3 => Self {
                head_dim: Some(128),
                ..Self::default()
            },
            _ => Self::default(),
        }
    }
}

/// The text part of a model that also sees: its own settings, with the ids that end an answer and the
/// format of the whole.
fn text_part(root: &Value) -> Option<Value> {
    let mut text = root.get("text_config")?.as_object()?.clone();
    for key in [
        "bos_token_id",
        "eos_token_id",
        "dtype",
        "torch_dtype",
        "quantization_config",
        "tie_word_embeddings",
    ] {
        let inherited = root.get(key).filter(|value| !value.is_null());
        if let (Some(value), None) = (inherited, text.get(key).filter(|v| !v.is_null())) {
            text.insert(key.to_owned(), value.clone());
        }
    }
    Some(Value::Object(text))
}

fn attention_scale(keys: &Keys, architecture: Architecture, head_dim: usize) -> Result<f32> {
    if !architecture.has_post_norms() {
        return Ok(ModelConfig::plain_scale(head_dim));
    }
    let scalar = keys
        .optional_number("query_pre_attn_scalar")?
        .unwrap_or(256.0);
    if scalar > 0.0 {
        Ok(scalar.powf(-0.5) as f32)
    } else {
        Err(Error::unsupported(
            "query_pre_attn_scalar",
            scalar,
            "it must be a positive number",
        ))
    }
}

/// A cap of Gemma 2, whose class has one by default, or of Gemma 3, whose attention ignores its own.
fn softcap(
    keys: &Keys,
    key: &str,
    architecture: Architecture,
    default: f64,
) -> Result<Option<f32>> {
    let cap = match (architecture, keys.optional_number(key)?) {
        (Architecture::Gemma2, None) if !keys.names(key) => Some(default),
        (Architecture::Gemma3, Some(cap)) if key == "attn_logit_softcapping" => {
            let mend = "transformers ignores it in gemma3: use a model without it";
            return Err(Error::unsupported(key, cap, mend));
        }
        (_, cap) => cap,
    };
    match cap {
        Some(cap) if cap.is_nan() || cap <= 0.0 => {
            Err(Error::unsupported(key, cap, "it must be a positive number"))
        }
        cap => Ok(cap.map(|cap| cap as f32)),
    }
}

/// Early Gemma files say `gelu` where the tanh form is meant; transformers reads them so.
fn activation(keys: &Keys, architecture: Architecture) -> Result<Activation> {
    let gemma = architecture.is_gemma();
    let key = if keys.get("hidden_activation").is_some() {
        "hidden_activation"
    } else {
        "hidden_act"
    };
    match keys.get(key).map(|value| value.as_str()) {
        None if gemma => Ok(Activation::GeluTanh),
        None | Some(Some("silu" | "swish")) => Ok(Activation::Silu),
        Some(Some("gelu_pytorch_tanh")) => Ok(Activation::GeluTanh),
        Some(Some("gelu")) if gemma => Ok(Activation::GeluTanh),
        Some(other) => Err(Error::unsupported(
            key,
            other.unwrap_or("not a name"),
            "use a model with silu or gelu_pytorch_tanh",
        )),
    }
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
        "qwen3" => Ok(Architecture::Qwen3),
        "gemma" => Ok(Architecture::Gemma),
        "gemma2" => Ok(Architecture::Gemma2),
        "gemma3_text" => Ok(Architecture::Gemma3),
        other => Err(Error::unsupported(
            "model_type",
            other,
            "use a llama, mistral, qwen2, qwen3 or gemma model",
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
