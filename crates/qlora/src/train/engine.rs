//! What the training loop asks of whoever computes: a loss and a gradient, an optimizer step, a judgement,
//! answers. The loop knows no more of a CPU or a GPU than this; here is also the CPU's side of it.

use std::sync::atomic::AtomicBool;

use super::adamw::{self, AdamW};
use super::batch::{Example, Group};
use super::config::{LossMean, TrainConfig};
use super::memory::Budget;
use super::plan::StepPlan;
use super::step::{BatchLoss, Masks, Runner};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::generate::Generator;
use crate::nn::adapter::Adapter;
use crate::nn::model::{Model, decoded_bytes};
use crate::nn::pool::Pool;
use crate::nn::ropes::Ropes;
use crate::ranks::Collective;
use crate::tensor::Matrix;

/// A batch and all that its loss depends on besides the adapter.
#[derive(Clone, Copy)]
pub(crate) struct Work<'a> {
    pub(crate) examples: &'a [Example],
    pub(crate) groups: &'a [Group],
    /// None: no dropout.
    pub(crate) masks: Option<Masks>,
    /// What the loss is the mean of.
    pub(crate) mean: LossMean,
    /// Sum of the weights of the whole batch, of which `groups` may be one rank's part.
    pub(crate) over: f64,
    /// Most rows at a time.
    pub(crate) micro_batch: Option<usize>,
    pub(crate) cancel: &'a AtomicBool,
    /// Those with whom the gradient is summed.
    pub(crate) ranks: Option<&'a dyn Collective>,
}

