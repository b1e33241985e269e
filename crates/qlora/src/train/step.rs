//! The loss and the gradient of one batch.
//!
//! For each group: the prefix once forward; its rows in micro-batches forward and backward, each adding
//! the gradient of the prefix's keys and values; the prefix once backward. Every label's weight
//! is known before the first of them runs, so the order and size of micro-batches change no weight.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::batch::{Example, Group};
use super::config::LossMean;
use super::memory::{Budget, GroupPlan};
use crate::error::{Error, Result};
use crate::nn::adapter::Adapter;
use crate::nn::decoder::{self, Keep};
use crate::nn::head::{self, Predicts};
use crate::nn::model::Model;
use crate::nn::pass::{Pass, Rows};
use crate::nn::pool::Pool;
use crate::nn::ropes::Ropes;
use crate::ops::dropout::{self, Dropout};
use crate::tensor::Matrix;

/// What is needed to run examples through the model.
pub(super) struct Runner<'a> {
    pub(super) model: &'a Model,
    /// Attached to the model.
    pub(super) adapter: &'a Adapter,
    pub(super) rope: &'a Ropes,
    pub(super) examples: &'a [Example],
    pub(super) budget: Budget,
    pub(super) mean: LossMean,
    /// Sum of the weights of the whole batch, of which one may run a part.
    pub(super) over: f64,
    pub(super) cancel: &'a AtomicBool,
}

/// The masks of one step; none at rate zero and in validation.
#[derive(Clone, Copy)]
pub(crate) struct Masks {
    pub(crate) rate: f32,
    pub(crate) seed: u64,
    pub(crate) step: u64,
}

/// What a batch cost and taught.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BatchLoss {
    /// Sum over all labels, weighted by [`LossMean::share`] and by [`Example::weight`].
    pub(crate) sum: f64,
    /// Sum of the weights.
    pub(crate) over: f64,
    pub(crate) labels: u64,
    pub(crate) tokens: u64,
    pub(crate) separate_tokens: u64,
    /// Of examples that do not weigh 1.
    weights: BTreeMap<usize, f64>,
    /// Examples whose loss is not finite.
    pub(crate) broken: Vec<usize>,
}

/// Tokens of one micro-batch, ready to run.
struct Micro {
    rows: Rows,
    ids: Vec<u32>,
    predicts: Vec<Predicts>,
    /// Per member: its place in the examples, how many of `predicts` are its own, each one's share.
    counts: Vec<(usize, usize, f64)>,
    dropout: Option<Dropout>,
}

/// A running prefix: its tokens, tape, keys and values.
struct Prefix {
    rows: Rows,
    dropout: Option<Dropout>,
    tape: decoder::PrefixTape,
    contexts: Vec<Matrix>,
}

impl Runner<'_> {
    /// Adds the gradient of the mean loss to `grads`.
    pub(super) fn learn(
        &self,
        groups: &[Group],
        masks: Option<Masks>,
        grads: &mut [f32],
        pool: &mut Pool,
    ) -> Result<BatchLoss> {
        let mut loss = BatchLoss::count(self.mean, self.examples, groups);
        for group in groups {
            let plan = self.budget.plan(self.examples, group);
            self.learn_group(group, &plan, masks, grads, &mut loss, pool)?;
        }
        Ok(loss)
    }

    fn learn_group(
        &self,
        group: &Group,
        plan: &GroupPlan,
        masks: Option<Masks>,
        grads: &mut [f32],
        loss: &mut BatchLoss,
        pool: &mut Pool,
    ) -> Result<()> {
        let prefix = self.run_prefix(group, plan.keep_prefix, masks, pool);
        let contexts = prefix.as_ref().map(|p| p.contexts.as_slice());
        let zeros = |contexts: &[Matrix]| -> Vec<Matrix> {
            contexts
                .iter()
                .map(|c| Matrix::zeros(c.rows(), c.cols()))
                .collect()
        };
        let mut context_grads = contexts.map(zeros);
        for (members, keep) in &plan.micro {
            self.check_cancel()?;
            let micro = self.micro(members, group, masks);
            let pass = self.pass(&micro.rows, micro.dropout.as_ref());
            let x = decoder::embed(self.model, micro.ids.iter().copied(), pool);
            let (tape, hidden) = decoder::forward(&pass, x, contexts, *keep, pool);
            let (losses, dx) =
                head::losses_and_gradient(self.model, &hidden, &micro.predicts, pool);
            pool.give(hidden);
            loss.take(&micro.counts, &losses);
            decoder::backward(
                &pass,
                tape,
                dx,
                contexts,
                context_grads.as_deref_mut(),
                grads,
                pool,
            );
        }
        if let (Some(prefix), Some(context_grads)) = (prefix, context_grads) {
            let pass = self.pass(&prefix.rows, prefix.dropout.as_ref());
            decoder::backward_prefix(&pass, prefix.tape, &context_grads, grads, pool);
        }
        Ok(())
    }

    /// The loss alone: no masks, nothing kept.
    pub(super) fn judge(&self, groups: &[Group], pool: &mut Pool) -> Result<BatchLoss> {
        let mut loss = BatchLoss::count(self.mean, self.examples, groups);
        for group in groups {
            let plan = self.budget.plan(self.examples, group);
            let prefix = self.run_prefix(group, Keep::Nothing, None, pool);
            let contexts = prefix.as_ref().map(|p| p.contexts.as_slice());
            for (members, _) in &plan.micro {
                self.check_cancel()?;
                let micro = self.micro(members, group, None);
                let pass = self.pass(&micro.rows, None);
                let x = decoder::embed(self.model, micro.ids.iter().copied(), pool);
                let (_, hidden) = decoder::forward(&pass, x, contexts, Keep::Nothing, pool);
                let losses = head::losses(self.model, &hidden, &micro.predicts, pool);
                pool.give(hidden);
                loss.take(&micro.counts, &losses);
            }
        }
        Ok(loss)
    }

    fn run_prefix(
        &self,
        group: &Group,
        keep: Keep,
        masks: Option<Masks>,
        pool: &mut Pool,
    ) -> Option<Prefix> {
        if group.prefix == 0 {
            return None;
        }
        let ids = &self.examples[group.members[0]].ids[..group.prefix];
        let rows = Rows::new([ids.len()], 0);
        let dropout = masks.map(|m| Dropout::new(m.rate, m.prefix_keys(ids)));
        let pass = self.pass(&rows, dropout.as_ref());
        let x = decoder::embed(self.model, ids.iter().copied(), pool);
        let (tape, contexts) = decoder::forward_prefix(&pass, x, keep, pool);
        Some(Prefix {
            rows,
            dropout,
            tape,
            contexts,
        })
    }

    fn micro(&self, members: &[usize], group: &Group, masks: Option<Masks>) -> Micro {
        let lens = members
            .iter()
            .map(|m| self.examples[*m].read() - group.prefix);
        let rows = Rows::new(lens, group.prefix);
        let (mut ids, mut predicts, mut counts, mut keys) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for member in members {
            let example = &self.examples[*member];
            let before = predicts.len();
            let share = self.mean.share(example.labelled());
            let weight = (share / self.over) as f32;
            predicts.extend(example.predicts(group.prefix, ids.len(), weight));
            counts.push((*member, predicts.len() - before, share));
            ids.extend_from_slice(&example.ids[group.prefix..example.read()]);
            if let Some(masks) = masks {
                keys.extend(masks.row_keys(example, group));
            }
        }
        let dropout = masks.map(|m| Dropout::new(m.rate, keys));
        Micro {
            rows,
            ids,
            predicts,
            counts,
            dropout,
        }
    }

    fn pass<'p>(&'p self, rows: &'p Rows, dropout: Option<&'p Dropout>) -> Pass<'p> {
        Pass {
            model: self.model,
            adapter: Some(self.adapter),
            rope: self.rope,
            rows,
            dropout,
        }
    }

    fn check_cancel(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }
}

