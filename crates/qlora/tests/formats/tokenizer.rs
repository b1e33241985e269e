//! Tokenizers: Mistral's from its `tokenizer.json` and from SentencePiece scores in a GGUF, byte-level
//! ones from GGUF metadata.

use candle_core::quantized::gguf_file::Value;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use qlora::{ModelFiles, Tokenizer};

use crate::support::{byte_alphabet, byte_tokenizer, golden, json_file, texts, write_gguf};

fn ids(value: &serde_json::Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}

/// A GGUF file that holds a tokenizer and one tensor, opened.
fn open(tokenizer: Vec<(&str, Value)>) -> Result<Tokenizer, qlora::Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut metadata = vec![
        ("general.architecture", Value::String("llama".into())),
        ("llama.block_count", Value::U32(1)),
        ("llama.context_length", Value::U32(8)),
        ("llama.embedding_length", Value::U32(2)),
        ("llama.feed_forward_length", Value::U32(2)),
        ("llama.attention.head_count", Value::U32(1)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
    ];
    metadata.extend(tokenizer);
    let embedding = Tensor::zeros((1, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    write_gguf(
        &path,
        &metadata,
        &[(
            "token_embd.weight",
            QTensor::quantize(&embedding, GgmlDType::F32).unwrap(),
        )],
    );
    ModelFiles::open(&path).unwrap().tokenizer()
}

fn mistral() -> Tokenizer {
    Tokenizer::from_folder(&golden("mistral-v1-tokenizer")).unwrap()
}

#[test]
fn mistrals_own_cases_are_met() {
    let tokenizer = mistral();
    let cases = json_file(&golden("mistral-v1-tokenizer/mistral_v1_tokens.json"));
    for case in cases["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        assert_eq!(
            tokenizer.encode(text).unwrap(),
            ids(&case["ids"]),
            "{text:?}"
        );
        assert_eq!(tokenizer.decode(&ids(&case["ids"])).unwrap(), text);
    }
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.vocab_size()),
        (Some("<s>"), Some("</s>"), 32000)
    );
}

/// Mistral's pieces with scores, as a llama.cpp conversion holds them, tokenize as `tokenizer.json` does.
#[test]
fn pieces_and_scores_of_a_gguf_tokenize_as_the_original() {
    let root = json_file(&golden("mistral-v1-tokenizer/tokenizer.json"));
    let mut pieces = vec![String::new(); 32000];
    for (piece, id) in root["model"]["vocab"].as_object().unwrap() {
        pieces[id.as_u64().unwrap() as usize].clone_from(piece);
    }
    // As in tokenizer.model.v1: ids 0..259 are <unk>, controls and bytes; after them a piece's score is
    // minus its rank, and runs of spaces come last of all.
    let score = |id: usize| match id {
        0..259 => 0.0,
        _ if pieces[id].chars().all(|c| c == '▁') => -1e9,
        _ => -(id as f32 - 259.0),
    };
    let kind = |id: usize| match id {
        0 => 2,
        1 | 2 => 3,
        3..259 => 6,
        _ => 1,
    };
    let rebuilt = open(vec![
        ("tokenizer.ggml.model", Value::String("llama".into())),
        (
            "tokenizer.ggml.tokens",
            texts(pieces.iter().map(String::as_str)),
        ),
        (
            "tokenizer.ggml.scores",
            Value::Array((0..32000).map(|id| Value::F32(score(id))).collect()),
        ),
        (
            "tokenizer.ggml.token_type",
            Value::Array((0..32000).map(|id| Value::I32(kind(id))).collect()),
        ),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
    ])
    .unwrap();
    let merges = serde_json::from_str::<serde_json::Value>(&rebuilt.to_json().unwrap()).unwrap()["model"]["merges"].take();
    assert!(merges == root["model"]["merges"], "the merges differ");
    let original = mistral();
    for row in json_file(&golden("mistral-v1-tokenizer/fixtures_single_turn.json"))
        .as_array()
        .unwrap()
    {
        let text = row["user"].as_str().unwrap();
        let ids = rebuilt.encode(text).unwrap();
        assert_eq!(ids, original.encode(text).unwrap(), "{text:?}");
        assert_eq!(
            rebuilt.decode(&ids).unwrap(),
            original.decode(&ids).unwrap()
        );
    }
    assert_eq!((rebuilt.bos(), rebuilt.eos()), (Some("<s>"), Some("</s>")));
}

