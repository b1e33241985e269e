//! The engine on one card: an adapter's values, gradients and moments beside the frozen base, and the loss
//! and gradient of a batch.
//!
//! What is kept, recomputed or moved to the host is planned first (plan.rs). If a group fits in one pass, its
//! prefix runs in that pass.

use std::sync::atomic::Ordering;

use kernels::params;
use kernels::{Grid, Kernel};

use super::base::Base;
use super::decoded::Decoded;
use super::decoder::{self, Contexts, Keep, Mover};
use super::device::Device;
use super::exec::Exec;
use super::generate::{Asked, How, Tuned};
use super::head::{self, Labels};
use super::layer::Run;
use super::linear::{Scratch, SitePlan};
use super::memory::{Region, Store};
use super::pass::{Pass, Tokens};
use super::reduce::Reducer;
use super::refuse;
use crate::error::{Error, Result};
use crate::nn::adapter::Adapter;
use crate::ranks::Collective;
use crate::train::{AdamW, BatchLoss, Group, Update, Work};

#[cfg(test)]
mod fallback_tests;
mod plan;
mod spare;
#[cfg(test)]
mod tests;

use plan::{GroupPlan, parts};

/// What the caller may settle; all else follows from shapes and the card.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Keeps this instead of what fits best.
    pub keep: Option<Keep>,
    /// Bytes of the card to use, instead of nearly all.
    pub memory: Option<usize>,
    /// A step's block above so many bytes is refused, as by a card that others fill: for tests.
    pub refuse_above: Option<usize>,
    /// Weights are decoded before each product even where there is memory to keep them decoded.
    pub decode_again: bool,
    /// Ranks divide prefixes always, or never, instead of where that saves time.
    pub divide: Option<bool>,
}

/// A base with an adapter in training.
pub struct CudaEngine {
    /// Taken back by [`CudaEngine::into_base`].
    held: Option<Base>,
    store: Store,
    options: Options,
    sites: Vec<SitePlan>,
    count: usize,
    /// Values, gradient, first and second moment.
    values: Region,
    grads: Region,
    first: Region,
    second: Region,
    parts: Region,
    norm: Region,
    block: Option<Region>,
    decoded: Option<Decoded>,
    mover: Option<Mover>,
    /// A step's block stays below what the card once refused.
    below: usize,
    refused: Vec<u64>,
    /// Sums gradients with other ranks' cards.
    reducer: Option<Reducer>,
}

/// Values per partial sum of the gradient's norm; as in adamw.cu.
const NORM_CHUNK: usize = 1 << 14;

impl CudaEngine {
    /// A base with room for an adapter shaped as `adapter`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the adapter is for another model; [`Error::Device`].
    pub fn new(base: Base, adapter: &Adapter, options: Options) -> Result<Self> {
        fits(&base, adapter)?;
        base.device.bind()?;
        let sites = SitePlan::all(&base, Some(adapter));
        let count = adapter.values().len();
        let mut store = Store::new();
        let mut take = |bytes| store.take(&base.device, bytes);
        let [values, grads, first, second] = [
            take(4 * count)?,
            take(4 * count)?,
            take(4 * count)?,
            take(4 * count)?,
        ];
        let parts = take(8 * count.div_ceil(NORM_CHUNK))?;
        let norm = take(8)?;
        Ok(Self {
            held: Some(base),
            store,
            options,
            sites,
            count,
            values,
            grads,
            first,
            second,
            parts,
            norm,
            block: None,
            decoded: None,
            mover: None,
            below: usize::MAX,
            refused: Vec::new(),
            reducer: None,
        })
    }

    /// Meets the ranks that gradients are summed with.
    pub(crate) fn join(&mut self, ranks: &dyn Collective, adapter: &Adapter) -> Result<()> {
        if self.reducer.is_none() {
            let joined = Reducer::join(&self.base().device, adapter, self.grads, ranks)?;
            self.reducer = Some(joined);
        }
        Ok(())
    }

    /// What decides the order in which ranks are summed.
    pub(super) fn sums(&self) -> String {
        let sums = self.reducer.as_ref().map(Reducer::numerics);
        sums.map_or_else(String::new, |sums| format!(", {sums}"))
    }

    /// The base and its card.
    pub fn base(&self) -> &Base {
        self.held.as_ref().expect("given back only by value")
    }

    /// Ends the training and gives the base back, for another adapter.
    pub fn into_base(mut self) -> Base {
        self.release();
        self.held.take().expect("given back once")
    }

    fn release(&mut self) {
        self.mover = None;
        self.forget_decoded();
        if let Some(base) = &self.held {
            if let Some(block) = self.block.take() {
                base.device.free(block);
            }
            self.store.free(&base.device);
        }
    }

