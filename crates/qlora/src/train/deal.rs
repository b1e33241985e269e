//! Which rows of a step each rank takes.
//!
//! A function of the batch and the number of ranks alone. The busiest rank gets as few tokens as can be found
//! quickly; a rank's first row behind a prefix brings the prefix along, as if every rank computed it by itself
//! (division.rs says who runs which part where they need not).
//! Members keep the order of the batch, so one rank's work is that of a run without ranks.

use std::cmp::Reverse;

use super::batch::{Example, Group};
use super::division::{Division, LEAST, bounds, level};

/// The part of `rank` out of `world`; groups of which it has no row are left out.
pub(super) fn part(
    examples: &[Example],
    groups: &[Group],
    rank: usize,
    world: usize,
) -> Vec<Group> {
    if world == 1 {
        return groups.to_vec();
    }
    let owners = deal(examples, groups, world);
    let divided = divide(examples, groups, &owners, world);
    let parts = groups
        .iter()
        .zip(owners)
        .zip(divided)
        .map(|((group, owners), bounds)| {
            let dealt = group.members.iter().zip(owners);
            let own = dealt.filter(|(_, owner)| *owner == rank);
            Group {
                members: own.map(|(member, _)| *member).collect(),
                division: bounds.map(|bounds| Division::new(bounds, rank)),
                ..group.clone()
            }
        });
    parts.filter(|group| !group.members.is_empty()).collect()
}

/// The bounds of each group's division; only a prefix of which every rank has a row is divided. `owners` names the rank of
/// every member.
fn divide(
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

/// For every group, the rank of each member: rows one by one or groups whole to begin with, whichever ends
/// better, that is with fewer tokens on the busiest rank, then in all.
fn deal(examples: &[Example], groups: &[Group], world: usize) -> Vec<Vec<usize>> {
    let rows = rows(examples, groups);
    let mut one_by_one = Deal::empty(groups, world);
    for row in &rows {
        let rank = one_by_one.cheapest(*row);
        one_by_one.give(*row, rank);
    }
    let mut whole = Deal::empty(groups, world);
    for group in by_size(&rows, groups) {
        let rank = whole.idlest();
        for row in rows.iter().filter(|row| row.group == group) {
            whole.give(*row, rank);
        }
    }
    let deals = [one_by_one, whole].map(|deal| deal.settled(&rows));
    let best = deals.into_iter().min_by_key(Deal::cost);
    best.expect("two of them").owners
}

/// A row of a batch.
#[derive(Clone, Copy)]
struct Row {
    group: usize,
    place: usize,
    /// Tokens behind the group's prefix.
    tokens: usize,
}

/// All rows, the longest first.
fn rows(examples: &[Example], groups: &[Group]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        for (place, member) in group.members.iter().enumerate() {
            rows.push(Row {
                group: at,
                place,
                tokens: examples[*member].read() - group.prefix,
            });
        }
    }
    rows.sort_by_key(|row| (Reverse(row.tokens), row.group, row.place));
    rows
}

/// Groups, the one with the most tokens first.
fn by_size(rows: &[Row], groups: &[Group]) -> Vec<usize> {
    let mut sizes: Vec<usize> = groups.iter().map(|group| group.prefix).collect();
    for row in rows {
        sizes[row.group] += row.tokens;
    }
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|group| (Reverse(sizes[*group]), *group));
    order
}

/// Who has what so far.
struct Deal<'a> {
    groups: &'a [Group],
    owners: Vec<Vec<usize>>,
    /// By rank.
    tokens: Vec<usize>,
    /// Rows by rank and group.
    held: Vec<Vec<usize>>,
}

impl<'a> Deal<'a> {
    fn empty(groups: &'a [Group], world: usize) -> Self {
        Self {
            groups,
            owners: groups.iter().map(|g| vec![0; g.members.len()]).collect(),
            tokens: vec![0; world],
            held: vec![vec![0; groups.len()]; world],
        }
    }

    /// Tokens of a rank if it gets the row.
    fn with(&self, row: Row, rank: usize) -> usize {
        let brings = self.held[rank][row.group] == 0;
        let prefix = if brings {
            self.groups[row.group].prefix
        } else {
            0
        };
        self.tokens[rank] + prefix + row.tokens
    }

    fn give(&mut self, row: Row, rank: usize) {
        self.tokens[rank] = self.with(row, rank);
        self.held[rank][row.group] += 1;
        self.owners[row.group][row.place] = rank;
    }

    fn take(&mut self, row: Row) {
        let rank = self.owners[row.group][row.place];
        self.held[rank][row.group] -= 1;
        let last = self.held[rank][row.group] == 0;
        let prefix = if last {
            self.groups[row.group].prefix
        } else {
            0
        };
        self.tokens[rank] -= prefix + row.tokens;
    }

    fn cheapest(&self, row: Row) -> usize {
        let ranks = 0..self.tokens.len();
        ranks
            .min_by_key(|rank| self.with(row, *rank))
            .expect("a rank")
    }

    fn idlest(&self) -> usize {
        let ranks = 0..self.tokens.len();
        ranks.min_by_key(|rank| self.tokens[*rank]).expect("a rank")
    }

