//! The training loop, on one page: an epoch's order, a batch, its gradient, a step; now and then a
//! validation, samples and a checkpoint.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::adamw::{self, AdamW};
use super::batch::{self, Example, Group};
use super::checkpoint::{self, Fingerprint, LoopState, Progress};
use super::config::TrainConfig;
use super::event::{StepRecord, Stop, TrainEvent, TrainReport, Validation};
use super::memory::Budget;
use super::schedule;
use super::step::{BatchLoss, Masks, Runner};
use crate::error::{Error, Result};
use crate::generate::Generator;
use crate::nn::adapter::Adapter;
use crate::nn::model::{Model, decoded_bytes};
use crate::nn::pool::Pool;
use crate::ops::rope::RopeTable;
use crate::products::Unit;

/// Trains `adapter` on `train`, judging it on `val`.
///
/// Progress goes to `sink`. With `checkpoints`, the run can be stopped at any moment (also through
/// `cancel`, which ends it with [`Error::Cancelled`]) and called again with the same arguments: it goes on
/// where it was and ends with the same bytes as a run that was never stopped.
///
/// # Errors
/// [`Error::Config`] for settings or examples that cannot hold, [`Error::NonFinite`] at the step that
/// breaks, with its rows; [`Error::Format`] for a checkpoint of another run; [`Error::Io`].
pub fn train(
    model: &mut Model,
    adapter: &mut Adapter,
    train: &[Example],
    val: &[Example],
    config: &TrainConfig,
    checkpoints: Option<&Path>,
    sink: &mut dyn FnMut(TrainEvent),
    cancel: &AtomicBool,
) -> Result<TrainReport> {
    config.check()?;
    let vocab = model.config().vocab;
    train.iter().chain(val).try_for_each(|e| e.check(vocab))?;
    if train.is_empty() {
        return Err(Error::Config {
            what: "there are no training examples".to_owned(),
            mend: "give at least one".to_owned(),
        });
    }
    let mut run = Run::start(model, adapter, train, val, config, checkpoints, cancel)?;
    run.announce(sink);
    let outcome = run.all_steps(sink);
    if outcome.is_err() && run.unsaved {
        run.save(sink)?;
    }
    outcome?;
    run.finish()
}

/// A run in progress.
struct Run<'a> {
    model: &'a mut Model,
    adapter: &'a mut Adapter,
    train: &'a [Example],
    val: &'a [Example],
    val_groups: Vec<Group>,
    config: &'a TrainConfig,
    checkpoints: Option<&'a Path>,
    cancel: &'a AtomicBool,
    rope: RopeTable,
    budget: Budget,
    pool: Pool,
    total: u64,
    progress: Progress,
    /// Something has happened since the newest checkpoint.
    unsaved: bool,
}

impl<'a> Run<'a> {
    fn start(
        model: &'a mut Model,
        adapter: &'a mut Adapter,
        train: &'a [Example],
        val: &'a [Example],
        config: &'a TrainConfig,
        checkpoints: Option<&'a Path>,
        cancel: &'a AtomicBool,
    ) -> Result<Self> {
        let per_epoch = train.len().div_ceil(config.batch) as u64;
        let total = config
            .max_steps
            .unwrap_or(u64::MAX)
            .min(per_epoch * config.epochs as u64);
        let fingerprint = fingerprint(model, adapter, train, val, config);
        let len = adapter.values().len();
        let stored = checkpoints
            .map(|dir| checkpoint::load(dir, fingerprint, len))
            .transpose()?
            .flatten();
        let mut progress = stored.unwrap_or_else(|| Progress {
            state: LoopState::new(fingerprint),
            values: adapter.values().to_vec(),
            adam: AdamW::new(len),
            best: None,
        });
        progress.state.use_unit(&Unit::here().to_string());
        adapter.values_mut().copy_from_slice(&progress.values);
        model.attach(adapter)?;
        let shape = model.config();
        let longest = train
            .iter()
            .chain(val)
            .map(|e| e.ids.len())
            .max()
            .unwrap_or(0);
        let everything: Vec<usize> = (0..val.len()).collect();
        Ok(Self {
            rope: RopeTable::new(shape.head_dim, shape.rope_theta, longest),
            budget: Budget::new(shape, adapter.config().r, config),
            val_groups: batch::group(val, &everything, config.shared_prefix),
            pool: Pool::default(),
            unsaved: false,
            model,
            adapter,
            train,
            val,
            config,
            checkpoints,
            cancel,
            total,
            progress,
        })
    }

    fn announce(&self, sink: &mut dyn FnMut(TrainEvent)) {
        let done = self.progress.state.done();
        let peaks = (done..self.total).map(|step| {
            let groups = self.groups(step);
            groups
                .iter()
                .map(|g| self.budget.peak(self.train, g))
                .max()
                .unwrap_or(0)
        });
        let values = self.adapter.values().len() as u64;
        sink(TrainEvent::Started {
            steps: self.total,
            trainable: self.adapter.values().len(),
            examples: self.train.len(),
            validation: self.val.len(),
            resumed: done,
            units: self.progress.state.units.clone(),
            weight_bytes: decoded_bytes(self.model.config()),
            // Values, their copy beside the weights, gradient and two moments.
            adapter_bytes: 5 * 4 * values,
            activation_bytes: peaks.max().unwrap_or(0),
        });
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
        if !self.val.is_empty() && due(self.config.eval_every) && !judged {
            self.validate(sink)?;
            self.sample(sink)?;
            self.unsaved = true;
        }
        if self.unsaved && (due(self.config.save_every) || self.progress.state.stopped) {
            self.save(sink)?;
        }
        Ok(())
    }

