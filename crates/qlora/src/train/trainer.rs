//! The training loop, on one page: an epoch's order, a batch, its gradient, a step; now and then a
//! validation, samples and a checkpoint.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::adamw::{self, AdamW};
use super::batch::{self, Example, Group};
use super::checkpoint::{self, LoopState, PassedOver, Progress};
use super::engine::{Cpu, Engine, Work};
use super::event::{StepRecord, Stop, TrainEvent, TrainReport, Validation};
use super::forecast;
use super::job::{TrainJob, made_by};
use super::kept;
use super::order::Order;
use super::plan::Fallback;
use super::saving::Saving;
use super::schedule;
use super::step::{BatchLoss, Masks};
use super::together::Together;
use crate::error::{Error, Result};
use crate::nn::adapter::Adapter;
use crate::nn::model::Model;

/// Trains `adapter` on the job's examples, judging it on the held-out ones.
///
/// Progress goes to `sink`. With a checkpoint folder, the run can be stopped at any moment (also by
/// `cancel`) and called again with the same job: it goes on where it was and ends with the same bytes as a
/// run that was never stopped.
///
/// With ranks, each calls this with the same job, computes its part of every batch's rows and ends with the
/// same adapter; rank 0 alone reads and writes the checkpoint and computes sample answers.
///
/// # Errors
/// [`Error::Config`] for settings or examples that cannot hold, [`Error::NonFinite`] at the step that
/// breaks, with its rows; [`Error::Ranks`] where another rank fails; [`Error::Io`]. A checkpoint that is
/// damaged, or of another run, build, device or number of ranks, is passed over and told
/// ([`TrainEvent::PassedOver`]).
pub fn train(
    model: &mut Model,
    adapter: &mut Adapter,
    job: TrainJob<'_>,
    sink: &mut dyn FnMut(TrainEvent),
) -> Result<TrainReport> {
    train_with(&mut Cpu::new(model), adapter, job, sink)
}

/// The same on a GPU; a run can only go on where it was on the same kind of card with the same driver.
///
/// # Errors
/// As [`train`], and [`Error::Device`].
pub fn train_on_gpu(
    engine: &mut crate::cuda::CudaEngine,
    adapter: &mut Adapter,
    job: TrainJob<'_>,
    sink: &mut dyn FnMut(TrainEvent),
) -> Result<TrainReport> {
    train_with(engine, adapter, job, sink)
}

fn train_with(
    engine: &mut dyn Engine,
    adapter: &mut Adapter,
    job: TrainJob<'_>,
    sink: &mut dyn FnMut(TrainEvent),
) -> Result<TrainReport> {
    let outcome = train_here(engine, adapter, job, sink);
    if let Err(error) = &outcome {
        leave(job, error);
    }
    match outcome {
        // All ranks were asked to stop; another one did so first.
        Err(Error::Ranks { .. }) if job.cancel.load(Ordering::Relaxed) => Err(Error::Cancelled),
        outcome => outcome,
    }
}

/// The others hear at once why nothing more comes from here.
fn leave(job: TrainJob<'_>, error: &Error) {
    if let Some(ranks) = job.ranks {
        ranks.leave(error);
    }
}

fn train_here(
    engine: &mut dyn Engine,
    adapter: &mut Adapter,
    job: TrainJob<'_>,
    sink: &mut dyn FnMut(TrainEvent),
) -> Result<TrainReport> {
    job.check(engine.config().vocab)?;
    let mut run = Run::start(engine, adapter, job)?;
    run.announce(sink)?;
    let outcome = run.all_steps(sink);
    if let Err(error) = &outcome {
        leave(job, error);
        if run.unsaved {
            run.save(sink)?;
        }
    }
    outcome?;
    run.finish()
}

/// Some rows, and those of them that are this rank's.
struct Batch<'a> {
    examples: &'a [Example],
    /// Labels and tokens of all of them.
    counted: BatchLoss,
    own: Vec<Group>,
}

/// A run in progress.
struct Run<'a> {
    engine: &'a mut dyn Engine,
    adapter: &'a mut Adapter,
    job: TrainJob<'a>,
    together: Together<'a>,
    order: Order<'a>,
    total: u64,
    progress: Progress,
    passed_over: Vec<PassedOver>,
    /// Something has happened since the newest checkpoint.
    unsaved: bool,
    saving: Saving,
}

