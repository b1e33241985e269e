//! The tokens of one pass on the card: which rows they form, where they stand, and what prefix is before them.
//!
//! A prefix may run in the same pass, as the first tokens: then its keys and values are rows of the same
//! matrix. Or it ran before, and its keys and values are kept per layer. Or ranks divide it: a part of it runs in
//! this pass, and each layer's keys and values of all parts are gathered before its attention.

use super::exec::Exec;
use super::linear::Masks;
use super::memory::{Region, Rows};
use crate::train::Division;

/// What the host knows of a pass.
pub(super) struct Tokens {
    /// The prefix's ids first if it runs in this pass, then row after row.
    pub(super) ids: Vec<u32>,
    pub(super) positions: Vec<u32>,
    /// Tokens at the start that are the prefix, or this rank's part of it.
    pub(super) joint: usize,
    /// Tokens of the prefix that do not run in this pass.
    pub(super) outside: usize,
    pub(super) division: Option<Division>,
    pub(super) lens: Vec<usize>,
    pub(super) keys: Option<Vec<u64>>,
}

impl Tokens {
    /// Rows behind a prefix that runs with them (`joint` ids) or ran before (`outside` long).
    pub(super) fn new(prefix: &[u32], outside: usize, rows: &[&[u32]]) -> Self {
        let joint = prefix.len();
        let mut ids = prefix.to_vec();
        let mut positions: Vec<u32> = (0..joint as u32).collect();
        for row in rows {
            ids.extend_from_slice(row);
            let from = (joint + outside) as u32;
            positions.extend(from..from + row.len() as u32);
        }
        Self {
            ids,
            positions,
            joint,
            outside,
            division: None,
            lens: rows.iter().map(|r| r.len()).collect(),
            keys: None,
        }
    }

    /// Rows behind a prefix of which this rank runs its part.
    pub(super) fn divided(prefix: &[u32], division: &Division, rows: &[&[u32]]) -> Self {
        let own = division.own();
        let mut tokens = Self::new(&prefix[own.clone()], prefix.len() - own.len(), rows);
        for (position, at) in tokens.positions.iter_mut().zip(own) {
            *position = at as u32;
        }
        tokens.division = Some(division.clone());
        tokens
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }
}

/// Tokens that attend to one another: the prefix alone, or all rows.
#[derive(Clone, Copy)]
pub(super) struct Span {
    /// Place among the tokens of the pass.
    pub(super) from: usize,
    pub(super) tokens: usize,
    /// Per token the first token of its row, and the one after its last, counted from `from`.
    pub(super) row_start: Region,
    pub(super) row_end: Region,
}

/// A pass on the card.
pub(super) struct Pass {
    pub(super) tokens: usize,
    pub(super) joint: usize,
    pub(super) outside: usize,
    pub(super) division: Option<Division>,
    pub(super) ids: Region,
    pub(super) positions: Region,
    pub(super) prefix: Option<Span>,
    pub(super) own: Option<Span>,
    pub(super) masks: Option<Masks>,
}

impl Pass {
    pub(super) fn upload(exec: &mut Exec<'_>, tokens: &Tokens, rate: f32) -> Self {
        let joint = tokens.joint;
        let prefix = (joint > 0).then(|| span(exec, 0, &[joint]));
        let own = (!tokens.lens.is_empty()).then(|| span(exec, joint, &tokens.lens));
        let masks = tokens.keys.as_ref().map(|keys| Masks {
            keys: exec.upload(keys),
            rate,
        });
        Self {
            tokens: tokens.len(),
            joint,
            outside: tokens.outside,
            division: tokens.division.clone(),
            ids: exec.upload(&tokens.ids),
            positions: exec.upload(&tokens.positions),
            prefix,
            own,
            masks,
        }
    }
}

fn span(exec: &mut Exec<'_>, from: usize, lens: &[usize]) -> Span {
    let mut start = 0u32;
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for len in lens {
        let end = start + *len as u32;
        first.extend(std::iter::repeat_n(start, *len));
        last.extend(std::iter::repeat_n(end, *len));
        start = end;
    }
    Span {
        from,
        tokens: first.len(),
        row_start: exec.upload(&first),
        row_end: exec.upload(&last),
    }
}

/// Keys and values that rows look at before their own.
#[derive(Clone, Copy)]
pub(super) struct Context {
    pub(super) keys: Rows,
    pub(super) values: Rows,
}

impl Context {
    /// Both as one, where each token's values follow its keys and nothing else lies between.
    pub(super) fn side_by_side(self) -> Rows {
        let width = self.keys.cols + self.values.cols;
        let follow = self.keys.at + (self.keys.cols * self.keys.element.size()) as u64;
        assert!(
            self.values.at == follow && self.keys.stride == width,
            "keys and values are not side by side"
        );
        Rows {
            cols: width,
            ..self.keys
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_prefix_keeps_its_positions_and_rows_stand_behind_all_of_it() {
        let prefix: Vec<u32> = (100..110).collect();
        let division = Division::new(vec![0, 4, 10], 1);
        let tokens = Tokens::divided(&prefix, &division, &[&[1, 2], &[3]]);
        assert_eq!(tokens.ids, [104, 105, 106, 107, 108, 109, 1, 2, 3]);
        assert_eq!(tokens.positions, [4, 5, 6, 7, 8, 9, 10, 11, 10]);
        assert_eq!((tokens.joint, tokens.outside), (6, 4));
        let whole = Tokens::new(&prefix, 0, &[&[1, 2], &[3]]);
        assert_eq!(whole.positions[10..], tokens.positions[6..]);
    }
}
