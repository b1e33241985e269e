//! The queue: a stage's order of work, its claim on slots, and who goes first.
//!
//! Promises: of what is ready, the stage on which most work hangs starts first.

use std::sync::Arc;
use std::time::Instant;

use cache::Digest;

use super::Scheduler;
use super::State;
use crate::plan::Planner;
use crate::run::job::Job;
use crate::run::machine::cores;
use crate::run::project::Project;

/// What a stage is thought to take that never ran, in milliseconds.
const UNKNOWN: u64 = 1000;

impl Scheduler<'_> {
    pub(in crate::run) fn job(
        &self,
        stage: usize,
        key: Digest,
        parts: cache::KeyParts,
        inputs: crate::plan::Inputs,
        reasons: Vec<String>,
    ) -> Job {
        let spec = self.spec(stage);
        let source = crate::plan::key::source(spec);
        let cores = self.options.jobs.unwrap_or_else(cores);
        // Who claims several cores means to use so many; one is what everybody claims.
        let threads = match usize::try_from(spec.resources.of("cpu")) {
            Ok(claim @ 2..) => claim.min(cores),
            _ => cores,
        };
        Job {
            pipeline: Arc::clone(&self.project.pipeline),
            store: Arc::clone(&self.project.store),
            stage,
            key,
            parts,
            inputs,
            pin: source
                .and_then(|id| self.project.lock.source(&id))
                .map(str::to_owned),
            threads,
            network: !self.options.frozen,
            forced: self.options.recompute
                || self.planner.forces(stage)
                || spec.effect == stages::Effect::External,
            log: self.project.log(&spec.id),
            reasons,
            out: self.project.out(),
        }
    }

    pub(in crate::run) fn queue(&mut self, stage: usize, job: Job) {
        let Some(job) = self.wants(stage, job) else {
            return;
        };
        if let Some(people) = self.planner.people(stage, &job.inputs) {
            self.people(stage, people.rows.len());
            return;
        }
        if let Some(last) = self.planner.last().get(&self.spec(stage).id) {
            let digests = last.outputs.iter();
            let digests = digests.map(|(name, tree)| (name.clone(), tree.digest()));
            self.before.insert(stage, digests.collect());
        }
        self.set(stage, State::Queued);
        self.line_up(stage);
        self.jobs.insert(stage, job);
    }

    /// Puts a stage in the queue for slots.
    pub(super) fn line_up(&mut self, stage: usize) {
        if self.urgency.is_empty() {
            self.urgency = urgency(self.project, &self.planner);
        }
        self.ready_since.insert(stage, Instant::now());
        let spec = self.spec(stage);
        self.pools
            .queue(stage, &spec.resources, self.urgency[stage]);
    }

    /// Takes a stage out of the queue; whether it was there.
    pub(in crate::run) fn step_out(&mut self, stage: usize) -> bool {
        let spec = self.spec(stage);
        let urgency = self.urgency.get(stage).copied().unwrap_or_default();
        self.pools.remove(stage, &spec.resources, urgency)
    }
}

/// How long everything takes that hangs on each stage, itself included: by the last results
/// where there are any.
fn urgency(project: &Project, planner: &Planner<'_>) -> Vec<u64> {
    let stages = &project.pipeline.stages;
    let mut urgency = vec![0; stages.len()];
    for stage in project.graph.order().iter().rev().copied() {
        let last = planner.last().get(&stages[stage].id);
        let own = last.map_or(UNKNOWN, |last| last.made.millis).max(1);
        let below = project.graph.children(stage);
        let below = below.into_iter().map(|child| urgency[child]).max();
        urgency[stage] = own + below.unwrap_or(0);
    }
    urgency
}
