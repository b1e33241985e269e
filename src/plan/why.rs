//! Why a stage has no result: what its last one lacks, or how its key differs.

use std::collections::BTreeSet;

use cache::{Digest, KeyParts, Lack, LackCause};

use super::decide::Planner;
use super::error::PlanError;
use super::reason::Reason;
use crate::config::StageSpec;

impl Planner<'_> {
    /// Why there is no result: the difference to the last one.
    pub(super) fn reasons(
        &self,
        spec: &StageSpec,
        key: Digest,
        parts: &KeyParts,
        lacks: &[Lack],
    ) -> Result<Vec<Reason>, PlanError> {
        if !lacks.is_empty() {
            return Ok(one_a_product(lacks));
        }
        let Some(last) = self.last.get(&spec.id) else {
            return Ok(vec![Reason::First]);
        };
        let before = if last.key == key {
            None
        } else {
            self.store.records(&last.key)?.into_iter().next()
        };
        Ok(match before {
            None => vec![Reason::Lost],
            Some(before) => {
                let since = parts.since(&before.parts);
                since.into_iter().map(Reason::Changed).collect()
            }
        })
    }
}

/// The first lack of every product: a folder of a thousand lost files is one reason.
fn one_a_product(lacks: &[Lack]) -> Vec<Reason> {
    let mut seen = BTreeSet::new();
    let first = lacks.iter().filter(|lack| seen.insert(&lack.product));
    first
        .map(|lack| Reason::Lacking {
            product: lack.product.clone(),
            path: lack.path.clone(),
            damaged: lack.cause == LackCause::Damaged,
        })
        .collect()
}
