//! Examples, their seeded order, and which of them share a prefix.
//!
//! Sharing is found in token ids, never in text. A prefix ends before the first token that predicts a
//! label in any of its rows. Grouping changes neither the batch nor its loss, only how often a token is
//! computed; a row that shares nothing stands alone instead of shortening the others' prefix.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::division::Division;
use crate::error::{Error, Result};
use crate::nn::head::Predicts;

/// Shared prefixes below this many ids are not worth a pass of their own.
const SHORTEST_PREFIX: usize = 8;
/// Rows tried as the pattern of a group: enough for any batch, and linear in a large validation set.
const PATTERNS: usize = 16;

/// One training example.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Its name, for messages and for dropout.
    pub id: String,
    /// The whole conversation.
    pub ids: Vec<u32>,
    /// For each id, whether it is to be predicted from those before it.
    pub labels: Vec<bool>,
    /// How much it counts in the mean, beside other examples; usually 1.
    pub weight: f64,
}

impl Example {
    /// Ids that are predicted. The first id has nothing before it and never counts.
    pub(crate) fn labelled(&self) -> usize {
        self.labels.iter().skip(1).filter(|l| **l).count()
    }

    /// Ids that are read: none after the last one that predicts a label.
    pub(crate) fn read(&self) -> usize {
        self.labels.iter().rposition(|l| *l).unwrap_or(0)
    }

    /// Most ids that a prefix may take: up to the first one that predicts a label.
    pub(crate) fn free(&self) -> usize {
        let first = self.labels.iter().skip(1).position(|l| *l);
        first.unwrap_or(0)
    }

    /// What its ids predict, each with the same weight, times its own; token places count from `base`, after `prefix`
    /// ids that stand elsewhere.
    pub(crate) fn predicts(
        &self,
        prefix: usize,
        base: usize,
        weight: f32,
    ) -> impl Iterator<Item = Predicts> + '_ {
        let weight = weight * self.weight as f32;
        (1..self.ids.len())
            .filter(|i| self.labels[*i])
            .map(move |i| Predicts {
                token: base + i - 1 - prefix,
                target: self.ids[i],
                weight,
            })
    }

    pub(crate) fn check(&self, vocab: usize) -> Result<()> {
        let refuse = |what: String, mend: &str| {
            Err(Error::Config {
                what: format!("example `{}` {what}", self.id),
                mend: mend.to_owned(),
            })
        };
        if self.ids.len() != self.labels.len() {
            return refuse(
                format!(
                    "has {} ids and {} labels",
                    self.ids.len(),
                    self.labels.len()
                ),
                "give one label per id",
            );
        }
        if let Some(id) = self.ids.iter().find(|id| **id as usize >= vocab) {
            return refuse(
                format!("holds id `{id}`, and the model has {vocab}"),
                "encode it with the model's own tokenizer",
            );
        }
        if !(self.weight.is_finite() && self.weight > 0.0) {
            return refuse(
                format!("has the weight `{}`", self.weight),
                "use a positive number, or leave the example out",
            );
        }
        if self.labelled() == 0 {
            return refuse(
                "has no label".to_owned(),
                "leave it out, or raise the longest length if truncation cut its answer",
            );
        }
        Ok(())
    }
}

/// Rows behind one shared prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Length of the prefix; zero means that the rows share nothing.
    pub(crate) prefix: usize,
    /// Up to here dropout uses the prefix's mask. Equal to `prefix` except in tests.
    pub(crate) prefix_mask: usize,
    /// Places in the example list, in batch order.
    pub(crate) members: Vec<usize>,
    /// How the ranks may divide the prefix.
    pub(crate) division: Option<Division>,
}

/// The order of `count` examples in one epoch (Fisher-Yates).
pub(crate) fn order(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        // A 64-bit product's high half: uniform to one part in 2^40 for any real data set.
        let drawn = (u128::from(rng.next_u64()) * (last as u128 + 1)) >> 64;
        order.swap(last, drawn as usize);
    }
    order
}

/// Groups a batch. Each group takes the pattern and length that save the most tokens.
pub(crate) fn group(examples: &[Example], batch: &[usize], shared: bool) -> Vec<Group> {
    if !shared {
        return vec![alone(batch.to_vec())];
    }
    let rows: Vec<&[u32]> = batch
        .iter()
        .map(|i| &examples[*i].ids[..examples[*i].free()])
        .collect();
    let groups = group_by_prefix(&rows);
    let place = |rows: Vec<usize>| rows.into_iter().map(|r| batch[r]).collect();
    groups
        .into_iter()
        .map(|(prefix, rows)| Group {
            prefix,
            prefix_mask: prefix,
            members: place(rows),
            division: None,
        })
        .collect()
}

