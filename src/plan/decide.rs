//! Fresh, to run, waiting, or ready: one stage at a time.

use std::collections::BTreeMap;

use cache::{Digest, KeyParts, Record, Store};
use stages::Effect;

use super::decision::{Decision, Options, Settled};
use super::error::PlanError;
use super::find::Found;
use super::fingerprint::Fingerprints;
use super::input::{self, Inputs, Locals};
use super::key;
use super::last::Last;
use super::pick::{Picked, Picks};
use super::reason::Reason;
use crate::config::{Pipeline, StageSpec};
use crate::lock::Lock;

/// Decides about the stages of one pipeline.
pub struct Planner<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) store: &'a Store,
    pub(super) lock: &'a Lock,
    pub(super) options: Options,
    index: BTreeMap<&'a str, usize>,
    pub(super) last: Last,
    locals: Locals,
    picks: Picks,
    fingerprints: Fingerprints,
    /// Whether what was seen ahead counts.
    pub(super) glances: bool,
}

impl<'a> Planner<'a> {
    /// Reads the last results of the pipeline's profile.
    pub fn new(pipeline: &'a Pipeline, store: &'a Store, lock: &'a Lock, options: Options) -> Self {
        let last = Last::load(store.home(), &pipeline.profile);
        Self::knowing(last, pipeline, store, lock, options)
    }

    /// [`Planner::new`] with the last results of the pipeline's profile.
    pub fn knowing(
        last: Last,
        pipeline: &'a Pipeline,
        store: &'a Store,
        lock: &'a Lock,
        options: Options,
    ) -> Self {
        let stages = pipeline.stages.iter().enumerate();
        Self {
            index: stages.map(|(at, spec)| (&*spec.id, at)).collect(),
            last,
            locals: Locals::new(options.preview),
            picks: Picks::new(pipeline),
            fingerprints: Fingerprints::new(store.home()),
            // They are of the checkout's own store.
            glances: store.base() == store.home(),
            pipeline,
            store,
            lock,
            options,
        }
    }

    /// What is to be done about `stage`, given what is settled.
    pub fn decide(&mut self, stage: usize, settled: &Settled) -> Result<Decision, PlanError> {
        let decision = self.answer(stage, settled)?;
        if let Decision::Fresh { record, .. } = &decision {
            self.picks.measure(stage, record);
        }
        Ok(decision)
    }

    fn answer(&mut self, stage: usize, settled: &Settled) -> Result<Decision, PlanError> {
        let spec = &self.pipeline.stages[stage];
        let inputs = match self.inputs(stage, spec, settled)? {
            Ok(inputs) => inputs,
            Err(on) => return Ok(Decision::Waiting { on }),
        };
        let mut parts = key::parts(spec, &inputs, self.pin(spec)?);
        self.tools(spec, &mut parts)?;
        let key = parts.digest();
        if let Some(decision) = self.wished(spec, key, &parts, &inputs)? {
            return Ok(decision);
        }
        Ok(match self.find(spec, key, &parts)? {
            Found::Last(last) => Decision::Fresh {
                record: last.record(parts),
                restored: false,
            },
            Found::Here(record, restored) => Decision::Fresh {
                record: *record,
                restored,
            },
            Found::There(last) => Decision::Remote {
                record: last.record(parts),
                known: true,
                inputs,
            },
            Found::Nothing(reasons) => Decision::Run {
                key,
                parts,
                inputs,
                reasons,
            },
        })
    }

    /// What the stage reads, or the stages that it must wait for.
    fn inputs(
        &mut self,
        stage: usize,
        spec: &StageSpec,
        settled: &Settled,
    ) -> Result<Result<Inputs, Vec<usize>>, PlanError> {
        let reads = match &spec.pick {
            None => &spec.inputs,
            Some(pick) => match self.picks.choose(stage, spec, pick, &self.index)? {
                Ok(candidate) => &candidate.inputs,
                Err(on) => return Ok(Err(on)),
            },
        };
        let product = |id: &str, product: &str| {
            let index = *self.index.get(id)?;
            let outputs = settled.get(&index);
            Some((
                index,
                outputs.and_then(|outputs| outputs.get(product)).cloned(),
            ))
        };
        input::resolve(
            self.pipeline,
            spec,
            reads,
            product,
            self.store,
            &mut self.locals,
        )
    }

    /// What somebody's wish decides, whatever results there are.
    fn wished(
        &self,
        spec: &StageSpec,
        key: Digest,
        parts: &KeyParts,
        inputs: &Inputs,
    ) -> Result<Option<Decision>, PlanError> {
        let reason = if spec.effect == Effect::External {
            if !self.options.named.contains(&spec.id) {
                let done = !self.store.records(&key)?.is_empty();
                let parts = parts.clone();
                return Ok(Some(Decision::Ready { key, parts, done }));
            }
            Reason::Named
        } else if self.options.forced.contains(&spec.id) {
            Reason::Forced
        } else if self.options.recompute {
            Reason::Recompute
        } else {
            return Ok(None);
        };
        Ok(Some(Decision::Run {
            key,
            parts: parts.clone(),
            inputs: inputs.clone(),
            reasons: vec![reason],
        }))
    }

    /// The last results, as they were read and set since.
    pub fn last(&self) -> &Last {
        &self.last
    }

    /// Makes `record` the last result of `stage`: called when a stage is settled.
    pub fn settle(&mut self, stage: usize, record: &Record) -> Result<(), PlanError> {
        self.picks.measure(stage, record);
        self.last
            .set(&self.pipeline.stages[stage].id, record, false)
    }

    /// [`Planner::settle`] of a result whose bytes are left at the remote.
    pub fn settle_distant(&mut self, stage: usize, record: &Record) -> Result<(), PlanError> {
        self.picks.measure(stage, record);
        self.last.set(&self.pipeline.stages[stage].id, record, true)
    }

    /// Adds what the tools of a command say they are.
    fn tools(&mut self, spec: &StageSpec, parts: &mut KeyParts) -> Result<(), PlanError> {
        for command in &spec.fingerprint {
            let says = self.fingerprints.of(self.pipeline, spec, command);
            let says = says.map_err(|because| PlanError::Fingerprint {
                stage: spec.id.clone(),
                command: command.clone(),
                because,
            })?;
            parts.push(format!("fingerprint.{command}"), says);
        }
        Ok(())
    }

    /// Whether the stage is to be made anew although its result is there.
    pub fn forces(&self, stage: usize) -> bool {
        self.options
            .forced
            .contains(&self.pipeline.stages[stage].id)
    }

    /// What was picked so far, by stage.
    pub fn picks(&self) -> &BTreeMap<usize, Picked> {
        &self.picks.made
    }

    /// Which cell a stage with `pick` reads, as soon as it was decided about.
    pub fn picked(&self, stage: usize) -> Option<&Picked> {
        self.picks.made.get(&stage)
    }

    fn pin(&self, spec: &StageSpec) -> Result<Option<&'a str>, PlanError> {
        let Some(source) = key::source(spec) else {
            return Ok(None);
        };
        let pin = self.lock.source(&source);
        if pin.is_none() && (self.options.locked || self.options.frozen) {
            return Err(PlanError::NotPinned {
                stage: spec.id.clone(),
                source_id: source,
            });
        }
        Ok(pin)
    }
}
