//! How a step runs: what is kept, computed again or moved to the host, and how many rows go at a time.
//!
//! Promises: found from shapes and the card's whole memory, by running the step without a card and counting; where the card
//! then refuses the memory, the next smaller plan. Must not know: how the gradient is computed or summed.

use std::sync::atomic::AtomicBool;

use super::CudaEngine;
use crate::cuda::decoder::{Keep, Mover};
use crate::cuda::device::{Pinned, full};
use crate::cuda::exec::{self, Exec};
use crate::error::{Error, Result};
use crate::train::{BatchLoss, Example, Group, StepPlan, Work};

/// How one group runs.
#[derive(Clone, Debug)]
pub(super) struct GroupPlan {
    /// Members by micro-batch; the prefix runs in the pass if there is only one.
    pub(super) micro: Vec<Vec<usize>>,
    pub(super) keep: Keep,
}

impl CudaEngine {
    /// Plans, and takes what the plan needs; where the card refuses it, the next smaller plan.
    pub(super) fn settle(&mut self, work: Work<'_>, learn: bool) -> Result<Vec<GroupPlan>> {
        loop {
            let (plans, peak) = self.plans(work, learn)?;
            // A rank without rows still takes part in the sum.
            let peak = peak.max(exec::LEAST);
            match self.reserve(work, &plans, peak) {
                Err(Error::OutOfMemory { mend, .. }) if peak == exec::LEAST => {
                    let card = &self.base().device.info().name;
                    let what = format!(
                        "{card} refuses the {} MiB of a step without rows",
                        peak >> 20
                    );
                    return Err(Error::OutOfMemory { what, mend });
                }
                Err(Error::OutOfMemory { .. }) => {
                    self.stay_below(peak);
                    self.refused.push(peak as u64);
                }
                reserved => return reserved.map(|()| plans),
            }
        }
    }

    /// What [`CudaEngine::judge`] would take at a time.
    pub(crate) fn judging(&self, work: Work<'_>) -> Result<usize> {
        let mut most = 0;
        for groups in parts(work) {
            let part = Work {
                groups: &groups,
                masks: None,
                ..work
            };
            most = most.max(self.plans(part, false)?.1);
        }
        Ok(most)
    }

    /// What a step would take, at most.
    pub(crate) fn step_plan(&self, work: Work<'_>) -> Result<StepPlan> {
        let (plans, peak) = self.plans(work, true)?;
        let rows = plans.iter().flat_map(|p| p.micro.iter().map(Vec::len));
        Ok(StepPlan {
            bytes: peak as u64,
            host_bytes: self.pinned(work, &plans) as u64,
            keeping: plans
                .iter()
                .map(|p| p.keep.into())
                .max()
                .unwrap_or_default(),
            rows: rows.max().unwrap_or(0),
            passes: plans.iter().map(|p| p.micro.len()).max().unwrap_or(0),
        })
    }

    /// A plan for each group, and the bytes that the largest step takes.
    fn plans(&self, work: Work<'_>, learn: bool) -> Result<(Vec<GroupPlan>, usize)> {
        let mut peak = 0;
        let mut plans = Vec::new();
        for group in work.groups {
            let (plan, bytes) = self.plan(work, group, learn)?;
            peak = peak.max(bytes);
            plans.push(plan);
        }
        Ok((plans, peak))
    }

    fn plan(&self, work: Work<'_>, group: &Group, learn: bool) -> Result<(GroupPlan, usize)> {
        let members = group.members.len();
        let mut size = work.micro_batch.unwrap_or(members).clamp(1, members);
        let keeps: &[Keep] = if learn {
            &[Keep::Everything, Keep::Inputs, Keep::Offloaded]
        } else {
            &[Keep::Nothing]
        };
        loop {
            let micro: Vec<Vec<usize>> =
                group.members.chunks(size).map(<[usize]>::to_vec).collect();
            for keep in keeps {
                if learn && self.options.keep.is_some_and(|k| k != *keep) {
                    continue;
                }
                let plan = GroupPlan {
                    micro: micro.clone(),
                    keep: *keep,
                };
                let bytes = self.count(work, group, &plan, learn)?;
                if bytes <= self.limit() {
                    return Ok((plan, bytes));
                }
            }
            if size == 1 {
                let why = match self.below {
                    usize::MAX => String::new(),
                    refused => format!(", which refused {} MiB", refused >> 20),
                };
                let what = format!(
                    "one row of `{}` does not fit on {}{why}",
                    work.examples[group.members[0]].id,
                    self.base().device.info().name
                );
                return Err(Error::device(
                    what,
                    "shorten the longest rows, or use a card with more memory",
                ));
            }
            size = size.div_ceil(2);
        }
    }

