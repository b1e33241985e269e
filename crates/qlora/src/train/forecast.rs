//! The most that any step of a run takes, before the first one: by planning all of them.
//!
//! Promises: the batches are those of the run. Must not know: who computes.

use super::batch;
use super::engine::{Engine, Work};
use super::job::TrainJob;
use super::plan::StepPlan;
use super::step::Masks;
use crate::cuda::CudaEngine;
use crate::error::Result;
use crate::nn::adapter::Adapter;

/// What a run would take of the card that an engine was made for, a card on paper
/// ([`Device::on_paper`](crate::cuda::Device::on_paper)) as well as a real one.
///
/// # Errors
/// As [`train_on_gpu`](super::train_on_gpu); [`Error::Device`](crate::Error::Device) where one row does not fit.
pub fn plan_on_gpu(engine: &CudaEngine, adapter: &Adapter, job: TrainJob<'_>) -> Result<StepPlan> {
    job.check(engine.base().config().vocab)?;
    most(engine, adapter, job, 0)
}

/// Over all steps from `from` on, and a look at the held-out rows.
pub(super) fn most(
    engine: &dyn Engine,
    adapter: &Adapter,
    job: TrainJob<'_>,
    from: u64,
) -> Result<StepPlan> {
    let order = job.order();
    let config = job.config;
    let mut plan = StepPlan::default();
    for step in from..order.steps() {
        let groups = batch::group(job.train, &order.batch(step), config.shared_prefix);
        let work = Work {
            examples: job.train,
            groups: &groups,
            masks: masks(adapter, job, step),
            mean: config.loss,
            micro_batch: config.micro_batch,
            cancel: job.cancel,
        };
        plan = plan.most(engine.plan(work)?);
    }
    let everything: Vec<usize> = (0..job.val.len()).collect();
    let groups = batch::group(job.val, &everything, config.shared_prefix);
    let work = Work {
        examples: job.val,
        groups: &groups,
        masks: None,
        mean: config.loss,
        micro_batch: config.micro_batch,
        cancel: job.cancel,
    };
    plan.bytes = plan.bytes.max(engine.judging_bytes(work)?);
    Ok(plan)
}

/// The dropout masks of a step.
pub(super) fn masks(adapter: &Adapter, job: TrainJob<'_>, step: u64) -> Option<Masks> {
    let rate = adapter.config().dropout;
    (rate > 0.0).then_some(Masks {
        rate,
        seed: job.config.seed,
        step,
    })
}
