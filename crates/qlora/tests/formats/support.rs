//! Golden files, small GGUF files and a small tokenizer for the tests.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use candle_core::quantized::QTensor;
use candle_core::quantized::gguf_file::{self, Value};
use qlora::Tokenizer;
use safetensors::SafeTensors;
use serde_json::json;

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

pub(crate) fn json_file(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A safetensors file in memory, tensors by name.
pub(crate) struct Golden(Vec<u8>);

impl Golden {
    pub(crate) fn open(name: &str) -> Self {
        Self(std::fs::read(golden(name)).unwrap())
    }

    pub(crate) fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    /// Raw bytes and type, where the tensor is there.
    pub(crate) fn raw(&self, name: &str) -> Option<(safetensors::Dtype, &[u8])> {
        self.tensors()
            .tensor(name)
            .ok()
            .map(|view| (view.dtype(), view.data()))
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let (dtype, bytes) = self.raw(name).unwrap_or_else(|| panic!("no tensor {name}"));
        let dtype = match dtype {
            safetensors::Dtype::F32 => qlora::Dtype::F32,
            safetensors::Dtype::BF16 => qlora::Dtype::Bf16,
            other => panic!("{name} is {other:?}"),
        };
        dtype.decode(bytes)
    }
}

/// Writes a GGUF file with candle's writer.
pub(crate) fn write_gguf(path: &Path, metadata: &[(&str, Value)], tensors: &[(&str, QTensor)]) {
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors
        .iter()
        .map(|(name, tensor)| (*name, tensor))
        .collect();
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();
    std::fs::write(path, file.into_inner()).unwrap();
}

pub(crate) fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> Value {
    Value::Array(
        values
            .into_iter()
            .map(|text| Value::String(text.to_string()))
            .collect(),
    )
}

/// GPT-2's printable stand-ins for the 256 bytes, in byte order.
pub(crate) fn byte_alphabet() -> Vec<String> {
    let plain = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut next = 256;
    (0..256)
        .map(|byte| {
            if plain(byte) {
                return char::from_u32(byte).unwrap().to_string();
            }
            next += 1;
            char::from_u32(next - 1).unwrap().to_string()
        })
        .collect()
}

/// A byte-level tokenizer without merges: id = byte, then the given special tokens.
pub(crate) fn byte_tokenizer(specials: &[&str]) -> Tokenizer {
    let alphabet = byte_alphabet();
    let names = alphabet
        .iter()
        .map(String::as_str)
        .chain(specials.iter().copied());
    let vocab: serde_json::Map<_, _> = names
        .enumerate()
        .map(|(id, name)| (name.to_string(), json!(id)))
        .collect();
    let added: Vec<_> = specials
        .iter()
        .enumerate()
        .map(|(at, name)| {
            json!({"id": 256 + at, "content": name, "special": true, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false})
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
    let root = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": []},
    });
    Tokenizer::from_json(root.to_string().as_bytes()).unwrap()
}
