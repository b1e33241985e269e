//! A four-bit weight that stays in its file until somebody says where its bytes are to go.

use super::stretch::Stretch;
use crate::dtype::Dtype;
use crate::nf4::{Nf4Parts, PartScales};

/// [`Nf4Tensor`](crate::Nf4Tensor), large tensors in place.
#[derive(Clone, Debug)]
pub(crate) struct FourBits {
    pub(crate) shape: (usize, usize),
    /// Weights per scale.
    pub(crate) block: usize,
    /// The format that decoded values are rounded to.
    pub(crate) dtype: Dtype,
    pub(crate) packed: Stretch,
    pub(crate) scales: FourBitScales,
}

/// [`Scales`](crate::nf4::Scales), in place; floats are f32.
#[derive(Clone, Debug)]
pub(crate) enum FourBitScales {
    Plain(Stretch),
    Double {
        codes: Stretch,
        absmax: Stretch,
        map: Box<[f32; 256]>,
        offset: f32,
        block: usize,
    },
}

impl FourBits {
    pub(super) fn new(parts: Nf4Parts<'_>, place: impl Fn(&[u8]) -> Stretch) -> Option<Self> {
        let scales = match parts.scales {
            PartScales::Plain(absmax) if absmax.dtype == Dtype::F32 => {
                FourBitScales::Plain(place(absmax.bytes))
            }
            PartScales::Double {
                codes,
                absmax,
                map,
                offset,
                block,
            } if absmax.dtype == Dtype::F32 => FourBitScales::Double {
                codes: place(codes),
                absmax: place(absmax.bytes),
                map,
                offset,
                block,
            },
            _ => return None,
        };
        Some(Self {
            shape: parts.shape,
            block: parts.block,
            dtype: parts.dtype,
            packed: place(parts.packed),
            scales,
        })
    }
}
