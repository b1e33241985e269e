//! A `tokenizer.json` made of GGUF metadata: byte-level BPE (`gpt2`) and SentencePiece (`llama`).
//!
//! llama.cpp names a model's pre-tokenizer in one word; [`splits`] says what each word means.

use serde_json::{Value, json};

use super::spm;
use super::vocab::{Vocab, texts};
use crate::error::{Error, Result};
use crate::weights::gguf::Gguf;

/// The pattern of Llama 3 (GPT-2's own is part of the byte-level step); Qwen2's has one digit for three.
const CL100K: &str = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| \
                      ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/// The whole tokenizer in Hugging Face's form.
pub(super) fn tokenizer_json(gguf: &Gguf) -> Result<Value> {
    let vocab = Vocab::read(gguf)?;
    let kind = gguf.text("tokenizer.ggml.model").unwrap_or("absent");
    let mut root = match kind {
        "gpt2" => byte_level(gguf, &vocab)?,
        "llama" => spm::sentence_piece(gguf, &vocab)?,
        other => {
            return Err(Error::unsupported(
                "tokenizer.ggml.model",
                other,
                "use a model with a gpt2 or llama tokenizer",
            ));
        }
    };
    root["version"] = json!("1.0");
    root["added_tokens"] = vocab.added_tokens();
    Ok(root)
}

fn byte_level(gguf: &Gguf, vocab: &Vocab) -> Result<Value> {
    let merges = texts(gguf, "tokenizer.ggml.merges")?;
    let name = gguf.text("tokenizer.ggml.pre").unwrap_or("default");
    let pre = splits(name)?;
    let ignore_merges = name == "llama-bpe";
    let normalizer = if name == "qwen2" {
        json!({"type": "NFC"})
    } else {
        Value::Null
    };
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    Ok(json!({
        "normalizer": normalizer,
        "pre_tokenizer": pre,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignore_merges,
            "vocab": vocab.ids(), "merges": merges,
        },
    }))
}

/// What llama.cpp's `tokenizer.ggml.pre` stands for, in Hugging Face's pre-tokenizers.
fn splits(name: &str) -> Result<Value> {
    let byte_level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let split = |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let steps = match name {
        "gpt-2" | "gpt2" | "phi-2" | "jina-es" | "jina-de" | "gigachat" | "exaone" => {
            vec![byte_level(true)]
        }
        // Every digit stands alone, in SmolLM, StarCoder and their kin.
        "smollm" | "starcoder" | "refact" | "command-r" => {
            vec![
                json!({"type": "Digits", "individual_digits": true}),
                byte_level(true),
            ]
        }
        "llama-bpe" | "llama3" | "llama-v3" => vec![split(CL100K), byte_level(false)],
        "qwen2" | "stablelm2" => vec![split(&CL100K.replace("{1,3}", "")), byte_level(false)],
        other => {
            let mend = "use the model's safetensors with its tokenizer.json, or a GGUF that names its pre-tokenizer";
            return Err(Error::unsupported("tokenizer.ggml.pre", other, mend));
        }
    };
    Ok(json!({"type": "Sequence", "pretokenizers": steps}))
}
