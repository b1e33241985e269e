//! The bitsandbytes layout of one NF4 weight: the tensors beside `X.weight` in a safetensors file.
//!
//! `X.weight` u8 `[n/2, 1]`, `.absmax`, `.quant_map`, the `.nested_*` pair and a JSON state as bytes.

use serde::{Deserialize, Serialize};

use super::code::NF4;
use super::tensor::{Nf4Tensor, Scales};
use crate::dtype::Dtype;

/// The end of the name of the JSON state's tensor.
pub(crate) const STATE: &str = ".quant_state.bitsandbytes__nf4";

/// What `quant_state.bitsandbytes__nf4` says, keys in bitsandbytes' order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantState {
    pub quant_type: String,
    pub blocksize: usize,
    pub dtype: String,
    pub shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nested_blocksize: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nested_dtype: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nested_offset: Option<f64>,
}

/// One tensor to be written: name, element type, shape and little-endian bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub name: String,
    pub dtype: safetensors::Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Nf4Tensor {
    /// The tensors that bitsandbytes saves for this weight under `name` (`model...q_proj.weight`).
    pub fn to_entries(&self, name: &str) -> Vec<Entry> {
        use safetensors::Dtype::{F32, U8};
        let entry = |suffix: &str, dtype, shape, bytes| Entry {
            name: format!("{name}{suffix}"),
            dtype,
            shape,
            bytes,
        };
        let floats = |values: &[f32]| Dtype::F32.encode(values);
        let mut entries = vec![
            entry("", U8, vec![self.packed.len(), 1], self.packed.clone()),
            entry(
                ".quant_map",
                F32,
                vec![self.table.len()],
                floats(&self.table),
            ),
        ];
        match &self.scales {
            Scales::Plain(absmax) => {
                entries.push(entry(".absmax", F32, vec![absmax.len()], floats(absmax)));
            }
            Scales::Double {
                codes, absmax, map, ..
            } => {
                entries.push(entry(".absmax", U8, vec![codes.len()], codes.clone()));
                entries.push(entry(
                    ".nested_absmax",
                    F32,
                    vec![absmax.len()],
                    floats(absmax),
                ));
                entries.push(entry(
                    ".nested_quant_map",
                    F32,
                    vec![map.len()],
                    floats(&map[..]),
                ));
            }
        }
        let state =
            serde_json::to_vec(&self.state()).expect("a struct of numbers and strings is JSON");
        entries.push(entry(STATE, U8, vec![state.len()], state));
        entries
    }

    fn state(&self) -> QuantState {
        let nested = match &self.scales {
            Scales::Plain(_) => None,
            Scales::Double { offset, block, .. } => Some((*block, *offset)),
        };
        QuantState {
            quant_type: "nf4".into(),
            blocksize: self.block,
            dtype: self.dtype.torch_name().into(),
            shape: vec![self.shape.0, self.shape.1],
            nested_blocksize: nested.map(|(block, _)| block),
            nested_dtype: nested.map(|_| "float32".into()),
            nested_offset: nested.map(|(_, offset)| f64::from(offset)),
        }
    }

    /// Puts a weight together from its tensors; `fetch` returns element type and bytes by suffix
    /// (`""`, `.absmax`, ...). The error says what does not fit, without a place.
    pub fn from_parts<'a>(
        fetch: impl FnMut(&str) -> Option<(safetensors::Dtype, &'a [u8])>,
    ) -> Result<Self, String> {
        let parts = Nf4Parts::read(fetch)?;
        let scales = match parts.scales {
            PartScales::Plain(absmax) => Scales::Plain(absmax.values()),
            PartScales::Double {
                codes,
                absmax,
                map,
                offset,
                block,
            } => Scales::Double {
                codes: codes.to_vec(),
                absmax: absmax.values(),
                map,
                offset,
                block,
            },
        };
        Ok(Self {
            shape: parts.shape,
            packed: parts.packed.to_vec(),
            scales,
            dtype: parts.dtype,
            block: parts.block,
            table: NF4,
        })
    }
}

/// A weight whose large tensors still lie where they are; all else is read and checked.
pub(crate) struct Nf4Parts<'a> {
    pub(crate) shape: (usize, usize),
    pub(crate) packed: &'a [u8],
    pub(crate) scales: PartScales<'a>,
    pub(crate) dtype: Dtype,
    pub(crate) block: usize,
}

