//! What follows from having to run: whether a remote may have a result, and whether the lock allows it.

use cache::{Digest, KeyParts, Record};

use super::decide::Planner;
use super::decision::Question;
use super::error::PlanError;
use super::reason::Reason;

impl Planner<'_> {
    /// What to ask a remote for, after [`Decision::Run`](super::decision::Decision::Run) with this key and these reasons: nothing
    /// where no result that exists would count.
    pub fn question(
        &self,
        stage: usize,
        key: Digest,
        parts: &KeyParts,
        reasons: &[Reason],
    ) -> Option<Question> {
        let wanted = !wished(reasons);
        // Nothing is ever found under an empty pin.
        if !self.options.remote || !wanted || parts.get("pin") == Some("") {
            return None;
        }
        let spec = &self.pipeline.stages[stage];
        let locked = self.lock.results(&self.pipeline.profile, &spec.id);
        let locked = locked.map(|outputs| {
            let outputs = outputs.iter();
            Record::result_of(outputs.map(|(name, digest)| (name.as_str(), *digest)))
        });
        let mut results: Vec<_> = locked.into_iter().map(Some).collect();
        if !self.options.locked {
            results.push(None);
        }
        (!results.is_empty()).then_some(Question {
            stage,
            key,
            results,
        })
    }

    /// Whether a stage may run that nobody has a result of: not under `--locked`.
    pub fn may_run(&self, stage: usize, reasons: &[Reason]) -> Result<(), PlanError> {
        if !self.options.locked || wished(reasons) {
            return Ok(());
        }
        Err(PlanError::LockedLost {
            stage: self.pipeline.stages[stage].id.clone(),
            because: reasons.first().map(ToString::to_string).unwrap_or_default(),
        })
    }
}

/// Whether somebody wants it made, whatever there is.
fn wished(reasons: &[Reason]) -> bool {
    let wished = |reason| {
        matches!(
            reason,
            &Reason::Forced | &Reason::Recompute | &Reason::Named
        )
    };
    reasons.iter().any(wished)
}