    fn busiest(&self) -> usize {
        let ranks = 0..self.tokens.len();
        ranks
            .max_by_key(|rank| (self.tokens[*rank], Reverse(*rank)))
            .expect("a rank")
    }

    /// Moves rows from the busiest rank to the idlest as long as that one then has fewer than the busiest had.
    fn settled(mut self, rows: &[Row]) -> Self {
        loop {
            let (from, to) = (self.busiest(), self.idlest());
            let own = rows
                .iter()
                .filter(|row| self.owners[row.group][row.place] == from);
            let best = own.min_by_key(|row| {
                let left = self.tokens[from] - row.tokens;
                self.with(**row, to).max(left)
            });
            match best {
                Some(row) if self.with(*row, to) < self.tokens[from] => {
                    self.take(*row);
                    self.give(*row, to);
                }
                _ => return self,
            }
        }
    }

    fn cost(&self) -> (usize, usize) {
        let most = self.tokens.iter().max().copied().unwrap_or(0);
        (most, self.tokens.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example(len: usize) -> Example {
        Example {
            id: String::new(),
            ids: vec![0; len],
            labels: (0..len).map(|at| at + 1 == len).collect(),
            weight: 1.0,
        }
    }

    fn group(prefix: usize, members: std::ops::Range<usize>) -> Group {
        Group {
            prefix,
            prefix_mask: prefix,
            members: members.collect(),
            division: None,
        }
    }

    fn tokens(examples: &[Example], part: &[Group]) -> usize {
        let own = |group: &Group| -> usize {
            let rows = group.members.iter();
            rows.map(|m| examples[*m].read() - group.prefix).sum()
        };
        part.iter().map(|group| group.prefix + own(group)).sum()
    }

    #[test]
    fn equal_rows_are_dealt_evenly_and_a_prefix_goes_where_its_rows_go() {
        let examples: Vec<Example> = [101; 8].map(example).into();
        let dense = [group(0, 0..4)];
        for rank in 0..2 {
            let part = part(&examples, &dense, rank, 2);
            assert_eq!(part[0].members.len(), 2);
        }
        // Two small families: each is cheaper whole than torn.
        let families = [group(90, 0..4), group(80, 4..8)];
        let parts: Vec<_> = (0..2).map(|r| part(&examples, &families, r, 2)).collect();
        assert_eq!(parts[0].len() + parts[1].len(), 2, "{parts:?}");
        assert_eq!(part(&examples, &dense, 4, 5), [], "more ranks than rows");
    }

    #[test]
    fn the_plans_job_is_dealt_within_a_row_of_even() {
        let lens = [
            40, 160, 77, 93, 158, 61, 112, 44, 139, 52, 88, 147, 101, 66, 120, 59,
        ];
        let examples: Vec<Example> = lens.map(|own| example(601 + own)).into();
        let batch = [group(600, 0..16)];
        let parts: Vec<_> = (0..2)
            .map(|rank| part(&examples, &batch, rank, 2))
            .collect();
        let sizes: Vec<usize> = parts.iter().map(|part| tokens(&examples, part)).collect();
        assert!(sizes[0].abs_diff(sizes[1]) <= 40, "{sizes:?}");
        // Divided, the prefix makes up for the rest.
        let runs = parts.iter().zip(&sizes).map(|(part, size)| {
            let division = part[0].division.as_ref().expect("all ranks have a row");
            size - division.spared()
        });
        let runs: Vec<usize> = runs.collect();
        assert!(runs[0].abs_diff(runs[1]) <= 1, "{runs:?}");
        assert_eq!(
            runs.iter().sum::<usize>(),
            sizes.iter().sum::<usize>() - 600
        );
    }

    proptest! {
        #[test]
        fn every_row_has_one_rank_and_keeps_its_place(
            lens in prop::collection::vec(2usize..300, 1..40),
            cut in 0usize..40,
            prefix in 0usize..200,
            world in 1usize..6,
        ) {
            let cut = cut.min(lens.len());
            let examples: Vec<Example> = lens
                .iter()
                .enumerate()
                .map(|(at, len)| example(len + if at < cut { prefix } else { 0 }))
                .collect();
            let mut groups = vec![group(prefix, 0..cut), group(0, cut..lens.len())];
            groups.retain(|group| !group.members.is_empty());
            let parts: Vec<Vec<Group>> =
                (0..world).map(|rank| part(&examples, &groups, rank, world)).collect();
            let mut seen: Vec<usize> = Vec::new();
            for part in &parts {
                for group in part {
                    prop_assert!(group.members.is_sorted());
                    seen.extend(&group.members);
                }
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lens.len()).collect::<Vec<_>>());
            // Whoever has the most got its last row when nobody would have had less with it.
            let sizes: Vec<usize> = parts.iter().map(|part| tokens(&examples, part)).collect();
            let most = sizes.iter().max().unwrap();
            let least = sizes.iter().min().unwrap();
            let longest = lens.iter().max().unwrap();
            prop_assert!(most - least <= longest + prefix, "{:?}", sizes);
        }
    }
}