/// Bytes, the merge "12" and two special tokens, under each pre-tokenizer name.
#[test]
fn llama_cpps_pre_tokenizer_names_cut_as_they_should() {
    let alphabet = byte_alphabet();
    let tokens = || {
        texts(
            alphabet
                .iter()
                .map(String::as_str)
                .chain(["12", "<|end|>", "Ġa"]),
        )
    };
    let types = Value::Array(
        (0..259)
            .map(|id| Value::I32(if id == 257 { 3 } else { 1 }))
            .collect(),
    );
    let build = |pre: &str| {
        open(vec![
            ("tokenizer.ggml.model", Value::String("gpt2".into())),
            ("tokenizer.ggml.pre", Value::String(pre.into())),
            ("tokenizer.ggml.tokens", tokens()),
            ("tokenizer.ggml.token_type", types.clone()),
            ("tokenizer.ggml.merges", texts(["1 2", "Ġ a"])),
        ])
    };
    // SmolLM takes digits one by one; GPT-2 joins them.
    assert_eq!(
        build("smollm").unwrap().encode("12 a").unwrap(),
        [49, 50, 258]
    );
    assert_eq!(build("gpt-2").unwrap().encode("12 a").unwrap(), [256, 258]);
    assert_eq!(
        build("llama-bpe").unwrap().encode("12 a").unwrap(),
        [256, 258]
    );
    assert_eq!(
        build("qwen2").unwrap().encode("12 a").unwrap(),
        [49, 50, 258]
    );
    let tokenizer = build("smollm").unwrap();
    assert_eq!(tokenizer.specials(), [("<|end|>".to_string(), 257)]);
    let error = build("whatever").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`tokenizer.ggml.pre: whatever` is not supported"
    );
}

#[test]
fn special_tokens_in_content_stay_text() {
    let tokenizer = byte_tokenizer(&["<|end|>"]);
    assert_eq!(
        tokenizer.encode("<|end|>").unwrap(),
        b"<|end|>".map(u32::from)
    );
    assert_eq!(
        tokenizer.encode_with_specials("a<|end|>").unwrap(),
        [97, 256]
    );
    assert_eq!(tokenizer.decode(&[97, 256]).unwrap(), "a");
    assert_eq!(
        tokenizer.decode_with_specials(&[97, 256]).unwrap(),
        "a<|end|>"
    );
    assert_eq!(
        (
            tokenizer.token_id("<|end|>"),
            tokenizer.token(256).as_deref()
        ),
        (Some(256), Some("<|end|>"))
    );
}

#[test]
fn a_folder_without_a_tokenizer_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let error = Tokenizer::from_folder(folder.path()).unwrap_err();
    assert!(error.to_string().ends_with("there is no tokenizer.json"));
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert_eq!(
        Tokenizer::from_folder(folder.path()).unwrap_err().code(),
        "qlora::format"
    );
}

#[test]
fn a_folders_side_files_are_copied_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(
            golden("peft-refs/tiny_f32").join(file),
            folder.path().join(file),
        )
        .unwrap();
    }
    std::fs::write(folder.path().join("tokenizer.json"), "{ }").unwrap();
    let files = ModelFiles::open(folder.path())
        .unwrap()
        .tokenizer_files()
        .unwrap();
    assert_eq!(files, [("tokenizer.json".to_string(), b"{ }".to_vec())]);
}
