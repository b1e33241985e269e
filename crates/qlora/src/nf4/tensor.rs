//! One NF4 weight: packed codes and scales, encoded from and decoded to a [`Matrix`].

use rayon::prelude::*;

use super::code::{self, NF4};
use super::dynamic;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::tensor::Matrix;

/// Weights that share one scale.
pub const BLOCK: usize = 64;
/// Scales that share one second-level scale under double quantization.
pub const NESTED_BLOCK: usize = 256;

/// The absmax of each block, plain or itself quantized.
#[derive(Clone, Debug, PartialEq)]
pub enum Scales {
    /// One f32 a block.
    Plain(Vec<f32>),
    /// Double quantization: `map[codes[i]] * absmax[i / block] + offset`.
    Double {
        codes: Vec<u8>,
        absmax: Vec<f32>,
        map: Box<[f32; 256]>,
        offset: f32,
        block: usize,
    },
}

/// A row-major `[out, in]` weight in four bits a value. Byte `k` holds value `2k` in its high nibble.
#[derive(Clone, Debug, PartialEq)]
pub struct Nf4Tensor {
    pub(super) shape: (usize, usize),
    pub(super) packed: Vec<u8>,
    pub(super) scales: Scales,
    pub(super) dtype: Dtype,
    pub(super) block: usize,
    pub(super) table: [f32; 16],
}

impl Nf4Tensor {
    /// Quantizes `weight`; its decoded values are f32. Fails on NaN and infinity.
    pub fn quantize(weight: &Matrix, double: bool) -> Result<Self> {
        Self::quantize_as(weight, double, Dtype::F32)
    }

    /// Quantizes `weight`; decoding rounds to `dtype`, as a 16-bit model under bitsandbytes does.
    pub fn quantize_as(weight: &Matrix, double: bool, dtype: Dtype) -> Result<Self> {
        let data = weight.data();
        if let Some(at) = data.par_iter().position_first(|v| !v.is_finite()) {
            let (row, col) = (at / weight.cols(), at % weight.cols());
            return Err(Error::shape(
                "a weight to quantize",
                "finite values",
                format!("{} at [{row}, {col}]", data[at]),
            ));
        }
        let absmax: Vec<f32> = data.par_chunks(BLOCK).map(block_absmax).collect();
        let mut packed = vec![0_u8; data.len().div_ceil(2)];
        let encoder = code::Encoder::new();
        packed
            .par_chunks_mut(BLOCK / 2)
            .zip(data.par_chunks(BLOCK))
            .zip(&absmax)
            .for_each(|((bytes, values), &scale)| pack_block(&encoder, values, scale, bytes));
        let scales = if double {
            nest(&absmax)
        } else {
            Scales::Plain(absmax)
        };
        Ok(Self {
            shape: (weight.rows(), weight.cols()),
            packed,
            scales,
            dtype,
            block: BLOCK,
            table: NF4,
        })
    }

    /// All values as f32, rounded through [`Nf4Tensor::dtype`]. Bit-equal to bitsandbytes.
    pub fn dequantize(&self) -> Matrix {
        let (rows, cols) = self.shape;
        let mut out = vec![0.0_f32; rows * cols];
        let absmax = self.absmax();
        out.par_chunks_mut(self.block)
            .zip(self.packed.par_chunks(self.block / 2))
            .zip(&absmax)
            .for_each(|((values, bytes), &scale)| {
                let levels = self.table.map(|code| self.dtype.round(code * scale));
                for (pair, byte) in values.chunks_mut(2).zip(bytes) {
                    pair[0] = levels[usize::from(byte >> 4)];
                    if let Some(second) = pair.get_mut(1) {
                        *second = levels[usize::from(byte & 15)];
                    }
                }
            });
        Matrix::new(rows, cols, out)
    }

    /// The scale of each block in f32, second level undone.
    pub fn absmax(&self) -> Vec<f32> {
        match &self.scales {
            Scales::Plain(absmax) => absmax.clone(),
            Scales::Double {
                codes,
                absmax,
                map,
                offset,
                block,
            } => codes
                .chunks(*block)
                .zip(absmax)
                .flat_map(|(codes, scale)| {
                    codes
                        .iter()
                        .map(move |&code| map[usize::from(code)] * scale + offset)
                })
                .collect(),
        }
    }

    /// `(out, in)`.
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// Two codes a byte, row-major.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// The scales as stored.
    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// The format that decoded values are rounded to.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Weights per scale.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Bytes that codes and scales take.
    pub fn size(&self) -> usize {
        let scales = match &self.scales {
            Scales::Plain(absmax) => absmax.len() * 4,
            Scales::Double { codes, absmax, .. } => codes.len() + absmax.len() * 4 + 256 * 4 + 4,
        };
        self.packed.len() + scales
    }
}

fn block_absmax(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |max, v| v.abs().max(max))
}

/// `nearest(value / absmax)` two to a byte; the floor keeps an all-zero block at the code of zero.
fn pack_block(encoder: &code::Encoder, values: &[f32], absmax: f32, bytes: &mut [u8]) {
    let inverse = 1.0 / absmax.max(1e-38);
    let nearest = |value: &f32| encoder.nearest((value * inverse).clamp(-1.0, 1.0));
    for (pair, byte) in values.chunks(2).zip(bytes) {
        *byte = nearest(&pair[0]) << 4 | pair.get(1).map_or_else(|| encoder.nearest(0.0), nearest);
    }
}

/// Quantizes scales: their mean is taken off, then 8-bit dynamic codes over blocks of 256.
pub(crate) fn nest(scales: &[f32]) -> Scales {
    let map = dynamic::dynamic_map();
    let encoder = dynamic::Encoder::new(&map);
    // In f64, so that the offset does not depend on the order of the sum.
    let offset =
        (scales.iter().map(|&s| f64::from(s)).sum::<f64>() / scales.len().max(1) as f64) as f32;
    let centred: Vec<f32> = scales.iter().map(|s| s - offset).collect();
    let absmax: Vec<f32> = centred.chunks(NESTED_BLOCK).map(block_absmax).collect();
    let codes = centred
        .chunks(NESTED_BLOCK)
        .zip(&absmax)
        .flat_map(|(block, &scale)| {
            let inverse = 1.0 / scale.max(1e-38);
            block.iter().map(move |v| v * inverse)
        })
        .map(|scaled| encoder.nearest(scaled))
        .collect();
    Scales::Double {
        codes,
        absmax,
        map: Box::new(map),
        offset,
        block: NESTED_BLOCK,
    }
}
