//! The most that any step of a run takes, before the first one: by planning all of them.
//!
//! Promises: the batches are those of the run. Must not know: who computes.

use super::batch::{self, Example};
use super::engine::{Engine, Work};
use super::job::TrainJob;
use super::plan::StepPlan;
use super::step::{BatchLoss, Masks};
use super::together::Together;
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
    let most = most(engine, adapter, job, Together::new(job.ranks), 0)?;
    Ok(engine.with_spare(most))
}

/// Over all steps from `from` on, and a look at the held-out rows; of each batch what is this rank's.
pub(super) fn most(
    engine: &dyn Engine,
    adapter: &Adapter,
    job: TrainJob<'_>,
    together: Together<'_>,
    from: u64,
) -> Result<StepPlan> {
    let order = job.order();
    let mut plan = StepPlan::default();
    for step in from..order.steps() {
        let batch = order.batch(step);
        let planned = on_part(job, together, job.train, &batch, |work| {
            let masks = masks(adapter, job, step);
            engine.plan(Work { masks, ..work })
        })?;
        plan = plan.most(planned);
    }
    let everything: Vec<usize> = (0..job.val.len()).collect();
    let judging = on_part(job, together, job.val, &everything, |work| {
        engine.judging_bytes(work)
    })?;
    plan.bytes = plan.bytes.max(judging);
    Ok(plan)
}

/// Asks about this rank's part of some rows.
fn on_part<T>(
    job: TrainJob<'_>,
    together: Together<'_>,
    examples: &[Example],
    rows: &[usize],
    ask: impl FnOnce(Work<'_>) -> Result<T>,
) -> Result<T> {
    let config = job.config;
    let whole = batch::group(examples, rows, config.shared_prefix);
    let own = together.part(examples, &whole);
    ask(Work {
        examples,
        groups: &own,
        masks: None,
        mean: config.loss,
        over: BatchLoss::count(config.loss, examples, &whole).over,
        micro_batch: config.micro_batch,
        cancel: job.cancel,
        ranks: together.ranks(),
    })
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