/// [`Scales`], in place.
pub(crate) enum PartScales<'a> {
    Plain(Floats<'a>),
    Double {
        codes: &'a [u8],
        absmax: Floats<'a>,
        map: Box<[f32; 256]>,
        offset: f32,
        block: usize,
    },
}

/// Values of a float type, in place.
pub(crate) struct Floats<'a> {
    pub(crate) dtype: Dtype,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Floats<'a> {
    fn new((dtype, bytes): (safetensors::Dtype, &'a [u8]), what: &str) -> Result<Self, String> {
        let dtype = match dtype {
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::F16 => Dtype::F16,
            safetensors::Dtype::BF16 => Dtype::Bf16,
            other => return Err(format!("`{what}` is {other:?}, not a float")),
        };
        Ok(Self { dtype, bytes })
    }

    fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    fn values(&self) -> Vec<f32> {
        self.dtype.decode(self.bytes)
    }
}

impl<'a> Nf4Parts<'a> {
    /// As [`Nf4Tensor::from_parts`].
    pub(crate) fn read(
        mut fetch: impl FnMut(&str) -> Option<(safetensors::Dtype, &'a [u8])>,
    ) -> Result<Self, String> {
        let mut need = |suffix: &str| fetch(suffix).ok_or_else(|| format!("`{suffix}` is missing"));
        let state: QuantState =
            serde_json::from_slice(need(STATE)?.1).map_err(|e| format!("`{STATE}`: {e}"))?;
        let (rows, cols, dtype) = check_state(&state)?;
        // The storage type may be any view of the same bytes (`bnb_4bit_quant_storage`).
        let packed = need("")?.1;
        let table = Floats::new(need(".quant_map")?, ".quant_map")?.values();
        let table: [f32; 16] = table
            .try_into()
            .map_err(|_| "`.quant_map` has not 16 values")?;
        if table != NF4 {
            return Err("`.quant_map` is not the nf4 table".into());
        }
        let blocks = (rows * cols).div_ceil(state.blocksize);
        let scales = match state.nested_blocksize {
            None => PartScales::Plain(Floats::new(need(".absmax")?, ".absmax")?),
            Some(block) => PartScales::Double {
                codes: need(".absmax")?.1,
                absmax: Floats::new(need(".nested_absmax")?, ".nested_absmax")?,
                map: Floats::new(need(".nested_quant_map")?, ".nested_quant_map")?
                    .values()
                    .try_into()
                    .map_err(|_| "`.nested_quant_map` has not 256 values")?,
                offset: state.nested_offset.ok_or("`nested_offset` is missing")? as f32,
                block,
            },
        };
        check_length(packed, &scales, rows * cols, blocks)?;
        Ok(Self {
            shape: (rows, cols),
            packed,
            scales,
            dtype,
            block: state.blocksize,
        })
    }
}

fn check_state(state: &QuantState) -> Result<(usize, usize, Dtype), String> {
    if state.quant_type != "nf4" {
        return Err(format!("`quant_type` is `{}`, not `nf4`", state.quant_type));
    }
    if state.blocksize < 2 || state.blocksize % 2 == 1 || state.nested_blocksize == Some(0) {
        return Err(format!(
            "`blocksize` {} is not a positive even number",
            state.blocksize
        ));
    }
    let dtype = Dtype::from_torch(&state.dtype)
        .ok_or_else(|| format!("`dtype` `{}` is not a float", state.dtype))?;
    match state.shape[..] {
        [rows, cols] if rows.checked_mul(cols).is_some() => Ok((rows, cols, dtype)),
        _ => Err(format!("`shape` {:?} is not a matrix", state.shape)),
    }
}

fn check_length(
    packed: &[u8],
    scales: &PartScales<'_>,
    values: usize,
    blocks: usize,
) -> Result<(), String> {
    let found = match scales {
        PartScales::Plain(absmax) => absmax.len(),
        PartScales::Double {
            codes,
            absmax,
            block,
            ..
        } => {
            let need = codes.len().div_ceil(*block);
            if absmax.len() != need {
                return Err(format!(
                    "`.nested_absmax` has {} values, not {need}",
                    absmax.len()
                ));
            }
            codes.len()
        }
    };
    if packed.len() != values.div_ceil(2) {
        return Err(format!("{} packed bytes for {values} values", packed.len()));
    }
    if found != blocks {
        return Err(format!("{found} scales for {blocks} blocks"));
    }
    Ok(())
}