    /// Bytes that a group takes, by running it without a card.
    fn count(&self, work: Work<'_>, group: &Group, plan: &GroupPlan, learn: bool) -> Result<usize> {
        let mut exec = Exec::counting(self.base().element, self.base().device.info().card());
        let labels = BatchLoss::count(work.mean, work.examples, work.groups).labels as usize;
        let losses = exec.floats(labels);
        let free = Work {
            cancel: &AtomicBool::new(false),
            ..work
        };
        self.group(
            &mut exec,
            free,
            group,
            plan,
            learn.then_some(1.0f64),
            false,
            losses,
            &mut 0,
        )?;
        Ok(exec.arena.peak())
    }

    /// Bytes of host memory that the layer inputs of these plans take.
    fn pinned(&self, work: Work<'_>, plans: &[GroupPlan]) -> usize {
        let offloaded = work.groups.iter().zip(plans);
        let offloaded = offloaded.filter(|(_, p)| p.keep == Keep::Offloaded);
        let tokens = offloaded.flat_map(|(group, plan)| {
            let joint = if plan.micro.len() == 1 {
                group.prefix
            } else {
                0
            };
            plan.micro.iter().map(move |m| {
                joint
                    + m.iter()
                        .map(|i| work.examples[*i].read() - group.prefix)
                        .sum::<usize>()
            })
        });
        let config = &self.base().config;
        tokens.max().unwrap_or(0) * config.hidden * self.base().element.size() * config.layers
    }

    /// Makes sure that block and host memory are large enough; only grows.
    fn reserve(&mut self, work: Work<'_>, plans: &[GroupPlan], peak: usize) -> Result<()> {
        let pinned = self.pinned(work, plans);
        let base = self.held.as_ref().expect("given back only by value");
        let device = &base.device;
        device.bind()?;
        if self.block.is_none_or(|b| b.bytes < peak) {
            if let Some(old) = self.block.take() {
                device.free(old);
            }
            if self.options.refuse_above.is_some_and(|most| peak > most) {
                return Err(full("a step's block"));
            }
            self.block = Some(device.allocate(peak)?);
        }
        if pinned > self.mover.as_ref().map_or(0, |m| m.pinned.bytes) {
            self.mover = None;
            let two = || -> Result<_> { Ok([device.event()?, device.event()?]) };
            self.mover = Some(Mover {
                pinned: Pinned::new(device, pinned)?,
                written: two()?,
                out: two()?,
                free: two()?,
                back: two()?,
            });
        }
        Ok(())
    }
}

/// What is judged at a time: one group, a portion of its members. A validation set has no bound.
pub(super) fn parts(work: Work<'_>) -> impl Iterator<Item = [Group; 1]> {
    work.groups.iter().flat_map(move |group| {
        portions(work.examples, group)
            .into_iter()
            .map(|members| {
                [Group {
                    members,
                    ..group.clone()
                }]
            })
            .collect::<Vec<_>>()
    })
}

/// Members of a validation group, few enough at a time.
fn portions(examples: &[Example], group: &Group) -> Vec<Vec<usize>> {
    let mut portions: Vec<Vec<usize>> = Vec::new();
    let mut tokens = usize::MAX;
    for member in &group.members {
        let len = examples[*member].read() - group.prefix;
        match portions.last_mut() {
            Some(last) if tokens + len <= 8192 => {
                last.push(*member);
                tokens += len;
            }
            _ => {
                portions.push(vec![*member]);
                tokens = len;
            }
        }
    }
    portions
}
