//! GGUF files written by candle: block formats, names, rotary row order, refusals.

use std::path::Path;

use candle_core::quantized::gguf_file::Value;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use qlora::{Architecture, Error, ModelFiles};

use crate::support::write_gguf;

const HIDDEN: usize = 256;

/// Metadata of a two-head llama, keys as llama.cpp's converter writes them.
fn metadata() -> Vec<(&'static str, Value)> {
    vec![
        ("general.architecture", Value::String("llama".into())),
        ("llama.block_count", Value::U32(1)),
        ("llama.context_length", Value::U32(64)),
        ("llama.embedding_length", Value::U32(HIDDEN as u32)),
        ("llama.feed_forward_length", Value::U32(512)),
        ("llama.attention.head_count", Value::U32(2)),
        ("llama.attention.head_count_kv", Value::U32(1)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("llama.rope.freq_base", Value::F32(1e4)),
        ("llama.rope.dimension_count", Value::U32(128)),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
    ]
}

/// Values that no two rows share.
fn values(rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols)
        .map(|i| ((i * 7919 % 1009) as f32 - 504.0) / 512.0)
        .collect()
}

fn tensor(data: &[f32], rows: usize, kind: GgmlDType) -> QTensor {
    let shape = (rows, data.len() / rows);
    QTensor::quantize(
        &Tensor::from_slice(data, shape, &Device::Cpu).unwrap(),
        kind,
    )
    .unwrap()
}

/// `LlamaModel.permute` of llama.cpp's converter: heads, halves, pairs -> heads, pairs, halves.
fn permute(data: &[f32], heads: usize, cols: usize) -> Vec<f32> {
    let half = data.len() / cols / heads / 2;
    let mut stored = Vec::new();
    for head in 0..heads {
        for pair in 0..half {
            for side in 0..2 {
                let row = head * 2 * half + side * half + pair;
                stored.extend_from_slice(&data[row * cols..(row + 1) * cols]);
            }
        }
    }
    stored
}

fn write(path: &Path, metadata: &[(&str, Value)], kind: GgmlDType) {
    let q = permute(&values(256, HIDDEN), 2, HIDDEN);
    let k = permute(&values(128, HIDDEN), 1, HIDDEN);
    write_gguf(
        path,
        metadata,
        &[
            (
                "token_embd.weight",
                tensor(&values(8, HIDDEN), 8, GgmlDType::F32),
            ),
            ("blk.0.attn_q.weight", tensor(&q, 256, kind)),
            ("blk.0.attn_k.weight", tensor(&k, 128, kind)),
            (
                "blk.0.ffn_down.weight",
                tensor(&values(HIDDEN, 512), HIDDEN, kind),
            ),
        ],
    );
}

#[test]
fn every_block_format_comes_back_in_hugging_face_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for (kind, tolerance) in [
        (GgmlDType::F32, 0.0),
        (GgmlDType::F16, 5e-4),
        (GgmlDType::BF16, 4e-3),
        (GgmlDType::Q8_0, 8e-3),
        (GgmlDType::Q4_0, 0.13),
        (GgmlDType::Q4_1, 0.07),
        (GgmlDType::Q5_0, 0.07),
        (GgmlDType::Q5_1, 0.04),
        (GgmlDType::Q4K, 0.08),
        (GgmlDType::Q5K, 0.04),
        (GgmlDType::Q6K, 0.04),
    ] {
        write(&path, &metadata(), kind);
        let model = ModelFiles::open(&path).unwrap();
        for (name, rows, cols) in [
            ("model.layers.0.self_attn.q_proj.weight", 256, HIDDEN),
            ("model.layers.0.self_attn.k_proj.weight", 128, HIDDEN),
            ("model.layers.0.mlp.down_proj.weight", HIDDEN, 512),
        ] {
            let read = model.tensor(name).unwrap();
            assert_eq!((read.rows(), read.cols()), (rows, cols));
            let worst = read
                .data()
                .iter()
                .zip(values(rows, cols))
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(worst <= tolerance, "{kind:?} {name}: {worst}");
        }
    }
}

