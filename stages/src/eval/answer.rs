//! Who answers the prompts: the first NVIDIA GPU that is visible, where the worker was built for one, else the
//! CPU.
//!
//! Promises the same prompts, adapter, limit and stop ids either way; the log says who it was. A model or
//! adapter that a GPU does not take is answered by the CPU.

use std::path::Path;

use qlora::{Adapter, Generator, Model, Quantization};

use crate::adapter_files;
use crate::base::{Base, engine};
use crate::contract::{Context, StageError};

/// Prompts as ids, and all that their answers depend on.
pub(super) struct Questions<'a> {
    pub(super) base: &'a Base,
    pub(super) quantization: Quantization,
    /// A PEFT folder.
    pub(super) adapter: Option<&'a Path>,
    pub(super) prompts: &'a [Vec<u32>],
    /// Longest answer, in ids.
    pub(super) limit: usize,
    /// Ids that end an answer.
    pub(super) stop: &'a [u32],
}

impl Questions<'_> {
    /// Ids of every answer, in the order of the prompts.
    pub(super) fn answer(&self, ctx: &Context<'_>) -> Result<Vec<Vec<u32>>, StageError> {
        let config = self.base.files.config().map_err(|error| engine(&error))?;
        let adapter = self
            .adapter
            .map(|path| adapter_files::load(path, &config))
            .transpose()?;
        let total = self.prompts.len() as u64;
        let mut done = 0;
        ctx.progress("answering", 0, Some(total), "prompts");
        let mut hear = |_: usize, _: &[u32]| {
            done += 1;
            ctx.progress("answering", done, Some(total), "prompts");
            ctx.go_on().is_ok()
        };
        if qlora::cuda::available() {
            match self.on_gpu(adapter.as_ref(), ctx, &mut hear) {
                Err(error @ qlora::Error::Unsupported { .. }) => {
                    ctx.log(format!("not on the GPU: {error}"));
                }
                answers => return answers.map_err(|error| engine(&error)),
            }
        }
        ctx.log("answering on the CPU");
        self.on_cpu(adapter.as_ref(), &mut hear)
            .map_err(|error| engine(&error))
    }

    fn on_cpu(
        &self,
        adapter: Option<&Adapter>,
        hear: &mut dyn FnMut(usize, &[u32]) -> bool,
    ) -> qlora::Result<Vec<Vec<u32>>> {
        let mut model = Model::load(&self.base.files, self.quantization)?;
        let generator = Generator::new(&mut model, adapter)?;
        generator.generate_each(self.prompts, self.limit, self.stop, hear)
    }

    fn on_gpu(
        &self,
        adapter: Option<&Adapter>,
        ctx: &Context<'_>,
        hear: &mut dyn FnMut(usize, &[u32]) -> bool,
    ) -> qlora::Result<Vec<Vec<u32>>> {
        use qlora::cuda::{self, Device, Element, Precision};

        let device = Device::open()?;
        let card = device.info().numerics();
        let precision = Precision {
            element: Element::Bf16,
            quantization: self.quantization,
        };
        let longest = self.prompts.iter().map(Vec::len).max().unwrap_or(0);
        let base = cuda::Base::load(device, &self.base.files, precision, longest + self.limit)?;
        let mut generator = cuda::Generator::new(base, adapter)?;
        ctx.log(format!("answering on {card}"));
        generator.generate_each(self.prompts, self.limit, self.stop, hear)
    }
}
