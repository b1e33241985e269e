//! Causal attention with grouped heads, an optional sliding window, optionally capped scores and an
//! optional shared prefix.
//!
//! A row is a run of tokens with its own keys; before them stands a prefix whose keys and values are
//! given, and shared by all rows. Positions are places in prefix + own keys. The backward recomputes the
//! probabilities from the kept log-sum-exp (Dao 2022), gives `dq`, `dk`, `dv` for the rows and *adds* the
//! prefix's share to a buffer, row after row in a fixed order.

use super::attended::{Heads, Query};
use super::attention_block::{Block, Given, KeyGrads, QUERIES, Scratch};
use super::simd::add;
use crate::tensor::Matrix;
use rayon::prelude::*;

/// A query's blocks are dealt out to this many tasks in the backward: a function of shape alone.
fn parts(row: &Query<'_>) -> usize {
    row.len.div_ceil(4 * QUERIES)
}

fn block<'a>(heads: Heads, row: &'a Query<'a>, group: usize, index: usize) -> Block<'a> {
    Block {
        heads,
        row,
        group,
        from: index * QUERIES,
        to: ((index + 1) * QUERIES).min(row.len),
    }
}

/// Writes each token's attention output into the first columns of `out`; gives the log-sum-exp of the
/// scaled scores, tokens x heads. Queries are the first columns of `qkv`.
pub(crate) fn forward(heads: Heads, qkv: &Matrix, rows: &[Query<'_>], out: &mut Matrix) -> Matrix {
    let tasks: Vec<(&Query<'_>, usize, usize)> = rows
        .iter()
        .flat_map(|row| {
            let blocks = row.len.div_ceil(QUERIES);
            (0..heads.kv_heads)
                .flat_map(move |group| (0..blocks).map(move |index| (row, group, index)))
        })
        .collect();
    let done: Vec<(Vec<f32>, Vec<f32>)> = tasks
        .par_iter()
        .map_init(Scratch::default, |scratch, (row, group, index)| {
            block(heads, row, *group, *index).forward(qkv, scratch)
        })
        .collect();
    let mut lse = Matrix::zeros(qkv.rows(), heads.heads);
    for ((row, group, index), (values, sums)) in tasks.iter().zip(&done) {
        let block = block(heads, row, *group, *index);
        scatter(&block, values, out);
        let queries = block.to - block.from;
        for (i, sum) in sums.iter().enumerate() {
            let head = group * heads.per_group() + i / queries;
            lse.row_mut(row.start + block.from + i % queries)[head] = *sum;
        }
    }
    lse
}

/// Puts stacked rows back to their tokens and heads.
fn scatter(block: &Block<'_>, values: &[f32], into: &mut Matrix) {
    let dim = block.heads.dim;
    let mut stacked = values.chunks_exact(dim);
    for head in block.heads.of_group(block.group) {
        for t in block.from..block.to {
            let value = stacked.next().expect("one stacked row per head and query");
            into.row_mut(block.row.start + t)[head * dim..(head + 1) * dim].copy_from_slice(value);
        }
    }
}

/// What the forward kept, with the gradient of its output (both in the first columns of their matrix).
pub(crate) struct Kept<'a> {
    pub(crate) qkv: &'a Matrix,
    pub(crate) out: &'a Matrix,
    pub(crate) lse: &'a Matrix,
    pub(crate) out_grad: &'a Matrix,
}

/// Sets `dqkv` (queries, then keys, then values, as in `qkv`) for every token of `rows`, and adds the
/// prefix's key and value gradients to `prefix_grad` (keys, then values).
///
/// Rows must hold all their own keys (`first == 0`), in the columns after the queries of `qkv`.
pub(crate) fn backward(
    heads: Heads,
    kept: &Kept<'_>,
    rows: &[Query<'_>],
    dqkv: &mut Matrix,
    mut prefix_grad: Option<&mut Matrix>,
) {
    let tasks: Vec<(&Query<'_>, usize, usize)> = rows
        .iter()
        .flat_map(|row| {
            assert!(
                row.first == 0 && row.own.len == row.len,
                "the backward needs whole rows"
            );
            let parts = parts(row);
            (0..heads.kv_heads)
                .flat_map(move |group| (0..parts).map(move |part| (row, group, part)))
        })
        .collect();
    let given = Given {
        qkv: kept.qkv,
        out: kept.out,
        lse: kept.lse,
        out_grad: kept.out_grad,
    };
    let done: Vec<(Vec<Vec<f32>>, KeyGrads)> = tasks
        .par_iter()
        .map_init(Scratch::default, |scratch, (row, group, part)| {
            let mut grads = KeyGrads::zeros(row, heads.dim);
            let queries = blocks_of(row, *part)
                .map(|index| block(heads, row, *group, index).backward(&given, &mut grads, scratch))
                .collect();
            (queries, grads)
        })
        .collect();
    for row in rows {
        for t in row.start..row.start + row.len {
            dqkv.row_mut(t)[heads.query_width()..].fill(0.0);
        }
    }
    for ((row, group, part), (queries, grads)) in tasks.iter().zip(&done) {
        for (index, values) in blocks_of(row, *part).zip(queries) {
            scatter(&block(heads, row, *group, index), values, dqkv);
        }
        let (key, value) = (heads.query_width(), heads.query_width() + heads.kv_width());
        add_columns(
            dqkv,
            row.start,
            key + group * heads.dim,
            heads.dim,
            &grads.own_key,
        );
        add_columns(
            dqkv,
            row.start,
            value + group * heads.dim,
            heads.dim,
            &grads.own_value,
        );
        if let Some(prefix) = prefix_grad.as_deref_mut() {
            add_columns(prefix, 0, group * heads.dim, heads.dim, &grads.prefix_key);
            add_columns(
                prefix,
                0,
                heads.kv_width() + group * heads.dim,
                heads.dim,
                &grads.prefix_value,
            );
        }
    }
}

/// Blocks are dealt in turn, as later ones see more keys.
fn blocks_of(row: &Query<'_>, part: usize) -> impl Iterator<Item = usize> + use<> {
    (part..row.len.div_ceil(QUERIES)).step_by(parts(row))
}

fn add_columns(into: &mut Matrix, start: usize, column: usize, width: usize, values: &[f32]) {
    for (i, value) in values.chunks_exact(width).enumerate() {
        add(&mut into.row_mut(start + i)[column..column + width], value);
    }
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
