//! A base's four-bit layers as a file of their own: the bits of quantizing again, the bytes of every time.

use std::path::Path;

use qlora::nf4::Nf4Tensor;
use qlora::{Error, LinearWeight, Model, ModelFiles, Quantization, quantize_layers};

use crate::support::golden;

fn open(name: &str) -> ModelFiles {
    ModelFiles::open(golden("peft-refs").join(name)).unwrap()
}

fn made(base: &ModelFiles, double: bool, file: &Path) -> (usize, usize) {
    let mut heard = Vec::new();
    let made = quantize_layers(base, double, file, &mut |done, of| {
        heard.push((done, of));
        true
    })
    .unwrap();
    assert_eq!(made.bytes, std::fs::metadata(file).unwrap().len());
    assert!(
        heard
            .iter()
            .enumerate()
            .all(|(at, told)| *told == (at, made.weights))
    );
    (made.weights, heard.len())
}

fn linear_names(files: &ModelFiles) -> Vec<String> {
    let names = files.names().into_iter();
    names.filter(|name| name.contains("_proj.")).collect()
}

#[test]
fn layers_from_the_file_are_the_bits_of_quantizing_again() {
    let dir = tempfile::tempdir().unwrap();
    for base in ["tiny_f32", "tiny_bf16"] {
        for double in [true, false] {
            let plain = open(base);
            let file = dir.path().join("layers");
            assert_eq!(made(&plain, double, &file), (14, 14));
            let with = open(base).with_layers(&file).unwrap();
            assert_eq!(with.names(), plain.names());
            for name in linear_names(&plain) {
                let LinearWeight::Nf4(kept) = with.linear(&name).unwrap() else {
                    panic!("{name} is not nf4")
                };
                let again = Nf4Tensor::quantize(&plain.tensor(&name).unwrap(), double).unwrap();
                assert_eq!(kept, again, "{name}");
            }
            for name in [
                "model.embed_tokens.weight",
                "lm_head.weight",
                "model.norm.weight",
            ] {
                assert_eq!(with.tensor(name).unwrap(), plain.tensor(name).unwrap());
            }
        }
    }
}

/// The bytes are in every key that reads them: other bytes for an equal base need another `LAYERS_VERSION`.
#[test]
fn equal_bases_give_equal_bytes_and_they_are_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
    made(&open("tiny_bf16"), true, &one);
    made(&open("tiny_bf16"), true, &two);
    let bytes = std::fs::read(&one).unwrap();
    assert_eq!(bytes, std::fs::read(&two).unwrap());
    // FNV-1a.
    let print = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    assert_eq!(qlora::LAYERS_VERSION, 1);
    assert_eq!(format!("{print:016x}"), "590f4d46b310ae66");
}

#[test]
fn other_readers_of_the_format_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("layers");
    made(&open("tiny_f32"), true, &file);
    let bytes = std::fs::read(&file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), 14 * 6);
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap());
    assert_eq!((8 + header) % 256, 0);
    let state = tensors
        .tensor("model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4")
        .unwrap();
    let state: serde_json::Value = serde_json::from_slice(state.data()).unwrap();
    assert_eq!(state["quant_type"], "nf4");
    assert_eq!(state["nested_blocksize"], 256);
}

#[test]
fn a_base_of_four_bits_has_nothing_to_add() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("layers");
    let plain = open("tiny_bnb4_dq_bf16");
    assert_eq!(made(&plain, true, &file), (0, 0));
    let with = open("tiny_bnb4_dq_bf16").with_layers(&file).unwrap();
    for name in linear_names(&plain) {
        assert_eq!(with.tensor(&name).unwrap(), plain.tensor(&name).unwrap());
        assert!(matches!(with.linear(&name).unwrap(), LinearWeight::Nf4(_)));
    }
}

#[test]
fn a_model_on_the_cpu_has_the_same_weights_either_way() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("layers");
    let quantization = Quantization::Nf4 { double: true };
    let plain = open("tiny_f32");
    made(&plain, true, &file);
    let with = open("tiny_f32").with_layers(&file).unwrap();
    let logits = |files: &ModelFiles| {
        let mut model = Model::load(files, quantization).unwrap();
        let generator = qlora::Generator::new(&mut model, None).unwrap();
        let prompt = vec![vec![5, 9, 2, 11]];
        generator.generate(&prompt, 12, &[]).unwrap()
    };
    assert_eq!(logits(&with), logits(&plain));
}

#[test]
fn whoever_stops_it_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("layers");
    let stopped = quantize_layers(&open("tiny_f32"), true, &file, &mut |done, _| done < 3);
    assert!(matches!(stopped, Err(Error::Cancelled)));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_file_cut_short_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("layers");
    made(&open("tiny_f32"), true, &file);
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let refused = open("tiny_f32").with_layers(&file).unwrap_err();
    assert!(matches!(refused, Error::Truncated { .. }), "{refused}");
}
