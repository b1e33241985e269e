//! The keys of a `config.json`: typed look-ups, and the lists of what is read, neutral or must hold a value.
//!
//! It must not know what the values mean to a decoder. A key that only some families have is read for
//! those and unknown to the others, as in transformers.

use serde_json::{Map, Value};

use super::Architecture;
use crate::error::{Error, Result};

/// Keys that say nothing about the forward pass (bookkeeping, generation defaults, training defaults).
const NEUTRAL: &[&str] = &[
    "architectures",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "cache_implementation",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
];

/// Keys that are read below.
const READ: &[&str] = &[
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_types",
    "max_position_embeddings",
    "max_window_layers",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "quantization_config",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "tie_word_embeddings",
    "torch_dtype",
    "use_sliding_window",
    "vocab_size",
];

/// Keys that are read for some families.
fn read_by(architecture: Architecture) -> &'static [&'static str] {
    match architecture {
        Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 | Architecture::Qwen3 => {
            &[]
        }
        Architecture::Gemma => &["hidden_activation"],
        Architecture::Gemma2 => &[
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "hidden_activation",
            "query_pre_attn_scalar",
        ],
        Architecture::Gemma3 => &[
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "hidden_activation",
            "query_pre_attn_scalar",
            "rope_local_base_freq",
            "sliding_window_pattern",
        ],
    }
}

/// Keys that must hold this value, which leaves the maths as it is here.
fn required(key: &str) -> Option<Value> {
    Some(match key {
        "attention_bias"
        | "mlp_bias"
        | "rope_interleaved"
        | "add_cross_attention"
        | "is_encoder_decoder"
        | "tie_encoder_decoder"
        | "cross_attention_hidden_size"
        | "use_bidirectional_attention"
        | "use_qk_norm" => Value::Bool(false),
        "pretraining_tp" => 1.into(),
        "attention_dropout" | "chunk_size_feed_forward" => 0.0.into(),
        "pruned_heads" => Value::Object(Map::new()),
        "partial_rotary_factor" => 1.0.into(),
        _ => return None,
    })
}

/// The keys of a config; a null counts as absent.
pub(super) struct Keys<'a> {
    map: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(root: &'a Value) -> Result<Self> {
        let map = root
            .as_object()
            .ok_or_else(|| Error::unsupported("config.json", root, "it must be an object"))?;
        Ok(Self { map })
    }

    /// The key is there, be it null.
    pub(super) fn names(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn missing(key: &str) -> Error {
        Error::unsupported(
            key,
            "absent",
            "the model's config.json lacks it: fetch it again",
        )
    }

    pub(super) fn refuse_unknown(&self, architecture: Architecture) -> Result<()> {
        let own = read_by(architecture);
        for (key, value) in self.map.iter().filter(|(_, value)| !value.is_null()) {
            if key.starts_with('_')
                || NEUTRAL.contains(&key.as_str())
                || READ.contains(&key.as_str())
                || own.contains(&key.as_str())
            {
                continue;
            }
            let same = |wanted: &Value| match (wanted.as_f64(), value.as_f64()) {
                (Some(wanted), Some(value)) => wanted == value,
                _ => wanted == value,
            };
            match required(key) {
                Some(wanted) if same(&wanted) => {}
                Some(wanted) => {
                    return Err(Error::unsupported(
                        key,
                        value,
                        format!("use a model where `{key}` is {wanted}"),
                    ));
                }
                None => {
                    return Err(Error::unsupported(
                        key,
                        value,
                        "it may change what the model computes and is not known here: use another model, or report it",
                    ));
                }
            }
        }
        Ok(())
    }

    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        self.get(key)
            .map(|value| {
                value
                    .as_u64()
                    .and_then(|size| usize::try_from(size).ok())
                    .ok_or_else(|| Error::unsupported(key, value, "it must be a whole number"))
            })
            .transpose()
    }

    pub(super) fn size(&self, key: &str) -> Result<usize> {
        self.optional_size(key)?.ok_or_else(|| Self::missing(key))
    }

    /// A size, or what the family's class assumes.
    pub(super) fn size_or(&self, key: &str, class: Option<usize>) -> Result<usize> {
        self.optional_size(key)?
            .or(class)
            .ok_or_else(|| Self::missing(key))
    }

    pub(super) fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        self.get(key)
            .map(|value| {
                value
                    .as_f64()
                    .ok_or_else(|| Error::unsupported(key, value, "it must be a number"))
            })
            .transpose()
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.get(key)
            .map(|value| {
                value
                    .as_bool()
                    .ok_or_else(|| Error::unsupported(key, value, "it must be true or false"))
            })
            .transpose()
    }
}
