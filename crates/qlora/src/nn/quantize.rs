//! The four-bit layers of a base as one file, made once and read by everything that trains on the base or asks it.
//!
//! Promises: the file is a function of the base's bytes and `double` alone, and holds each linear layer that the
//! base holds in more than four bits, as [`Nf4Tensor::quantize`] makes it, in bitsandbytes' layout. Norms, embedding
//! and head stay with the base. No more than one layer's weights are in memory.

use std::path::Path;

use super::adapter::Target;
use crate::error::{Error, Result};
use crate::nf4::{self, Entry, Nf4Tensor};
use crate::weights::{Declared, LinearWeight, ModelFiles, Writer};

/// Raised whenever [`quantize_layers`] would write other bytes for an equal base.
pub const LAYERS_VERSION: u32 = 1;

/// Bytes of a layer's JSON state: its length is known before its numbers are. JSON allows spaces at the end.
const STATE_BYTES: usize = 256;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantized {
    /// Weights in the file; none where the base is four bits already.
    pub weights: usize,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Writes the four-bit layers of a base to `file`; [`ModelFiles::with_layers`] takes them from there. `hear` is
/// told how many weights of how many are done, before each, and stops it with `false`.
///
/// # Errors
/// [`Error::Shape`] for a weight that is not finite or not shaped as the config says; [`Error::Cancelled`];
/// what reading and writing give.
pub fn quantize_layers(
    files: &ModelFiles,
    double: bool,
    file: &Path,
    hear: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Quantized> {
    let wanted = wanted(files)?;
    let declared: Vec<Declared> = wanted
        .iter()
        .flat_map(|(name, shape)| declared(name, *shape, double))
        .collect();
    let mut writer = Writer::create(file, &declared)?;
    for (at, (name, shape)) in wanted.iter().enumerate() {
        if !hear(at, wanted.len()) {
            return Err(Error::Cancelled);
        }
        for entry in quantized(files, name, *shape, double)? {
            writer.put(&entry)?;
        }
    }
    Ok(Quantized {
        weights: wanted.len(),
        bytes: writer.finish()?,
    })
}

/// Name and shape of each linear layer that has more than four bits.
fn wanted(files: &ModelFiles) -> Result<Vec<(String, (usize, usize))>> {
    let config = files.config()?;
    let all = (0..config.layers).flat_map(|layer| {
        Target::ALL.map(|target| {
            let name = format!("{}.weight", target.module(layer));
            (name, target.shape(&config))
        })
    });
    Ok(all.filter(|(name, _)| !files.is_nf4(name)).collect())
}

fn quantized(
    files: &ModelFiles,
    name: &str,
    shape: (usize, usize),
    double: bool,
) -> Result<Vec<Entry>> {
    let weight = match files.linear(name)? {
        LinearWeight::Dense(weight) => weight,
        LinearWeight::Nf4(tensor) => tensor.dequantize(),
    };
    let found = (weight.rows(), weight.cols());
    if found != shape {
        return Err(Error::shape(
            format!("`{name}`"),
            format!("{shape:?}"),
            format!("{found:?}"),
        ));
    }
    let mut entries = Nf4Tensor::quantize(&weight, double)?.to_entries(name);
    for entry in &mut entries {
        if entry.name.ends_with(nf4::STATE) {
            assert!(
                entry.bytes.len() <= STATE_BYTES,
                "{STATE_BYTES} bytes hold a state"
            );
            entry.bytes.resize(STATE_BYTES, b' ');
            entry.shape = vec![STATE_BYTES];
        }
    }
    Ok(entries)
}

/// What [`quantized`] gives, without its bytes. The large tensors come first: they are what is read.
fn declared(name: &str, (rows, cols): (usize, usize), double: bool) -> Vec<Declared> {
    use safetensors::Dtype::{F32, U8};
    let count = rows * cols;
    let blocks = count.div_ceil(nf4::BLOCK);
    let tensor = |suffix: &str, dtype, shape| Declared {
        name: format!("{name}{suffix}"),
        dtype,
        shape,
    };
    let mut tensors = vec![tensor("", U8, vec![count.div_ceil(2), 1])];
    if double {
        let nested = blocks.div_ceil(nf4::NESTED_BLOCK);
        tensors.push(tensor(".absmax", U8, vec![blocks]));
        tensors.push(tensor(".nested_absmax", F32, vec![nested]));
        tensors.push(tensor(".nested_quant_map", F32, vec![256]));
    } else {
        tensors.push(tensor(".absmax", F32, vec![blocks]));
    }
    tensors.push(tensor(".quant_map", F32, vec![nf4::NF4.len()]));
    tensors.push(tensor(nf4::STATE, U8, vec![STATE_BYTES]));
    tensors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nf4::Scales;
    use crate::weights::{FourBitScales, Stretch};

    fn golden(name: &str) -> ModelFiles {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/peft-refs");
        ModelFiles::open(folder.join(name)).unwrap()
    }

    /// In pieces, as they go to a card.
    fn read(stretch: &Stretch) -> Vec<u8> {
        let mut bytes = vec![0; stretch.bytes];
        for (at, piece) in bytes.chunks_mut(1000).enumerate() {
            stretch.read(at * 1000, piece).unwrap();
        }
        bytes
    }

    #[test]
    fn what_lies_in_the_file_is_found_where_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("layers");
        quantize_layers(&golden("tiny_f32"), true, &file, &mut |_, _| true).unwrap();
        let made = golden("tiny_f32").with_layers(&file).unwrap();
        for files in [made, golden("tiny_bnb4_dq_bf16")] {
            let name = "model.layers.1.mlp.down_proj.weight";
            let LinearWeight::Nf4(tensor) = files.linear(name).unwrap() else {
                panic!("{name} is not nf4")
            };
            let found = files.four_bits(name).unwrap().unwrap();
            assert_eq!(found.shape, tensor.shape());
            assert_eq!((found.block, found.dtype), (tensor.block(), tensor.dtype()));
            assert_eq!(read(&found.packed), tensor.packed());
            let FourBitScales::Double {
                codes,
                absmax,
                map,
                offset,
                block,
            } = found.scales
            else {
                panic!("double quantization")
            };
            let scales = Scales::Double {
                codes: read(&codes),
                absmax: crate::Dtype::F32.decode(&read(&absmax)),
                map,
                offset,
                block,
            };
            assert_eq!(&scales, tensor.scales());
        }
        let (dtype, shape, stretch) = golden("tiny_bf16")
            .floats("model.embed_tokens.weight")
            .unwrap();
        let table = golden("tiny_bf16")
            .tensor("model.embed_tokens.weight")
            .unwrap();
        assert_eq!(shape, [table.rows(), table.cols()]);
        assert_eq!(dtype.decode(&read(&stretch)), table.data());
    }
}