    /// Bytes of the card in use: weights, adapter and its moments; and the block of a step.
    pub fn bytes(&self) -> (usize, usize) {
        (
            self.base().bytes() + self.store.bytes(),
            self.block.map_or(0, |b| b.bytes),
        )
    }

    fn limit(&self) -> usize {
        let all = self
            .options
            .memory
            .unwrap_or_else(|| usable(&self.base().device));
        let left = all.saturating_sub(self.base().bytes() + self.store.bytes());
        left.min(self.below.saturating_sub(1))
    }

    /// Keeps the plan below a block that was refused: by the card just now, or before a run was stopped.
    pub(crate) fn stay_below(&mut self, bytes: usize) {
        self.below = self.below.min(bytes);
    }

    /// What the card refused since this was last asked.
    pub(crate) fn refused(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.refused)
    }

    /// Brings an adapter and its moments onto the card.
    pub(crate) fn begin(&mut self, adapter: &Adapter, adam: &AdamW) -> Result<()> {
        if let Some(decoded) = &self.decoded {
            decoded.outdate();
        }
        let device = &self.base().device;
        device.bind()?;
        device.upload(self.values, adapter.values())?;
        if adam.steps == 0 {
            device.zero(self.first)?;
            return device.zero(self.second);
        }
        device.upload(self.first, &adam.first)?;
        device.upload(self.second, &adam.second)
    }

    /// The other way.
    pub(crate) fn fetch(&mut self, adapter: &mut Adapter, adam: &mut AdamW) -> Result<()> {
        let device = &self.base().device;
        device.download(self.values, adapter.values_mut())?;
        device.download(self.first, &mut adam.first)?;
        device.download(self.second, &mut adam.second)
    }

    /// The gradient of the mean loss, left on the card; gives the loss and the gradient's norm.
    pub(crate) fn learn(&mut self, work: Work<'_>) -> Result<(BatchLoss, f64)> {
        let learned = self.gradient(work);
        if let (Err(_), Some(reducer)) = (&learned, &mut self.reducer) {
            reducer.give_up();
        }
        learned
    }

    fn gradient(&mut self, work: Work<'_>) -> Result<(BatchLoss, f64)> {
        let plans = self.settle_together(work)?;
        let mut loss = BatchLoss::count(work.mean, work.examples, work.groups);
        let this = &*self;
        let block = this.block.expect("reserved above");
        let mut exec = Exec::on(&this.base().device, this.base().element, block);
        let losses = exec.floats(loss.labels as usize);
        exec.zero(this.grads);
        let mut at = 0;
        let weight = Some(work.over);
        if let Some(reducer) = &this.reducer {
            reducer.begin();
            exec.peers = reducer.peers.as_ref();
        }
        for (i, (group, plan)) in work.groups.iter().zip(&plans).enumerate() {
            let last = i + 1 == plans.len();
            this.group(&mut exec, work, group, plan, weight, last, losses, &mut at)?;
        }
        if let Some(reducer) = &this.reducer {
            exec.go(|device| reducer.finish(device));
        }
        this.norm(&mut exec);
        exec.check()?;
        if let (Some(reducer), Some(ranks)) = (&mut self.reducer, work.ranks) {
            let base = self.held.as_ref().expect("given back only by value");
            reducer.wait(&base.device, ranks)?;
        }
        let this = &*self;
        let mut norm = [0.0f64];
        this.base().device.download(this.norm, &mut norm)?;
        take_losses(&this.base().device, losses, &mut loss, work, &plans)?;
        Ok((loss, norm[0]))
    }

    /// The loss alone: no masks, nothing kept.
    pub(crate) fn judge(&mut self, work: Work<'_>) -> Result<BatchLoss> {
        let mut total = BatchLoss::default();
        for groups in parts(work) {
            let part = Work {
                groups: &groups,
                masks: None,
                ..work
            };
            let plans = self.settle(part, false)?;
            let mut loss = BatchLoss::count(part.mean, part.examples, part.groups);
            let this = &*self;
            let mut exec = Exec::on(
                &this.base().device,
                this.base().element,
                this.block.expect("reserved above"),
            );
            let losses = exec.floats(loss.labels as usize);
            this.group(
                &mut exec, part, &groups[0], &plans[0], None, false, losses, &mut 0,
            )?;
            exec.check()?;
            take_losses(&this.base().device, losses, &mut loss, part, &plans)?;
            total.add(loss);
        }
        Ok(total)
    }

    /// One optimizer step from the gradient on the card.
    pub(crate) fn step(&mut self, update: &Update) -> Result<()> {
        if let Some(decoded) = &self.decoded {
            decoded.outdate();
        }
        let p = params::AdamwStep {
            values: self.values.at,
            gradient: self.grads.at,
            first: self.first.at,
            second: self.second.at,
            count: self.count as u64,
            factor: update.factor,
            shrink: update.shrink,
            b1: update.b1,
            one_minus_b1: update.one_minus_b1,
            b2: update.b2,
            one_minus_b2: update.one_minus_b2,
            rate: update.rate,
            root: update.root,
            eps: update.eps,
            unused: 0,
        };
        self.base().device.launch(
            Kernel::AdamwStep,
            kernels::Element::F32,
            Grid::cover(self.count, 256, 1),
            &p,
        )
    }

    fn norm(&self, exec: &mut Exec<'_>) {
        let chunks = self.count.div_ceil(NORM_CHUNK);
        let p = params::GradientNorm {
            gradient: self.grads.at,
            parts: self.parts.at,
            norm: self.norm.at,
            count: self.count as u64,
            chunks: chunks as u32,
            unused: 0,
        };
        exec.launch(Kernel::GradientSquares, Grid::row(chunks, 256), &p);
        exec.launch(Kernel::GradientNorm, Grid::row(1, 256), &p);
    }

    /// One group; with the `last` one's last backward the step's gradient is complete.
    fn group<'d>(
        &'d self,
        exec: &mut Exec<'d>,
        work: Work<'_>,
        group: &Group,
        plan: &GroupPlan,
        weight: Option<f64>,
        last: bool,
        losses: Region,
        at: &mut usize,
    ) -> Result<()> {
        let mark = exec.arena.mark();
        let shared = &work.examples[group.members[0]].ids[..group.prefix];
        let reducer = self.reducer.as_ref().filter(|_| last);
        if plan.micro.len() == 1 || group.prefix == 0 {
            let gathered = plan
                .divided
                .then(|| Contexts::take(exec, &self.base().config, group.prefix, false));
            for (i, members) in plan.micro.iter().enumerate() {
                exec.reducer = reducer.filter(|_| i + 1 == plan.micro.len());
                self.micro(
                    exec,
                    work,
                    group,
                    members,
                    plan.keep,
                    shared,
                    gathered.as_ref(),
                    weight,
                    losses,
                    at,
                )?;
            }
            exec.arena.release(mark);
            return Ok(());
        }
        let mut tokens = Tokens::new(shared, 0, &[]);
        tokens.keys = work.masks.map(|m| m.prefix_keys(shared));
        let pass = Pass::upload(exec, &tokens, work.masks.map_or(0.0, |m| m.rate));
        let keep = match plan.keep {
            Keep::Offloaded => Keep::Inputs,
            other => other,
        };
        let scratch = Scratch::take(exec, &self.sites, pass.tokens, pass.masks.is_some());
        let run = self.run(&pass, scratch);
        let contexts = Contexts::take(exec, &self.base().config, group.prefix, weight.is_some());
        let tape = decoder::forward_prefix(exec, &run, keep, &contexts);
        for members in &plan.micro {
            self.micro(
                exec,
                work,
                group,
                members,
                plan.keep,
                &[],
                Some(&contexts),
                weight,
                losses,
                at,
            )?;
        }
        if weight.is_some() {
            exec.reducer = reducer;
            decoder::backward_prefix(exec, &run, &tape, &contexts);
        }
        exec.arena.release(mark);
        Ok(())
    }

    fn run<'r>(&'r self, pass: &'r Pass, scratch: Scratch) -> Run<'r> {
        Run {
            base: self.base(),
            sites: &self.sites,
            decoded: self.decoded.as_ref(),
            values: self.values,
            grads: self.grads,
            scratch,
            pass,
        }
    }

    /// One pass: some rows, behind a prefix that runs with them (`joint`), ran before (`contexts`), or is divided
    /// (both).
    fn micro(
        &self,
        exec: &mut Exec<'_>,
        work: Work<'_>,
        group: &Group,
        members: &[usize],
        keep: Keep,
        joint: &[u32],
        contexts: Option<&Contexts>,
        weight: Option<f64>,
        losses: Region,
        at: &mut usize,
    ) -> Result<()> {
        if work.cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        let mark = exec.arena.mark();
        let rows: Vec<&[u32]> = members
            .iter()
            .map(|m| &work.examples[*m].ids[group.prefix..work.examples[*m].read()])
            .collect();
        let division = group.division.as_ref();
        let division = division.filter(|_| !joint.is_empty() && contexts.is_some());
        let mut tokens = match division {
            Some(division) => Tokens::divided(joint, division, &rows),
            None => Tokens::new(joint, group.prefix - joint.len(), &rows),
        };
        tokens.keys = work.masks.map(|masks| {
            let mut keys = masks.prefix_keys(joint);
            if let Some(division) = division {
                keys = keys[division.own()].to_vec();
            }
            for member in members {
                keys.extend(masks.row_keys(&work.examples[*member], group));
            }
            keys
        });
        assert!(
            tokens.len() < 1 << 16,
            "one pass holds at most 65,535 tokens"
        );
        let (mut places, mut targets, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        let mut base = tokens.joint;
        for (member, row) in members.iter().zip(&rows) {
            let share = work.mean.share(work.examples[*member].labelled());
            let weight = (share / weight.unwrap_or(1.0)) as f32;
            for predicts in work.examples[*member].predicts(group.prefix, base, weight) {
                places.push(predicts.token as u32);
                targets.push(predicts.target);
                weights.push(predicts.weight);
            }
            base += row.len();
        }
        let pass = Pass::upload(exec, &tokens, work.masks.map_or(0.0, |m| m.rate));
        let labels = Labels::upload(exec, &places, &targets, &weights);
        let scratch = Scratch::take(exec, &self.sites, pass.tokens, pass.masks.is_some());
        let run = self.run(&pass, scratch);
        let mover = self.mover.as_ref();
        let tape = decoder::forward(exec, &run, keep, contexts, mover);
        let own = losses.part(4 * *at, 4 * places.len());
        *at += places.len();
        if weight.is_some() {
            let dx = exec.rows(pass.tokens, self.base().config.hidden);
            head::losses(exec, self.base(), tape.hidden, &labels, own, Some(dx));
            decoder::backward(exec, &run, &tape, dx, contexts, mover);
        } else {
            head::losses(exec, self.base(), tape.hidden, &labels, own, None);
        }
        exec.arena.release(mark);
        exec.check()
    }

    /// Greedy answers of the adapter as it stands on the card.
    pub(crate) fn answer(
        &mut self,
        prompts: &[Vec<u32>],
        max_new: usize,
        stop: &[u32],
    ) -> Result<Vec<Vec<u32>>> {
        let answers = self.try_answer(prompts, max_new, stop);
        let full = matches!(
            answers,
            Err(Error::OutOfMemory { .. } | Error::Device { .. })
        );
        if full && self.forget_decoded() {
            return self.try_answer(prompts, max_new, stop);
        }
        answers
    }

    fn try_answer(
        &mut self,
        prompts: &[Vec<u32>],
        max_new: usize,
        stop: &[u32],
    ) -> Result<Vec<Vec<u32>>> {
        let mut block = self.block;
        let tuned = Tuned {
            base: self.base(),
            sites: &self.sites,
            values: self.values,
            limit: self.limit().saturating_sub(self.decoded_bytes()),
            how: How::default(),
        };
        let answers = Asked::new(&tuned, prompts, max_new, stop)
            .and_then(|asked| tuned.answer(&mut block, &asked, &mut |_, _| true));
        self.block = block;
        answers
    }
}

