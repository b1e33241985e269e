//! NF4 against bitsandbytes 0.50: decoding bit for bit, encoding code for code.

use proptest::prelude::*;
use qlora::nf4::{Nf4Tensor, Scales};
use qlora::{Dtype, Matrix};
use serde_json::json;

use crate::support::{Golden, golden, json_file};

const VARIANTS: [&str; 8] = [
    "64x256.f32.sq",
    "64x256.f32.dq",
    "64x256.bf16.sq",
    "64x256.bf16.dq",
    "256x1024.f32.sq",
    "256x1024.f32.dq",
    "256x1024.bf16.sq",
    "256x1024.bf16.dq",
];

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// One vector of `nf4_quant.safetensors` as a tensor; its state is spelled out as bitsandbytes would.
fn vector(file: &Golden, name: &str) -> Nf4Tensor {
    let about = &json_file(&golden("peft-refs/nf4_quant.json"))[name];
    let mut state = json!({
        "quant_type": "nf4", "blocksize": about["blocksize"], "shape": about["shape"],
        "dtype": about["dtype"].as_str().unwrap().trim_start_matches("torch."),
    });
    if name.ends_with(".dq") {
        state["nested_blocksize"] = about["nested_blocksize"].clone();
        state["nested_dtype"] = json!("float32");
        state["nested_offset"] = json!(file.floats(&format!("{name}.offset"))[0]);
    }
    let state = serde_json::to_vec(&state).unwrap();
    Nf4Tensor::from_parts(|suffix| match suffix {
        "" => file.raw(&format!("{name}.packed")),
        ".quant_map" => file.raw(&format!("{name}.code")),
        ".nested_quant_map" => file.raw(&format!("{name}.nested_code")),
        ".quant_state.bitsandbytes__nf4" => Some((safetensors::Dtype::U8, state.as_slice())),
        other => file.raw(&format!("{name}{other}")),
    })
    .unwrap()
}

#[test]
fn a_linear_saved_by_bitsandbytes_decodes_to_its_own_bits() {
    let file = Golden::open("bnb_nf4_linear.safetensors");
    let tensor = Nf4Tensor::from_parts(|suffix| file.raw(&format!("weight{suffix}"))).unwrap();
    assert_eq!((tensor.shape(), tensor.dtype()), ((96, 256), Dtype::Bf16));
    assert_eq!(
        bits(tensor.dequantize().data()),
        bits(&file.floats("dequant"))
    );
}

#[test]
fn a_linear_saved_by_bitsandbytes_is_encoded_to_the_same_bytes() {
    let file = Golden::open("bnb_nf4_linear.safetensors");
    let source = Matrix::new(96, 256, file.floats("source_bf16"));
    let ours = Nf4Tensor::quantize_as(&source, true, Dtype::Bf16).unwrap();
    for entry in ours.to_entries("weight") {
        let (dtype, bytes) = file.raw(&entry.name).unwrap();
        assert_eq!(dtype, entry.dtype, "{}", entry.name);
        if entry.name.contains("quant_state") {
            let state = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
            assert_eq!(state(&entry.bytes), state(bytes));
        } else {
            assert!(entry.bytes == bytes, "{} differs", entry.name);
        }
    }
}

#[test]
fn gpu_made_vectors_decode_to_their_own_bits() {
    let file = Golden::open("peft-refs/nf4_quant.safetensors");
    for name in VARIANTS {
        let tensor = vector(&file, name);
        assert_eq!(
            bits(tensor.dequantize().data()),
            bits(&file.floats(&format!("{name}.dequant"))),
            "{name}"
        );
        if name.ends_with(".dq") {
            assert_eq!(
                bits(&tensor.absmax()),
                bits(&file.floats(&format!("{name}.absmax_dequant"))),
                "{name}"
            );
        }
    }
}