/// Whoever computes. The adapter and its moments may live elsewhere between [`Engine::begin`] and
/// [`Engine::fetch`]: the host's copies are then stale.
pub(crate) trait Engine {
    fn config(&self) -> &ModelConfig;
    /// Weights that tell this base from another.
    fn print(&self) -> &[f32];
    /// What the bits depend on besides the inputs: the kind of processor, or card, driver, libraries.
    fn numerics(&self) -> String;
    fn weight_bytes(&self) -> u64;
    /// Gets ready to sum gradients with other ranks, each of which calls this, before all else.
    fn join(&mut self, _ranks: &dyn Collective, _adapter: &Adapter) -> Result<()> {
        Ok(())
    }
    /// Takes the adapter and its moments; no example is longer than `longest` ids.
    fn begin(
        &mut self,
        adapter: &Adapter,
        adam: &AdamW,
        longest: usize,
        config: &TrainConfig,
    ) -> Result<()>;
    /// How a step over these groups runs.
    fn plan(&self, work: Work<'_>) -> Result<StepPlan>;
    /// Bytes that a judgement over these groups takes at a time.
    fn judging_bytes(&self, _work: Work<'_>) -> Result<u64> {
        Ok(0)
    }
    /// No step of the run takes more than `most`: what else there is may serve its speed. Gives the plan with that.
    fn use_spare(&mut self, most: StepPlan) -> Result<StepPlan> {
        Ok(most)
    }
    /// Bytes that a card refused since this was last asked; it runs by smaller plans since.
    fn refused(&mut self) -> Vec<u64> {
        Vec::new()
    }
    /// Plans below what a card refused before the run was stopped.
    fn stay_below(&mut self, _bytes: u64) {}
    /// The gradient of the batch's mean loss, of all ranks; gives the loss of these groups and the gradient's norm.
    fn learn(&mut self, adapter: &Adapter, work: Work<'_>) -> Result<(BatchLoss, f64)>;
    /// One optimizer step from that gradient, scaled by `factor`.
    fn step(
        &mut self,
        adapter: &mut Adapter,
        adam: &mut AdamW,
        factor: f32,
        lr: f64,
        config: &TrainConfig,
    ) -> Result<()>;
    /// The loss alone.
    fn judge(&mut self, adapter: &Adapter, work: Work<'_>) -> Result<BatchLoss>;
    /// Brings the host's copies up to date.
    fn fetch(&mut self, adapter: &mut Adapter, adam: &mut AdamW) -> Result<()>;
    /// Greedy answers of the model as it stands.
    fn answer(
        &mut self,
        adapter: &Adapter,
        prompts: &[Vec<u32>],
        max_new: usize,
        stop: &[u32],
    ) -> Result<Vec<Vec<u32>>>;
}

/// The CPU.
pub(super) struct Cpu<'m> {
    model: &'m mut Model,
    budget: Option<Budget>,
    rope: Ropes,
    pool: Pool,
    grads: Option<Matrix>,
}

impl<'m> Cpu<'m> {
    pub(super) fn new(model: &'m mut Model) -> Self {
        let rope = Ropes::new(model.config(), 0);
        Self {
            model,
            budget: None,
            rope,
            pool: Pool::default(),
            grads: None,
        }
    }

    /// The gradient of the last batch, until the step that uses it.
    #[cfg(test)]
    pub(super) fn gradient(&self) -> &[f32] {
        self.grads.as_ref().expect("it has learned").data()
    }

    fn budget(&self) -> Budget {
        self.budget.expect("the loop begins before it works")
    }

    fn run<T>(
        &mut self,
        adapter: &Adapter,
        work: Work<'_>,
        go: impl FnOnce(&Runner<'_>, &mut Pool) -> Result<T>,
    ) -> Result<T> {
        let mut pool = std::mem::take(&mut self.pool);
        let runner = Runner {
            model: self.model,
            adapter,
            rope: &self.rope,
            examples: work.examples,
            budget: self.budget(),
            mean: work.mean,
            over: work.over,
            cancel: work.cancel,
        };
        let result = go(&runner, &mut pool);
        self.pool = pool;
        result
    }
}

impl Engine for Cpu<'_> {
    fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    fn print(&self) -> &[f32] {
        &self.model.final_norm
    }

    fn numerics(&self) -> String {
        format!("a CPU ({})", std::env::consts::ARCH)
    }

    fn weight_bytes(&self) -> u64 {
        decoded_bytes(self.model.config())
    }

    fn begin(
        &mut self,
        adapter: &Adapter,
        _: &AdamW,
        longest: usize,
        config: &TrainConfig,
    ) -> Result<()> {
        let shape = self.model.config();
        self.rope = Ropes::new(shape, longest);
        self.budget = Some(Budget::new(shape, adapter.rank(), config));
        self.model.attach(adapter)
    }

    fn plan(&self, work: Work<'_>) -> Result<StepPlan> {
        let peaks = work
            .groups
            .iter()
            .map(|g| self.budget().peak(work.examples, g));
        Ok(StepPlan {
            bytes: peaks.max().unwrap_or(0),
            ..StepPlan::default()
        })
    }

    fn learn(&mut self, adapter: &Adapter, work: Work<'_>) -> Result<(BatchLoss, f64)> {
        let mut grads = self.pool.zeros(1, adapter.values().len());
        let loss = self.run(adapter, work, |runner, pool| {
            runner.learn(work.groups, work.masks, grads.data_mut(), pool)
        })?;
        if let Some(ranks) = work.ranks {
            ranks.sum(grads.data_mut())?;
        }
        let norm = adamw::norm(grads.data());
        self.grads = Some(grads);
        Ok((loss, norm))
    }

    fn step(
        &mut self,
        adapter: &mut Adapter,
        adam: &mut AdamW,
        factor: f32,
        lr: f64,
        config: &TrainConfig,
    ) -> Result<()> {
        let grads = self.grads.take().expect("a step follows a gradient");
        let rates = adapter.rates(lr, config.lora_plus);
        adam.step(adapter.values_mut(), grads.data(), factor, &rates, config);
        self.pool.give(grads);
        self.model.attach(adapter)
    }

    fn judge(&mut self, adapter: &Adapter, work: Work<'_>) -> Result<BatchLoss> {
        self.run(adapter, work, |runner, pool| {
            runner.judge(work.groups, pool)
        })
    }

    fn fetch(&mut self, adapter: &mut Adapter, _: &mut AdamW) -> Result<()> {
        // The values may have been replaced by the best ones.
        self.model.attach(adapter)
    }

    fn answer(
        &mut self,
        adapter: &Adapter,
        prompts: &[Vec<u32>],
        max_new: usize,
        stop: &[u32],
    ) -> Result<Vec<Vec<u32>>> {
        Generator::attached(self.model, Some(adapter)).generate(prompts, max_new, stop)
    }
}
