//! Which part of a shared prefix each rank runs, where ranks can tell each other keys and values quickly.
//!
//! A function of the batch and of who has which row alone, so all ranks come to the same division. Ranks with fewer
//! tokens of their own get more of the prefix. Only a prefix of which every rank has a row is divided. Whether a
//! division is used is for whoever computes to say: it costs two exchanges a layer.

use std::ops::Range;

use super::batch::{Example, Group};

/// A prefix cut into one part for each rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Division {
    /// Rank `r` runs the ids from `bounds[r]` up to `bounds[r + 1]`.
    bounds: Vec<usize>,
    /// The rank that this is told to.
    rank: usize,
}

/// No rank gets less of a prefix.
const LEAST: usize = 8;

impl Division {
    /// The division that `rank` is told.
    pub(crate) fn new(bounds: Vec<usize>, rank: usize) -> Self {
        Self { bounds, rank }
    }

    /// The part that runs here.
    pub(crate) fn own(&self) -> Range<usize> {
        self.part(self.rank)
    }

    /// The part of a rank.
    pub(crate) fn part(&self, rank: usize) -> Range<usize> {
        self.bounds[rank]..self.bounds[rank + 1]
    }

    /// All ranks but this one, with their parts.
    pub(crate) fn others(&self) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let ranks = (0..self.bounds.len() - 1).filter(|rank| *rank != self.rank);
        ranks.map(|rank| (rank, self.part(rank)))
    }

    /// Tokens that no longer run here.
    pub(crate) fn spared(&self) -> usize {
        self.bounds[self.bounds.len() - 1] - self.own().len()
    }
}

/// The bounds of each group's division, if it is divided; `owners` names the rank of every member.
pub(super) fn divide(
    examples: &[Example],
    groups: &[Group],
    owners: &[Vec<usize>],
    world: usize,
) -> Vec<Option<Vec<usize>>> {
    let common = |group: &Group, owners: &[usize]| {
        group.prefix >= LEAST * world && (0..world).all(|rank| owners.contains(&rank))
    };
    let mut tokens = vec![0; world];
    for (group, owners) in groups.iter().zip(owners) {
        let whole = !common(group, owners);
        for (rank, tokens) in tokens.iter_mut().enumerate() {
            if whole && owners.contains(&rank) {
                *tokens += group.prefix;
            }
        }
        for (member, owner) in group.members.iter().zip(owners) {
            tokens[*owner] += examples[*member].read() - group.prefix;
        }
    }
    let divided = groups.iter().zip(owners).map(|(group, owners)| {
        common(group, owners).then(|| {
            let parts = level(group.prefix, &tokens);
            for (tokens, part) in tokens.iter_mut().zip(&parts) {
                *tokens += part;
            }
            bounds(&parts)
        })
    });
    divided.collect()
}

impl Group {
    /// This group as `rank` has it.
    pub(super) fn divided(self, bounds: Option<Vec<usize>>, rank: usize) -> Self {
        Self {
            division: bounds.map(|bounds| Division::new(bounds, rank)),
            ..self
        }
    }
}

/// Cuts `prefix` tokens into parts that make `tokens` as level as can be, each at least [`LEAST`].
fn level(prefix: usize, tokens: &[usize]) -> Vec<usize> {
    let mut parts = vec![LEAST; tokens.len()];
    for _ in LEAST * tokens.len()..prefix {
        let lowest = (0..tokens.len()).min_by_key(|rank| tokens[*rank] + parts[*rank]);
        parts[lowest.expect("a rank")] += 1;
    }
    parts
}

fn bounds(parts: &[usize]) -> Vec<usize> {
    let ends = parts.iter().scan(0, |end, part| {
        *end += part;
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whoever_has_less_gets_more_of_the_prefix() {
        assert_eq!(level(600, &[800, 800]), [300, 300]);
        assert_eq!(level(600, &[780, 820]), [320, 280]);
        assert_eq!(level(600, &[0, 5000]), [592, 8]);
        assert_eq!(bounds(&[320, 280]), [0, 320, 600]);
        let division = Division::new(vec![0, 320, 500, 600], 1);
        assert_eq!(division.own(), 320..500);
        assert_eq!(
            division.others().collect::<Vec<_>>(),
            [(0, 0..320), (2, 500..600)]
        );
        assert_eq!(division.spared(), 420);
    }

    proptest! {
        #[test]
        fn parts_cover_the_prefix_and_no_token_could_move_to_even_them(
            prefix in 64usize..700,
            tokens in prop::collection::vec(0usize..900, 1..5),
        ) {
            let parts = level(prefix, &tokens);
            prop_assert_eq!(parts.iter().sum::<usize>(), prefix);
            let loads: Vec<usize> = tokens.iter().zip(&parts).map(|(t, p)| t + p).collect();
            for (load, part) in loads.iter().zip(&parts) {
                prop_assert!(*part >= LEAST);
                let lowest = loads.iter().min().unwrap();
                prop_assert!(*part == LEAST || load - lowest <= 1, "{:?} of {:?}", parts, tokens);
            }
        }
    }
}
