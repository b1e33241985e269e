//! Where the tensors of a GGUF file lie, and their block formats undone to f32 by candle.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};

use super::cursor::Cursor;
use crate::dtype::Dtype;
use crate::error::{Error, Result};

/// How ggml stores the values of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GgmlType {
    Float(Dtype),
    Block(GgmlDType),
}

impl GgmlType {
    /// By ggml's own number.
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Float(Dtype::F32),
            1 => Self::Float(Dtype::F16),
            2 => Self::Block(GgmlDType::Q4_0),
            3 => Self::Block(GgmlDType::Q4_1),
            6 => Self::Block(GgmlDType::Q5_0),
            7 => Self::Block(GgmlDType::Q5_1),
            8 => Self::Block(GgmlDType::Q8_0),
            10 => Self::Block(GgmlDType::Q2K),
            11 => Self::Block(GgmlDType::Q3K),
            12 => Self::Block(GgmlDType::Q4K),
            13 => Self::Block(GgmlDType::Q5K),
            14 => Self::Block(GgmlDType::Q6K),
            30 => Self::Float(Dtype::Bf16),
            _ => return None,
        })
    }

    /// (values, bytes) of one block.
    fn block(self) -> (usize, usize) {
        match self {
            Self::Float(dtype) => (1, dtype.size()),
            Self::Block(dtype) => (dtype.block_size(), dtype.type_size()),
        }
    }

    /// The values of `bytes` in f32.
    pub(super) fn dequantize(self, path: &Path, bytes: &[u8], values: usize) -> Result<Vec<f32>> {
        let dtype = match self {
            Self::Float(dtype) => return Ok(dtype.decode(bytes)),
            Self::Block(dtype) => dtype,
        };
        let undo = || -> candle_core::Result<Vec<f32>> {
            let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, dtype)?;
            QTensor::new(storage, values)?
                .dequantize(&Device::Cpu)?
                .to_vec1()
        };
        undo().map_err(|e| {
            Error::format(
                path,
                format!("a {dtype:?} tensor cannot be read: {e}"),
                "fetch the file again",
            )
        })
    }
}

/// Shape, type and place of one tensor.
#[derive(Clone, Debug)]
pub(crate) struct TensorInfo {
    /// Outermost dimension first, as torch counts (GGUF writes it last).
    pub(crate) shape: Vec<usize>,
    pub(crate) kind: GgmlType,
    offset: u64,
    bytes: u64,
}

impl TensorInfo {
    pub(super) fn read(cursor: &mut Cursor) -> Result<Self> {
        let rank = cursor.u32()?;
        if !(1..=4).contains(&rank) {
            return Err(cursor.broken(format!("a tensor has {rank} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..rank {
            shape.push(usize::try_from(cursor.u64()?).unwrap_or(usize::MAX));
        }
        shape.reverse();
        let number = cursor.u32()?;
        let kind = GgmlType::from_number(number).ok_or_else(|| {
            Error::unsupported(
                "ggml type",
                number,
                "use a GGUF in F32, F16, BF16, Q4_0, Q4_1, Q8_0 or a K-quant",
            )
        })?;
        let offset = cursor.u64()?;
        let (block, size) = kind.block();
        let values = shape
            .iter()
            .try_fold(1_usize, |product, side| product.checked_mul(*side));
        match values.filter(|values| *values > 0 && shape[shape.len() - 1] % block == 0) {
            Some(values) => Ok(Self {
                shape,
                kind,
                offset,
                bytes: (values / block) as u64 * size as u64,
            }),
            None => Err(cursor.broken(format!(
                "a tensor of shape {shape:?} does not fit its type's blocks"
            ))),
        }
    }

    /// How many values the tensor has.
    pub(super) fn values(&self) -> usize {
        self.shape.iter().product()
    }

    /// The tensor's bytes in the file.
    pub(super) fn range(&self) -> Range<usize> {
        self.offset as usize..(self.offset + self.bytes) as usize
    }
}

/// Makes offsets absolute and checks every tensor against the file's length.
pub(super) fn place(
    path: &Path,
    infos: Vec<(String, TensorInfo)>,
    start: u64,
    alignment: u64,
    actual: u64,
) -> Result<BTreeMap<String, TensorInfo>> {
    let mut placed = BTreeMap::new();
    let mut expected = 0;
    for (name, mut info) in infos {
        if info.offset % alignment != 0 {
            let what = format!("tensor `{name}` does not start at a multiple of {alignment} bytes");
            return Err(Error::format(
                path,
                what,
                "the file is not a well-formed GGUF: fetch it again",
            ));
        }
        info.offset = info.offset.saturating_add(start);
        expected = expected.max(info.offset.saturating_add(info.bytes));
        placed.insert(name, info);
    }
    if expected > actual {
        return Err(Error::Truncated {
            path: path.to_path_buf(),
            expected,
            actual,
        });
    }
    Ok(placed)
}
