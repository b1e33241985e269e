//! Training on the first NVIDIA GPU that is visible.
//!
//! Promises the same rows, order, masks and settings as on the CPU; the log says which card it was.

use qlora::Adapter;
use qlora::cuda::{self, CudaEngine, Device, Element, Options, Precision};
use qlora::train::{TrainReport, train_on_gpu};

use super::Job;
use super::telling::Telling;
use crate::base::engine;
use crate::contract::{Context, StageError};

impl Job<'_> {
    pub(super) fn on_gpu(
        &self,
        mut adapter: Adapter,
        ctx: &Context<'_>,
    ) -> Result<(Adapter, TrainReport), StageError> {
        let refused = cuda::refusals(&adapter, self.training.config);
        if let Some(first) = refused.first() {
            let all: Vec<String> = refused.iter().map(ToString::to_string).collect();
            let first = engine(first).at("with");
            return Err(StageError {
                message: all.join("; "),
                ..first
            });
        }
        let device = Device::open().map_err(|error| engine(&error))?;
        self.tell_cards(&device.info().numerics(), ctx)?;
        let precision = Precision {
            element: Element::Bf16,
            quantization: self.quantization,
        };
        let base = cuda::Base::load(device, &self.base.files, precision, self.positions())
            .map_err(|error| engine(&error))?;
        let direct = base.direct();
        ctx.log(format!(
            "base: {} MiB on the card, {} of them read straight from files in {:.2} s",
            base.bytes() >> 20,
            direct.bytes >> 20,
            direct.seconds
        ));
        let mut running =
            CudaEngine::new(base, &adapter, Options::default()).map_err(|error| engine(&error))?;
        let mut telling = Telling::new(ctx, self.base);
        let done = train_on_gpu(&mut running, &mut adapter, self.training, &mut |event| {
            telling.tell(event);
        })
        .map_err(|error| engine(&error))?;
        Ok((adapter, done))
    }

    /// Which card it is, or which ones they are.
    fn tell_cards(&self, own: &str, ctx: &Context<'_>) -> Result<(), StageError> {
        let Some(ranks) = self.training.ranks else {
            ctx.log(format!("training on {own}"));
            return Ok(());
        };
        let all = ranks
            .gather(own.as_bytes())
            .map_err(|error| engine(&error))?;
        for (rank, card) in all.iter().enumerate() {
            let card = String::from_utf8_lossy(card);
            ctx.log(format!("rank {rank} trains on {card}"));
        }
        Ok(())
    }

    /// Longest row, or longest prompt with its answer.
    fn positions(&self) -> usize {
        let rows = self
            .training
            .train
            .iter()
            .chain(self.training.val)
            .map(|row| row.ids.len());
        let samples = self.training.config.samples.iter().flat_map(|samples| {
            let longest = samples
                .prompts
                .iter()
                .map(|(_, ids)| ids.len() + samples.max_new);
            longest.collect::<Vec<_>>()
        });
        rows.chain(samples).max().unwrap_or(1)
    }
}
