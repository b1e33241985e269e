//! Which part of a shared prefix each rank runs, where ranks can tell each other keys and values quickly.
//!
//! A function of its length and of what else each rank has to run, so all ranks come to the same division: who has
//! fewer tokens gets more of the prefix. Whether a division is used is for whoever computes to say: it costs two exchanges a
//! layer. It must not know what rows or groups are.

use std::ops::Range;

/// A prefix cut into one part for each rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Division {
    /// Rank `r` runs the ids from `bounds[r]` up to `bounds[r + 1]`.
    bounds: Vec<usize>,
    /// The rank that this is told to.
    rank: usize,
}

/// No rank gets less of a prefix.
pub(super) const LEAST: usize = 8;

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

/// Cuts `prefix` tokens into parts that make `tokens` as level as can be, each at least [`LEAST`].
pub(super) fn level(prefix: usize, tokens: &[usize]) -> Vec<usize> {
    let mut parts = vec![LEAST; tokens.len()];
    for _ in LEAST * tokens.len()..prefix {
        let lowest = (0..tokens.len()).min_by_key(|rank| tokens[*rank] + parts[*rank]);
        parts[lowest.expect("a rank")] += 1;
    }
    parts
}

/// Where each of these parts begins, and the end of the last.
pub(super) fn bounds(parts: &[usize]) -> Vec<usize> {
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