#[test]
fn the_shape_is_read_from_the_metadata() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &folder.path().join("model.gguf"),
        &metadata(),
        GgmlDType::F16,
    );
    // A folder with one GGUF file is that file.
    let model = ModelFiles::open(folder.path()).unwrap();
    let config = model.config().unwrap();
    assert_eq!(config.architecture, Architecture::Llama);
    assert_eq!(
        (
            config.vocab,
            config.hidden,
            config.intermediate,
            config.layers
        ),
        (8, 256, 512, 1)
    );
    assert_eq!(
        (config.heads, config.kv_heads, config.head_dim),
        (2, 1, 128)
    );
    assert_eq!(
        (config.bos, config.eos, config.tie_embeddings),
        (Some(1), vec![2], true)
    );
    assert_eq!(
        (
            config.attention[0].rope.theta,
            config.rms_eps,
            config.attention[0].window
        ),
        (1e4, 1e-5, None)
    );
    assert_eq!(
        model.names(),
        [
            "model.embed_tokens.weight",
            "model.layers.0.mlp.down_proj.weight",
            "model.layers.0.self_attn.k_proj.weight",
            "model.layers.0.self_attn.q_proj.weight",
        ]
    );
    assert_eq!(
        model.tensor("lm_head.weight").unwrap_err().code(),
        "qlora::missing-tensor"
    );
}

#[test]
fn what_changes_the_maths_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for (key, value, shown) in [
        (
            "general.architecture",
            Value::String("gemma2".into()),
            "`general.architecture: gemma2`",
        ),
        (
            "llama.rope.scaling.type",
            Value::String("yarn".into()),
            "`llama.rope.scaling.type: yarn`",
        ),
        (
            "llama.expert_count",
            Value::U32(8),
            "`llama.expert_count: 8`",
        ),
        (
            "llama.attn_logit_softcapping",
            Value::F32(50.0),
            "`llama.attn_logit_softcapping: 50`",
        ),
        (
            "llama.rope.dimension_count",
            Value::U32(64),
            "`llama.rope.dimension_count: 64`",
        ),
    ] {
        let mut metadata = metadata();
        metadata.retain(|(name, _)| *name != key);
        metadata.push((key, value));
        write(&path, &metadata, GgmlDType::F32);
        let error = ModelFiles::open(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("{shown} is not supported"));
        assert!(error.mend().is_some());
    }
}

#[test]
fn a_file_cut_anywhere_is_refused_and_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    write(&path, &metadata(), GgmlDType::Q8_0);
    let whole = std::fs::read(&path).unwrap();
    let header = 900.min(whole.len());
    for cut in (0..header).chain([whole.len() / 2, whole.len() - 40]) {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = ModelFiles::open(&path).unwrap_err();
        let Error::Truncated {
            expected, actual, ..
        } = &error
        else {
            panic!("{cut}: {error}")
        };
        assert!(
            *actual == cut as u64 && *expected > *actual && *expected <= whole.len() as u64,
            "{cut}: {error}"
        );
    }
    // Cut in the tensors, the header still knows the whole length.
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let Error::Truncated { expected, .. } = ModelFiles::open(&path).unwrap_err() else {
        panic!()
    };
    assert!(
        whole.len() as u64 - expected < 32,
        "{expected} of {}",
        whole.len()
    );
}

#[test]
fn bytes_that_are_no_gguf_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    write(&path, &metadata(), GgmlDType::F32);
    let whole = std::fs::read(&path).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut broken = whole.clone();
        broken[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(&path, broken).unwrap();
        ModelFiles::open(&path).unwrap_err()
    };
    assert!(
        with(0, b"GGML")
            .to_string()
            .ends_with("it does not start with the GGUF magic")
    );
    assert!(
        with(4, &[9])
            .to_string()
            .ends_with("GGUF version 9 is not 2 or 3")
    );
    // Absurd counts end in an error, not in an allocation: of tensors, of metadata, of a string's bytes.
    for at in [8, 16, 24] {
        let error = with(at, &[0xff; 8]);
        assert!(
            matches!(error.code(), "qlora::truncated" | "qlora::format"),
            "{error}"
        );
    }
}