impl<'a> Run<'a> {
    fn start(
        engine: &'a mut dyn Engine,
        adapter: &'a mut Adapter,
        job: TrainJob<'a>,
    ) -> Result<Self> {
        let config = job.config;
        let order = job.order();
        let together = Together::new(job.ranks);
        if let Some(ranks) = together.ranks() {
            engine.join(ranks, adapter)?;
        }
        let made_by = made_by(&together.numerics(engine.numerics())?);
        let fingerprint = job.fingerprint(engine, &made_by, adapter);
        together.agree("base, adapter, settings or examples", fingerprint)?;
        let len = adapter.values().len();
        let (stored, passed_over) = match job.checkpoints.filter(|_| together.first()) {
            Some(dir) => checkpoint::load(dir, fingerprint, len)?,
            None => (None, Vec::new()),
        };
        let stored = together.share(stored)?;
        let progress = stored.unwrap_or_else(|| Progress {
            state: LoopState::new(fingerprint, made_by),
            values: adapter.values().to_vec(),
            adam: AdamW::new(len),
            kept: Vec::new(),
        });
        adapter.values_mut().copy_from_slice(&progress.values);
        engine.begin(adapter, &progress.adam, job.longest(), config)?;
        if let Some(fallback) = progress.state.fallbacks.last() {
            engine.stay_below(fallback.refused);
        }
        Ok(Self {
            unsaved: false,
            saving: Saving::new(config.save_every),
            together,
            engine,
            adapter,
            job,
            total: order.steps(),
            order,
            progress,
            passed_over,
        })
    }

    fn announce(&mut self, sink: &mut dyn FnMut(TrainEvent)) -> Result<()> {
        for PassedOver { path, why } in self.passed_over.iter().cloned() {
            sink(TrainEvent::PassedOver { path, why });
        }
        let done = self.progress.state.done();
        let plan = forecast::most(self.engine, self.adapter, self.job, self.together, done)?;
        let plan = self.engine.use_spare(plan)?;
        let values = self.adapter.values().len() as u64;
        sink(TrainEvent::Started {
            steps: self.total,
            trainable: self.adapter.values().len(),
            examples: self.job.train.len(),
            validation: self.job.val.len(),
            resumed: done,
            weight_bytes: self.engine.weight_bytes(),
            // Values, their copy beside the weights, gradient and two moments.
            adapter_bytes: 5 * 4 * values,
            activation_bytes: plan.bytes,
            plan,
        });
        Ok(())
    }

    /// Every step ends with what is due after it. A run that was stopped in between (its checkpoint then
    /// holds the step but not the validation) makes up for it before it goes on.
    fn all_steps(&mut self, sink: &mut dyn FnMut(TrainEvent)) -> Result<()> {
        self.after_step(sink)?;
        while self.progress.state.done() < self.total && !self.progress.state.stopped {
            self.one_step(sink)?;
            self.after_step(sink)?;
        }
        Ok(())
    }

    fn after_step(&mut self, sink: &mut dyn FnMut(TrainEvent)) -> Result<()> {
        let step = self.progress.state.done();
        if step == 0 {
            return Ok(());
        }
        let last = step == self.total;
        let due = |every: Option<u64>| last || every.is_some_and(|n| step.is_multiple_of(n));
        let judged = self
            .progress
            .state
            .validations
            .last()
            .is_some_and(|v| v.step == step);
        if !self.job.val.is_empty() && due(self.job.config.eval_every) && !judged {
            self.validate(sink)?;
            self.sample(sink)?;
            self.unsaved = true;
        }
        let end = last || self.progress.state.stopped;
        if self.unsaved && self.saving.due(step, end) {
            self.save(sink)?;
        }
        Ok(())
    }

