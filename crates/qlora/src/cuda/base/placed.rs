//! What lies ready in files: found, given its place on the card, read once everything has one.

use kernels::Element;

use super::super::memory::{ALIGNMENT, Region, Rows};
use super::loader::Loader;
use super::nf4::Nf4;
use super::reading::Wanted;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::nn::adapter::Target;
use crate::weights::{FourBitScales, FourBits, ModelFiles, Stretch};

pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(super) const HEAD: &str = "lm_head.weight";

impl Loader {
    /// Finds what lies ready in files, and takes one block for all of it and what else stays.
    pub(super) fn find(&mut self, files: &ModelFiles, positions: usize) -> Result<()> {
        let mut bytes = 0;
        let mut count = |n: usize| bytes += n.next_multiple_of(ALIGNMENT);
        for layer in 0..self.config.layers {
            for target in Target::ALL {
                let name = format!("{}.weight", target.module(layer));
                let Some(found) = files.four_bits(&name)? else {
                    continue;
                };
                count(found.packed.bytes);
                match &found.scales {
                    FourBitScales::Plain(absmax) => count(absmax.bytes),
                    FourBitScales::Double {
                        codes, absmax, map, ..
                    } => {
                        count(codes.bytes);
                        count(absmax.bytes);
                        count(size_of_val(&**map));
                    }
                }
                self.weights.insert(name, found);
            }
        }
        let own = match self.precision.element {
            Element::Bf16 => Dtype::Bf16,
            Element::F32 => Dtype::F32,
        };
        let own_head = (!self.config.tie_embeddings).then_some(HEAD);
        for name in [EMBEDDING].into_iter().chain(own_head) {
            if let Some((dtype, shape, stretch)) = files.floats(name)
                && let (true, [rows, cols]) = (dtype == own, &shape[..])
            {
                count(stretch.bytes);
                self.tables.insert(name, (*rows, *cols, stretch));
            }
        }
        if bytes > 0 {
            bytes += self.vectors(positions);
            self.store.reserve(&self.device, bytes)?;
        }
        Ok(())
    }

    /// A weight that lies in four bits in a file: gets its place, and is read at the end.
    pub(super) fn place(&mut self, found: FourBits) -> Result<Nf4> {
        let packed = self.awaiting(found.packed)?;
        let mut nf4 = Nf4::new(packed, found.shape, found.block, found.dtype);
        match found.scales {
            FourBitScales::Plain(absmax) => nf4.absmax = self.awaiting(absmax)?,
            FourBitScales::Double {
                codes,
                absmax,
                map,
                offset,
                block,
            } => {
                nf4.codes = self.awaiting(codes)?;
                nf4.absmax = self.awaiting(absmax)?;
                nf4.map = self.store.upload(&self.device, &map[..])?;
                nf4.offset = offset;
                nf4.nested = block;
            }
        }
        nf4.check()
    }

    fn awaiting(&mut self, stretch: Stretch) -> Result<Region> {
        let to = self.store.take(&self.device, stretch.bytes)?;
        self.reading.push(Wanted { stretch, to });
        Ok(to)
    }

    /// Embedding or head.
    pub(super) fn table(&mut self, files: &ModelFiles, name: &'static str) -> Result<Rows> {
        match self.tables.remove(name) {
            Some((rows, cols, stretch)) => {
                let region = self.awaiting(stretch)?;
                Ok(Rows::shaped(region, rows, cols, self.precision.element))
            }
            None => self.matrix(&files.tensor(name)?),
        }
    }
}