/// Refuses an adapter that this base cannot carry on a card.
pub(super) fn fits(base: &Base, adapter: &Adapter) -> Result<()> {
    let fits = adapter.slots().iter().all(|s| {
        s.layer < base.config.layers && s.target.shape(&base.config) == (s.outputs, s.inputs)
    });
    if !fits {
        return Err(Error::shape("the adapter", "one for this model", "another"));
    }
    refuse::pairs(adapter)
        .into_iter()
        .next()
        .map_or(Ok(()), Err)
}

/// Bytes to use of a card: from its whole memory, never from what is free, so that equal cards plan alike.
pub(super) fn usable(device: &Device) -> usize {
    let card = device.info().memory;
    card - card / 16 - (512 << 20)
}

fn take_losses(
    device: &Device,
    losses: Region,
    loss: &mut BatchLoss,
    work: Work<'_>,
    plans: &[GroupPlan],
) -> Result<()> {
    let mut values = vec![0.0f32; loss.labels as usize];
    device.download(losses, &mut values)?;
    let values: Vec<f64> = values.into_iter().map(f64::from).collect();
    let counts: Vec<(usize, usize, f64)> = plans
        .iter()
        .flat_map(|p| p.micro.iter().flatten())
        .map(|m| {
            let labels = work.examples[*m].labelled();
            (*m, labels, work.mean.share(labels))
        })
        .collect();
    loss.take(&counts, &values);
    Ok(())
}

impl Drop for CudaEngine {
    fn drop(&mut self) {
        self.release();
    }
}