    /// The batch of a step: a slice of its epoch's order.
    fn batch(&self, step: u64) -> Batch<'a> {
        self.dealt(self.job.train, &self.order.batch(step))
    }

    fn dealt(&self, examples: &'a [Example], rows: &[usize]) -> Batch<'a> {
        let config = self.job.config;
        let whole = batch::group(examples, rows, config.shared_prefix);
        Batch {
            examples,
            counted: BatchLoss::count(config.loss, examples, &whole),
            own: self.together.part(examples, &whole),
        }
    }

    fn work<'w>(&self, batch: &'w Batch<'a>, masks: Option<Masks>) -> Work<'w>
    where
        'a: 'w,
    {
        Work {
            examples: batch.examples,
            groups: &batch.own,
            masks,
            mean: self.job.config.loss,
            over: batch.counted.over,
            micro_batch: self.job.config.micro_batch,
            cancel: self.job.cancel,
            ranks: self.together.ranks(),
        }
    }

    fn masks(&self, step: u64) -> Option<Masks> {
        forecast::masks(self.adapter, self.job, step)
    }

    fn one_step(&mut self, sink: &mut dyn FnMut(TrainEvent)) -> Result<()> {
        let begun = Instant::now();
        let step = self.progress.state.done();
        let batch = self.batch(step);
        let work = self.work(&batch, self.masks(step));
        let (loss, norm) = self.engine.learn(self.adapter, work)?;
        let refused = self.engine.refused().into_iter().min();
        let (loss, refused) = self
            .together
            .add_up(loss, batch.counted.clone(), norm, refused)?;
        if let Some(refused) = refused {
            self.engine.stay_below(refused);
            let plan = self.engine.plan(work)?;
            let fallback = Fallback {
                step: step + 1,
                refused,
                plan,
            };
            self.progress.state.fallbacks.push(fallback);
            sink(TrainEvent::Fallback(fallback));
        }
        self.check_finite(step, &loss, norm)?;
        let lr = schedule::rate(self.job.config, step, self.total);
        let factor = adamw::clip_factor(norm, self.job.config.clip);
        self.engine.step(
            self.adapter,
            &mut self.progress.adam,
            factor,
            lr,
            self.job.config,
        )?;
        let record = StepRecord {
            step: step + 1,
            loss: loss.mean(),
            lr,
            grad_norm: norm,
            labels: loss.labels,
            tokens: loss.tokens,
            separate_tokens: loss.separate_tokens,
        };
        self.progress.state.steps.push(record.clone());
        self.unsaved = true;
        sink(TrainEvent::Step {
            record,
            of: self.total,
            seconds: begun.elapsed().as_secs_f64(),
        });
        Ok(())
    }

    /// A loss or gradient that is not finite ends the run before it reaches the adapter.
    fn check_finite(&self, step: u64, loss: &BatchLoss, norm: f64) -> Result<()> {
        if loss.broken.is_empty() && norm.is_finite() {
            return Ok(());
        }
        let named = if loss.broken.is_empty() {
            self.order.batch(step)
        } else {
            loss.broken.clone()
        };
        let rows = named
            .into_iter()
            .map(|i: usize| self.job.train[i].id.clone())
            .collect();
        Err(Error::NonFinite {
            step: step + 1,
            rows,
        })
    }

    fn validate(&mut self, sink: &mut dyn FnMut(TrainEvent)) -> Result<()> {
        let begun = Instant::now();
        let everything: Vec<usize> = (0..self.job.val.len()).collect();
        let batch = self.dealt(self.job.val, &everything);
        let work = self.work(&batch, None);
        let loss = self.engine.judge(self.adapter, work)?;
        let (loss, _) = self.together.add_up(loss, batch.counted, 0.0, None)?;
        let state = &mut self.progress.state;
        let record = Validation {
            step: state.done(),
            loss: loss.mean(),
        };
        let best = state.best.as_ref().is_none_or(|b| record.loss < b.loss);
        state.stale = if best { 0 } else { state.stale + 1 };
        let patience = self.job.config.early_stop;
        state.stopped = patience.is_some_and(|patience| state.stale >= patience);
        if best {
            state.best = Some(record.clone());
        }
        if let Some(place) = kept::place(&state.kept, &record, self.job.config) {
            self.engine.fetch(self.adapter, &mut self.progress.adam)?;
            kept::put(
                &mut self.progress,
                place,
                &record,
                self.adapter,
                self.job.config,
            );
        }
        self.progress.state.validations.push(record.clone());
        sink(TrainEvent::Validated {
            record,
            best,
            seconds: begun.elapsed().as_secs_f64(),
        });
        Ok(())
    }

    fn sample(&mut self, sink: &mut dyn FnMut(TrainEvent)) -> Result<()> {
        let samples = self.job.config.samples.as_ref();
        let Some(samples) = samples.filter(|_| self.together.first()) else {
            return Ok(());
        };
        let prompts: Vec<Vec<u32>> = samples.prompts.iter().map(|(_, ids)| ids.clone()).collect();
        let answers = self
            .engine
            .answer(self.adapter, &prompts, samples.max_new, &samples.stop)?;
        for ((name, _), ids) in samples.prompts.iter().zip(answers) {
            sink(TrainEvent::Sample {
                step: self.progress.state.done(),
                name: name.clone(),
                ids,
            });
        }
        Ok(())
    }

    fn save(&mut self, sink: &mut dyn FnMut(TrainEvent)) -> Result<()> {
        let Some(dir) = self.job.checkpoints.filter(|_| self.together.first()) else {
            return Ok(());
        };
        let begun = Instant::now();
        self.engine.fetch(self.adapter, &mut self.progress.adam)?;
        self.progress.values.copy_from_slice(self.adapter.values());
        checkpoint::save(dir, &self.progress)?;
        self.saving.saved(begun);
        self.unsaved = false;
        sink(TrainEvent::Saved {
            step: self.progress.state.done(),
        });
        Ok(())
    }

    fn finish(mut self) -> Result<TrainReport> {
        self.engine.fetch(self.adapter, &mut self.progress.adam)?;
        self.together.agree_on("adapter", self.adapter.values())?;
        let Progress {
            state, kept, adam, ..
        } = self.progress;
        let kept = kept::pairs(&state.kept, kept);
        let mut returned_step = state.done();
        if let (Some(best), true) = (kept.first(), self.job.config.keep_best) {
            self.adapter.values_mut().copy_from_slice(&best.values);
            let longest = self.job.longest();
            self.engine
                .begin(self.adapter, &adam, longest, self.job.config)?;
            returned_step = best.validation.step;
        }
        let stop = if state.stopped && state.done() < self.total {
            Stop::Early
        } else {
            Stop::Finished
        };
        Ok(TrainReport {
            steps: state.steps,
            validations: state.validations,
            best: state.best,
            stop,
            returned_step,
            fallbacks: state.fallbacks,
            kept: kept.into_iter().take(self.job.config.keep).collect(),
        })
    }
}
