//! The plan of what is kept and what is computed twice: a function of shapes and one setting, never of
//! free memory or of time, so that two machines plan alike.

use super::batch::{Example, Group};
use super::config::TrainConfig;
use crate::config::ModelConfig;
use crate::nn::decoder::Keep;
use crate::nn::layer::kept_values;

/// How one group runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupPlan {
    pub(super) keep_prefix: Keep,
    /// Members by micro-batch, with what each keeps.
    pub(super) micro: Vec<(Vec<usize>, Keep)>,
}

/// Sizes that a plan goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Bytes per token with every activation kept, and with layer inputs only.
    whole: u64,
    inputs: u64,
    limit: u64,
    rows: usize,
}

impl Budget {
    pub(super) fn new(model: &ModelConfig, rank: usize, config: &TrainConfig) -> Self {
        Self {
            whole: 4 * (model.layers * kept_values(model, rank)) as u64,
            inputs: 4 * (model.layers * model.hidden) as u64,
            limit: config.activation_bytes,
            rows: config.micro_batch.unwrap_or(usize::MAX),
        }
    }

    /// The prefix may take half; rows fill the rest, several at a time if they fit, and one alone with
    /// its layer inputs only if even that is too much.
    pub(super) fn plan(&self, examples: &[Example], group: &Group) -> GroupPlan {
        let prefix = group.prefix as u64;
        let keep_prefix = if prefix * self.whole <= self.limit / 2 {
            Keep::Everything
        } else {
            Keep::LayerInputs
        };
        let left = self
            .limit
            .saturating_sub(self.bytes(group.prefix, keep_prefix));
        let most = (left / self.whole) as usize;
        let mut micro: Vec<(Vec<usize>, Keep)> = Vec::new();
        let mut filled = usize::MAX;
        for member in &group.members {
            let len = examples[*member].read() - group.prefix;
            if len > most {
                micro.push((vec![*member], Keep::LayerInputs));
                filled = usize::MAX;
            } else if filled.saturating_add(len) > most
                || micro.last().is_some_and(|m| m.0.len() >= self.rows)
            {
                micro.push((vec![*member], Keep::Everything));
                filled = len;
            } else if let Some((members, _)) = micro.last_mut() {
                members.push(*member);
                filled += len;
            }
        }
        GroupPlan { keep_prefix, micro }
    }

    fn bytes(&self, tokens: usize, keep: Keep) -> u64 {
        match keep {
            Keep::Everything => tokens as u64 * self.whole,
            Keep::LayerInputs => tokens as u64 * self.inputs,
            Keep::Nothing => 0,
        }
    }

    /// Most bytes of activations that a group holds at a time.
    pub(super) fn peak(&self, examples: &[Example], group: &Group) -> u64 {
        let plan = self.plan(examples, group);
        let rows = plan.micro.iter().map(|(members, keep)| {
            let tokens = members
                .iter()
                .map(|m| examples[*m].read() - group.prefix)
                .sum();
            self.bytes(tokens, *keep)
        });
        self.bytes(group.prefix, plan.keep_prefix) + rows.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(len: usize) -> Example {
        let labels = (0..len).map(|i| i + 1 == len).collect();
        Example {
            id: String::new(),
            ids: vec![0; len],
            labels,
            weight: 1.0,
        }
    }

    #[test]
    fn rows_fill_the_budget_and_a_giant_is_computed_twice() {
        let examples: Vec<Example> = [31, 41, 51, 501, 21].map(example).into();
        let budget = Budget {
            whole: 10,
            inputs: 1,
            limit: 1_000,
            rows: usize::MAX,
        };
        let group = Group {
            prefix: 0,
            prefix_mask: 0,
            members: (0..5).collect(),
            division: None,
        };
        let plan = budget.plan(&examples, &group);
        assert_eq!(
            plan.micro,
            [
                (vec![0, 1], Keep::Everything),
                (vec![2], Keep::Everything),
                (vec![3], Keep::LayerInputs),
                (vec![4], Keep::Everything),
            ]
        );
        assert_eq!(budget.peak(&examples, &group), 700);
        let one = Budget { rows: 1, ..budget };
        assert_eq!(one.plan(&examples, &group).micro.len(), 5);
        let shared = Group {
            prefix: 20,
            prefix_mask: 20,
            members: vec![0, 1],
            division: None,
        };
        assert_eq!(
            budget.plan(&examples, &shared).micro,
            [(vec![0, 1], Keep::Everything)]
        );
    }
}
