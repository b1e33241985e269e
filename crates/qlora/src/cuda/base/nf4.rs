//! A four-bit weight on the card: where its parts lie, and what the kernels that decode it are told.

use kernels::params;
use kernels::{Grid, Kernel};

use super::super::exec::Exec;
use super::super::memory::{Region, Rows};
use crate::dtype::Dtype;
use crate::error::{Error, Result};

/// One four-bit weight.
pub(in crate::cuda) struct Nf4 {
    pub(in crate::cuda) packed: Region,
    /// Second-level codes; empty with plain scales.
    pub(super) codes: Region,
    pub(super) absmax: Region,
    pub(super) map: Region,
    pub(super) offset: f32,
    pub(super) block: usize,
    pub(super) nested: usize,
    rounding: u32,
    pub(in crate::cuda) outputs: usize,
    inputs: usize,
}

impl Nf4 {
    /// Codes without scales yet.
    pub(super) fn new(
        packed: Region,
        (outputs, inputs): (usize, usize),
        block: usize,
        dtype: Dtype,
    ) -> Self {
        Self {
            packed,
            codes: Region::default(),
            absmax: Region::default(),
            map: Region::default(),
            offset: 0.0,
            block,
            nested: 1,
            rounding: match dtype {
                Dtype::F32 => 0,
                Dtype::Bf16 => 1,
                Dtype::F16 => 2,
            },
            outputs,
            inputs,
        }
    }

    /// Refuses blocks that the kernels do not count in.
    pub(super) fn check(self) -> Result<Self> {
        if self.block.is_power_of_two() && self.nested.is_power_of_two() && self.block >= 8 {
            return Ok(self);
        }
        Err(Error::unsupported(
            "blocksize",
            self.block,
            "use bitsandbytes' own block sizes",
        ))
    }

    /// Decodes into the first columns of `out`.
    pub(in crate::cuda) fn decode(&self, exec: &mut Exec<'_>, out: Rows) {
        let vectors = self.outputs * self.inputs / 8;
        let p = params::Nf4Decode {
            packed: self.packed.at,
            codes: if self.codes.bytes == 0 {
                0
            } else {
                self.codes.at
            },
            absmax: self.absmax.at,
            map: if self.map.bytes == 0 { 0 } else { self.map.at },
            out: out.at,
            vectors: vectors as u32,
            row_vectors: (self.inputs / 8) as u32,
            stride: out.stride as u32,
            block_shift: self.block.trailing_zeros(),
            nested_shift: self.nested.trailing_zeros(),
            rounding: self.rounding,
            offset: self.offset,
            unused: 0,
        };
        exec.launch(
            Kernel::Nf4Decode,
            Grid::cover(vectors, 1024, 1).threads(256),
            &p,
        );
    }

    /// What the products with a few rows read, where they serve this layout; `end` is the site's output after
    /// this weight's last.
    pub(super) fn part(&self, end: usize) -> Option<params::Nf4Part> {
        use kernels::decode;
        let whole = |n: usize| n.is_multiple_of(decode::STEP);
        let nested = self.codes.bytes > 0;
        let serves = whole(self.outputs)
            && whole(self.inputs)
            && self.block == decode::BLOCK
            && (!nested || self.nested == decode::NESTED)
            && self.rounding != 2;
        serves.then_some(params::Nf4Part {
            packed: self.packed.at,
            codes: if nested { self.codes.at } else { 0 },
            absmax: self.absmax.at,
            map: if nested { self.map.at } else { 0 },
            offset: self.offset,
            end: end as u32,
        })
    }
}