    /// The batch of a step: a slice of its epoch's order.
    fn groups(&self, step: u64) -> Vec<Group> {
        let per_epoch = self.train.len().div_ceil(self.config.batch) as u64;
        let order = batch::order(self.train.len(), self.config.seed, step / per_epoch);
        let from = (step % per_epoch) as usize * self.config.batch;
        let to = (from + self.config.batch).min(order.len());
        batch::group(self.train, &order[from..to], self.config.shared_prefix)
    }

    fn runner<'r>(&'r self, examples: &'r [Example]) -> Runner<'r> {
        Runner {
            model: self.model,
            adapter: self.adapter,
            rope: &self.rope,
            examples,
            budget: self.budget,
            cancel: self.cancel,
        }
    }

    fn one_step(&mut self, sink: &mut dyn FnMut(TrainEvent)) -> Result<()> {
        let begun = Instant::now();
        let step = self.progress.state.done();
        let groups = self.groups(step);
        let mut pool = std::mem::take(&mut self.pool);
        let mut grads = pool.zeros(1, self.adapter.values().len());
        let masks = Masks {
            rate: self.adapter.config().dropout,
            seed: self.config.seed,
            step,
        };
        let loss = self
            .runner(self.train)
            .learn(&groups, masks, grads.data_mut(), &mut pool)?;
        let norm = adamw::norm(grads.data());
        self.check_finite(step, &loss, norm, &groups)?;
        let lr = schedule::rate(self.config, step, self.total);
        let factor = adamw::clip_factor(norm, self.config.clip);
        self.progress.adam.step(
            self.adapter.values_mut(),
            grads.data(),
            factor,
            lr,
            self.config,
        );
        self.model.attach(self.adapter)?;
        pool.give(grads);
        self.pool = pool;
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
    fn check_finite(&self, step: u64, loss: &BatchLoss, norm: f64, groups: &[Group]) -> Result<()> {
        if loss.broken.is_empty() && norm.is_finite() {
            return Ok(());
        }
        let named = if loss.broken.is_empty() {
            groups
                .iter()
                .flat_map(|g| g.members.iter().copied())
                .collect()
        } else {
            loss.broken.clone()
        };
        let rows = named
            .into_iter()
            .map(|i: usize| self.train[i].id.clone())
            .collect();
        Err(Error::NonFinite {
            step: step + 1,
            rows,
        })
    }

    fn validate(&mut self, sink: &mut dyn FnMut(TrainEvent)) -> Result<()> {
        let begun = Instant::now();
        let mut pool = std::mem::take(&mut self.pool);
        let loss = self.runner(self.val).judge(&self.val_groups, &mut pool)?;
        self.pool = pool;
        let state = &mut self.progress.state;
        let record = Validation {
            step: state.done(),
            loss: loss.mean(),
        };
        let best = state.best.as_ref().is_none_or(|b| record.loss < b.loss);
        state.stale = if best { 0 } else { state.stale + 1 };
        state.stopped = self
            .config
            .early_stop
            .is_some_and(|patience| state.stale >= patience);
        if best {
            state.best = Some(record.clone());
            self.progress.best = self
                .config
                .keep_best
                .then(|| self.adapter.values().to_vec());
        }
        state.validations.push(record.clone());
        sink(TrainEvent::Validated {
            record,
            best,
            seconds: begun.elapsed().as_secs_f64(),
        });
        Ok(())
    }

    fn sample(&mut self, sink: &mut dyn FnMut(TrainEvent)) -> Result<()> {
        let Some(samples) = &self.config.samples else {
            return Ok(());
        };
        let prompts: Vec<Vec<u32>> = samples.prompts.iter().map(|(_, ids)| ids.clone()).collect();
        let generator = Generator::attached(self.model, Some(self.adapter));
        let answers = generator.generate(&prompts, samples.max_new, &samples.stop)?;
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
        let Some(dir) = self.checkpoints else {
            return Ok(());
        };
        self.progress.values.copy_from_slice(self.adapter.values());
        checkpoint::save(dir, &self.progress)?;
        self.unsaved = false;
        sink(TrainEvent::Saved {
            step: self.progress.state.done(),
        });
        Ok(())
    }

    fn finish(self) -> Result<TrainReport> {
        let Progress { state, best, .. } = self.progress;
        let mut returned_step = state.done();
        if let (Some(values), Some(validation)) = (best, &state.best) {
            self.adapter.values_mut().copy_from_slice(&values);
            self.model.attach(self.adapter)?;
            returned_step = validation.step;
        }
        let stop = if state.stopped && state.done() < self.total {
            Stop::Early
        } else {
            Stop::Finished
        };
        Ok(TrainReport {
            units: state.units,
            steps: state.steps,
            validations: state.validations,
            best: state.best,
            stop,
            returned_step,
        })
    }
}

/// All that changes the bits of a run. How often it saves, validates for show, or holds rows is not in it
/// unless it changes the result.
fn fingerprint(
    model: &Model,
    adapter: &Adapter,
    train: &[Example],
    val: &[Example],
    config: &TrainConfig,
) -> u64 {
    let mut print = Fingerprint::new();
    let settings = TrainConfig {
        save_every: None,
        samples: None,
        ..config.clone()
    };
    print.add(format!("{settings:?} {:?} {:?}", adapter.config(), model.config()).as_bytes());
    for value in model.final_norm.iter().chain(adapter.values()) {
        print.add(&value.to_le_bytes());
    }
    for (part, examples) in [("train", train), ("val", val)] {
        print.add(part.as_bytes());
        for example in examples {
            print.add(example.id.as_bytes());
            let ids: Vec<u8> = example.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            print.add(&ids);
            print.add(
                &example
                    .labels
                    .iter()
                    .map(|l| u8::from(*l))
                    .collect::<Vec<_>>(),
            );
        }
    }
    print.finish()
}