fn alone(members: Vec<usize>) -> Group {
    Group {
        prefix: 0,
        prefix_mask: 0,
        members,
        division: None,
    }
}

/// Groups rows by what they start with: (length of the prefix, rows), every row once.
pub(crate) fn group_by_prefix(rows: &[&[u32]]) -> Vec<(usize, Vec<usize>)> {
    let mut open: Vec<usize> = (0..rows.len()).collect();
    let mut groups = Vec::new();
    while let Some((prefix, members)) = best_group(rows, &open) {
        open.retain(|row| !members.contains(row));
        groups.push((prefix, members));
    }
    if !open.is_empty() {
        groups.push((0, open));
    }
    groups
}

fn best_group(rows: &[&[u32]], open: &[usize]) -> Option<(usize, Vec<usize>)> {
    let mut best: Option<(usize, usize, Vec<usize>)> = None;
    for pattern in open.iter().take(PATTERNS) {
        let mut shared: Vec<(usize, usize)> = open
            .iter()
            .filter(|row| *row != pattern)
            .map(|row| (common_prefix(rows[*pattern], rows[*row]), *row))
            .collect();
        shared.sort_by_key(|(len, row)| (std::cmp::Reverse(*len), *row));
        for (others, (len, _)) in shared.iter().enumerate() {
            let saved = (others + 1) * len;
            if *len >= SHORTEST_PREFIX && best.as_ref().is_none_or(|(most, ..)| saved > *most) {
                let mut members: Vec<usize> =
                    shared[..=others].iter().map(|(_, row)| *row).collect();
                members.push(*pattern);
                members.sort_unstable();
                best = Some((saved, *len, members));
            }
        }
    }
    best.map(|(_, len, members)| (len, members))
}

/// How many ids two rows have in common at their start.
pub(crate) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(ids: Vec<u32>, first_label: usize) -> Example {
        let labels = (0..ids.len()).map(|i| i >= first_label).collect();
        Example {
            id: String::new(),
            ids,
            labels,
            weight: 1.0,
        }
    }

    fn starting(prefix: std::ops::Range<u32>, own: &[u32]) -> Vec<u32> {
        prefix.chain(own.iter().copied()).collect()
    }

    #[test]
    fn a_prefix_ends_before_the_first_predicting_token() {
        let rows = [
            example(starting(0..20, &[90, 91, 92]), 21),
            example(starting(0..20, &[90, 91, 95]), 12),
        ];
        let groups = group(&rows, &[0, 1], true);
        assert_eq!(
            groups,
            [Group {
                prefix: 11,
                prefix_mask: 11,
                members: vec![0, 1],
                division: None,
            }]
        );
        let first = rows[1].predicts(11, 0, 0.5).next().unwrap();
        assert_eq!(
            first,
            Predicts {
                token: 0,
                target: 12,
                weight: 0.5,
            },
            "id 11 predicts the first label"
        );
        assert_eq!(rows[0].read(), 22, "the last id is only ever predicted");
    }

    #[test]
    fn an_odd_row_stands_alone_and_two_prefixes_make_two_groups() {
        let rows = [
            example(starting(0..40, &[1, 2, 3]), 41),
            example(starting(100..130, &[1, 2, 3]), 31),
            example(starting(0..40, &[4, 5, 6]), 41),
            example(vec![9; 30], 20),
            example(starting(100..130, &[8, 8]), 31),
            example(starting(0..40, &[7]), 40),
        ];
        let groups = group(&rows, &[0, 1, 2, 3, 4, 5], true);
        let found: Vec<(usize, Vec<usize>)> =
            groups.into_iter().map(|g| (g.prefix, g.members)).collect();
        assert_eq!(found, [(39, vec![0, 2, 5]), (30, vec![1, 4]), (0, vec![3])]);
        assert_eq!(group(&rows, &[3, 0], false), [alone(vec![3, 0])]);
    }

    #[test]
    fn orders_are_permutations_and_differ_by_epoch() {
        let first = order(50, 7, 0);
        assert_eq!(first, order(50, 7, 0));
        assert_ne!(first, order(50, 7, 1));
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn faulty_examples_are_named() {
        let fault = |e: Example| e.check(50).unwrap_err().to_string();
        let named = |ids: Vec<u32>, labels: Vec<bool>| Example {
            id: "row-7".to_owned(),
            ids,
            labels,
            weight: 1.0,
        };
        assert_eq!(
            fault(named(vec![1, 2], vec![true])),
            "example `row-7` has 2 ids and 1 labels"
        );
        assert_eq!(
            fault(named(vec![1, 50], vec![false, true])),
            "example `row-7` holds id `50`, and the model has 50"
        );
        assert_eq!(
            fault(named(vec![1, 2], vec![true, false])),
            "example `row-7` has no label"
        );
    }
}