/// The one difference is the all-zero block: the GPU packs code 0 times a scale of 0, we pack the code of
/// zero as bitsandbytes does on CPU. 32 bytes a vector, the same values. All scale codes are equal.
#[test]
fn gpu_made_vectors_are_encoded_to_the_same_codes() {
    let file = Golden::open("peft-refs/nf4_quant.safetensors");
    for name in VARIANTS {
        let theirs = vector(&file, name);
        let (rows, cols) = theirs.shape();
        let weight = file.floats(&format!("{}.w", &name[..name.len() - 3]));
        let ours = Nf4Tensor::quantize_as(
            &Matrix::new(rows, cols, weight),
            name.ends_with(".dq"),
            theirs.dtype(),
        )
        .unwrap();
        let zero_block = cols / 2..cols / 2 + 32;
        for (at, (a, b)) in ours.packed().iter().zip(theirs.packed()).enumerate() {
            if zero_block.contains(&at) {
                assert_eq!((*a, *b), (0x77, 0x00), "{name} byte {at}");
            } else {
                assert_eq!(a, b, "{name} byte {at}");
            }
        }
        match (ours.scales(), theirs.scales()) {
            (Scales::Plain(a), Scales::Plain(b)) => assert_eq!(bits(a), bits(b), "{name}"),
            (
                Scales::Double {
                    codes,
                    absmax,
                    map,
                    offset,
                    block,
                },
                Scales::Double {
                    codes: c,
                    absmax: a,
                    map: m,
                    offset: o,
                    block: b,
                },
            ) => {
                assert!(codes == c, "{name}: scale codes differ");
                assert_eq!((bits(&map[..]), block), (bits(&m[..]), b), "{name}");
                // The GPU sums the mean in another order: one last bit of the offset, and what hangs on it.
                assert!(
                    offset.to_bits().abs_diff(o.to_bits()) <= 1,
                    "{name}: {offset} {o}"
                );
                let worst = absmax
                    .iter()
                    .zip(a)
                    .map(|(x, y)| (x - y).abs())
                    .fold(0.0, f32::max);
                assert!(worst <= f32::EPSILON / 2.0, "{name}: {worst}");
            }
            _ => panic!("{name}: one is nested, the other is not"),
        }
    }
}

#[test]
fn a_layout_that_does_not_fit_is_refused_with_its_cause() {
    let weight = Matrix::new(2, 64, (0..128_u8).map(f32::from).collect());
    let entries = Nf4Tensor::quantize(&weight, true).unwrap().to_entries("w");
    let refusal = |broken: &str, bytes: &[u8]| {
        Nf4Tensor::from_parts(|suffix| {
            let entry = entries.iter().find(|e| e.name == format!("w{suffix}"))?;
            Some((
                entry.dtype,
                if suffix == broken {
                    bytes
                } else {
                    &entry.bytes
                },
            ))
        })
        .unwrap_err()
    };
    assert_eq!(refusal("", &[0; 63]), "63 packed bytes for 128 values");
    assert_eq!(refusal(".absmax", &[0; 3]), "3 scales for 2 blocks");
    assert_eq!(
        refusal(".quant_map", &[0; 64]),
        "`.quant_map` is not the nf4 table"
    );
    assert!(
        refusal(".quant_state.bitsandbytes__nf4", b"{")
            .starts_with("`.quant_state.bitsandbytes__nf4`: EOF")
    );
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let mut weight = Matrix::zeros(2, 64);
    weight.row_mut(1)[3] = f32::NAN;
    let message = Nf4Tensor::quantize(&weight, false).unwrap_err().to_string();
    assert_eq!(
        message,
        "a weight to quantize: expected finite values, found NaN at [1, 3]"
    );
}

proptest! {
    /// Values come back within half the widest gap of their block; what was decoded encodes to itself.
    #[test]
    fn quantized_values_stay_near_and_settle(values in prop::collection::vec(-8.0_f32..8.0, 1..400)) {
        let weight = Matrix::new(1, values.len(), values);
        let tensor = Nf4Tensor::quantize(&weight, false).unwrap();
        let decoded = tensor.dequantize();
        for (block, scale) in tensor.absmax().iter().enumerate() {
            let range = block * 64..(block * 64 + 64).min(weight.cols());
            for (a, b) in weight.data()[range.clone()].iter().zip(&decoded.data()[range]) {
                prop_assert!((a - b).abs() <= scale * 0.152);
            }
        }
        prop_assert_eq!(Nf4Tensor::quantize(&decoded, false).unwrap(), tensor);
    }

    /// What is written is read back, nested or not.
    #[test]
    fn the_layout_goes_there_and_back(rows in 1_usize..5, cols in 1_usize..200, double: bool) {
        let values = (0..rows * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
        let tensor = Nf4Tensor::quantize_as(&Matrix::new(rows, cols, values), double, Dtype::F16).unwrap();
        let entries = tensor.to_entries("w");
        let read = Nf4Tensor::from_parts(|suffix| {
            entries.iter().find(|e| e.name == format!("w{suffix}")).map(|e| (e.dtype, e.bytes.as_slice()))
        });
        prop_assert_eq!(read.unwrap(), tensor);
    }
}
