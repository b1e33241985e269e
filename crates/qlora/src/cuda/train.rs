//! The GPU's side of the training loop.

use super::device::Device;
use super::engine::CudaEngine;
use super::refuse;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::nn::adapter::Adapter;
use crate::ranks::Collective;
use crate::train::{AdamW, BatchLoss, Engine, StepPlan, TrainConfig, Work};

impl Engine for CudaEngine {
    fn config(&self) -> &ModelConfig {
        self.base().config()
    }

    fn print(&self) -> &[f32] {
        &self.base().print
    }

    fn numerics(&self) -> String {
        format!(
            "{} {:?}{}",
            self.base().device().info().numerics(),
            self.base().element,
            self.sums()
        )
    }

    fn join(&mut self, ranks: &dyn Collective, adapter: &Adapter) -> Result<()> {
        CudaEngine::join(self, ranks, adapter)
    }

    fn weight_bytes(&self) -> u64 {
        self.base().bytes() as u64
    }

    fn begin(
        &mut self,
        adapter: &Adapter,
        adam: &AdamW,
        longest: usize,
        config: &TrainConfig,
    ) -> Result<()> {
        if let Some(refused) = refuse::refusals(adapter, config).into_iter().next() {
            return Err(refused);
        }
        if longest > self.base().positions {
            let what = format!(
                "an example has {longest} ids, and the model was loaded for {}",
                self.base().positions
            );
            return Err(Error::Config {
                what,
                mend: "load it for longer rows, or shorten them".to_owned(),
            });
        }
        CudaEngine::begin(self, adapter, adam)
    }

    fn plan(&self, work: Work<'_>) -> Result<StepPlan> {
        self.step_plan(work)
    }

    fn judging_bytes(&self, work: Work<'_>) -> Result<u64> {
        Ok(self.judging(work)? as u64)
    }

    fn use_spare(&mut self, most: StepPlan) -> Result<StepPlan> {
        self.decode_into_spare(most)
    }

    fn refused(&mut self) -> Vec<u64> {
        CudaEngine::refused(self)
    }

    fn stay_below(&mut self, bytes: u64) {
        CudaEngine::stay_below(self, bytes as usize);
    }

    fn learn(&mut self, _: &Adapter, work: Work<'_>) -> Result<(BatchLoss, f64)> {
        CudaEngine::learn(self, work)
    }

    fn step(
        &mut self,
        _: &mut Adapter,
        adam: &mut AdamW,
        factor: f32,
        lr: f64,
        config: &TrainConfig,
    ) -> Result<()> {
        CudaEngine::step(self, &adam.next(factor, lr, config))
    }

    fn judge(&mut self, _: &Adapter, work: Work<'_>) -> Result<BatchLoss> {
        CudaEngine::judge(self, work)
    }

    fn fetch(&mut self, adapter: &mut Adapter, adam: &mut AdamW) -> Result<()> {
        CudaEngine::fetch(self, adapter, adam)
    }

    fn answer(
        &mut self,
        _: &Adapter,
        prompts: &[Vec<u32>],
        max_new: usize,
        stop: &[u32],
    ) -> Result<Vec<Vec<u32>>> {
        CudaEngine::answer(self, prompts, max_new, stop)
    }
}

/// Whether this program can train on a GPU here.
pub fn available() -> bool {
    kernels::BUILT && Device::present()
}
