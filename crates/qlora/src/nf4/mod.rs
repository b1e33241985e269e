//! NF4: four-bit weights with blockwise scales, as bitsandbytes stores them.
//!
//! Decoding is bit-equal to bitsandbytes 0.50; encoding gives its CPU codes (a CUDA-made all-zero block
//! packs code 0 where ours packs 7: the same values). QLoRA, arXiv 2305.14314. This room knows
//! tensors and their bytes, not files.

mod code;
mod dynamic;
mod layout;
mod tensor;

pub use code::NF4;
pub(crate) use code::bounds;
pub use layout::{Entry, QuantState};
pub(crate) use layout::{Nf4Parts, PartScales, STATE};
pub(crate) use tensor::nest;
pub use tensor::{BLOCK, NESTED_BLOCK, Nf4Tensor, Scales};