impl BatchLoss {
    /// Labels and tokens of a batch, no loss yet.
    pub(crate) fn count(mean: LossMean, examples: &[Example], groups: &[Group]) -> Self {
        let mut loss = Self::default();
        for group in groups {
            loss.tokens += group.prefix as u64;
            for member in &group.members {
                let example = &examples[*member];
                let labels = example.labelled();
                loss.labels += labels as u64;
                loss.over += example.weight * mean.share(labels) * labels as f64;
                if example.weight != 1.0 {
                    loss.weights.insert(*member, example.weight);
                }
                loss.tokens += (example.read() - group.prefix) as u64;
                loss.separate_tokens += example.read() as u64;
            }
        }
        loss
    }

    /// Losses of some rows, one after the other: for each its place and how many are its own, and each one's share.
    pub(crate) fn take(&mut self, counts: &[(usize, usize, f64)], losses: &[f64]) {
        let mut rest = losses;
        for (member, count, share) in counts {
            let (own, others) = rest.split_at(*count);
            rest = others;
            let sum: f64 = own.iter().sum();
            if !sum.is_finite() {
                self.broken.push(*member);
            }
            let weight = self.weights.get(member).unwrap_or(&1.0);
            self.sum += weight * share * sum;
        }
    }

    /// Takes in another part of the same batch.
    pub(crate) fn add(&mut self, other: Self) {
        self.sum += other.sum;
        self.over += other.over;
        self.labels += other.labels;
        self.tokens += other.tokens;
        self.separate_tokens += other.separate_tokens;
        self.weights.extend(other.weights);
        self.broken.extend(other.broken);
    }

    /// The weighted mean.
    pub(crate) fn mean(&self) -> f64 {
        self.sum / self.over
    }
}

impl Masks {
    /// Keys of a prefix's tokens.
    pub(crate) fn prefix_keys(&self, ids: &[u32]) -> Vec<u64> {
        let stream = prefix_stream(ids);
        (0..ids.len()).map(|p| self.key(stream, p)).collect()
    }

    /// Keys of a row's own tokens, those behind its group's prefix.
    pub(crate) fn row_keys(&self, example: &Example, group: &Group) -> Vec<u64> {
        let own = row_stream(&example.id);
        let shared = prefix_stream(&example.ids[..group.prefix_mask]);
        let stream = |p: usize| if p < group.prefix_mask { shared } else { own };
        (group.prefix..example.read())
            .map(|p| self.key(stream(p), p))
            .collect()
    }

    fn key(&self, stream: u64, position: usize) -> u64 {
        dropout::token_key(self.seed, self.step, stream, position as u32)
    }
}

/// Names a row for dropout by its id alone.
fn row_stream(id: &str) -> u64 {
    id.bytes().fold(0x0072_6f77, |hash, byte| {
        dropout::mix(hash ^ u64::from(byte))
    })
}

/// Names a prefix for dropout by its ids.
fn prefix_stream(ids: &[u32]) -> u64 {
    ids.iter()
        .fold(0x7072_6566, |hash, id| dropout::mix(hash ^ u64::from(*id)))
}
