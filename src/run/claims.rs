//! What the stages of a run claim, held against what the machine has, before anything runs.

use std::collections::BTreeSet;

use super::machine::Machine;
use crate::config::resources::{is_size, said};
use crate::config::{Fault, Faults, Pipeline};

/// The pools that `stages` (indices) take something of.
pub(crate) fn wanted<'a>(pipeline: &'a Pipeline, stages: &[usize]) -> BTreeSet<&'a str> {
    let specs = stages.iter().map(|stage| &pipeline.stages[*stage]);
    specs
        .flat_map(|spec| &spec.resources.claims)
        .map(|(pool, _)| pool.as_str())
        .collect()
}

/// A claim that the machine can never meet would wait for ever. `cpu` is left out: a stage
/// that wants more cores than there are gets them all.
pub(crate) fn check(
    pipeline: &Pipeline,
    stages: &[usize],
    machine: &Machine,
) -> Result<(), Faults> {
    let mut faults = Vec::new();
    for stage in stages {
        let spec = &pipeline.stages[*stage];
        for (pool, claim) in &spec.resources.claims {
            let size = machine.sizes.get(pool).copied().unwrap_or(0);
            if pool == "cpu" || *claim <= size {
                continue;
            }
            let id = &spec.id;
            let (message, mend) = if is_size(pool) {
                let (claim, size) = (said(*claim), said(size));
                let message =
                    format!("stage `{id}` wants {claim} of {pool}, this machine has {size}");
                (
                    message,
                    format!("ask for less, or say what is there: `--pool {pool}=...`"),
                )
            } else {
                let message =
                    format!("stage `{id}` wants {claim} of `{pool}`, this machine has {size}");
                let mend = format!(
                    "run it where there is enough, or say what is there: `--pool {pool}={claim}`"
                );
                (message, mend)
            };
            let place = spec.place(&format!("resources.{pool}"));
            faults.push(Fault::at(&place, "run::no-room", message).mend(mend));
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(Faults::new(&pipeline.file, &pipeline.text, faults))
}
