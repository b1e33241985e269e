//! One block of attention: some queries of one row, all heads that share one key/value head, against the
//! keys that the last of them may see. Works in a scratch area that its worker keeps.
//!
//! The query heads of a group are stacked, so one product serves them all. Keys come as the shared
//! prefix and the row's own ones; scores of both lie side by side, so the softmax is the plain one.

use super::attended::{Context, Heads, Query};
use super::gemm::{Threads, gemm};
use super::simd::{dot, exp, exp_shifted_sum, max, scale, vectorized};
use super::view::{View, ViewMut, Write};
use crate::tensor::Matrix;

/// Queries per block and head: small enough that the scores of a group stay in the second-level cache.
pub(super) const QUERIES: usize = 64;

/// Memory that a worker keeps between blocks.
#[derive(Default)]
pub(super) struct Scratch {
    query: Vec<f32>,
    scores: Vec<f32>,
    out: Vec<f32>,
    out_grad: Vec<f32>,
    score_grad: Vec<f32>,
}

/// Gradients of the keys and values that one task has met, head width columns each.
pub(super) struct KeyGrads {
    pub(super) prefix_key: Vec<f32>,
    pub(super) prefix_value: Vec<f32>,
    pub(super) own_key: Vec<f32>,
    pub(super) own_value: Vec<f32>,
}

impl KeyGrads {
    pub(super) fn zeros(row: &Query<'_>, dim: usize) -> Self {
        let prefix = row.prefix.map_or(0, |c| c.len) * dim;
        let own = row.own.len * dim;
        Self {
            prefix_key: vec![0.0; prefix],
            prefix_value: vec![0.0; prefix],
            own_key: vec![0.0; own],
            own_value: vec![0.0; own],
        }
    }
}

/// Queries `from..to` of a row, for the query heads of key/value head `group`.
pub(super) struct Block<'a> {
    pub(super) heads: Heads,
    pub(super) row: &'a Query<'a>,
    pub(super) group: usize,
    pub(super) from: usize,
    pub(super) to: usize,
}

impl Block<'_> {
    fn queries(&self) -> usize {
        self.to - self.from
    }

    /// Stacked rows: every query once per head of the group.
    fn stacked(&self) -> usize {
        self.heads.per_group() * self.queries()
    }

    fn prefix_len(&self) -> usize {
        self.row.prefix.map_or(0, |c| c.len)
    }

    /// Own keys that the last query may see.
    fn own_keys(&self) -> usize {
        self.row.first + self.to
    }

    fn width(&self) -> usize {
        self.prefix_len() + self.own_keys()
    }

    /// Columns of the scores that stacked row `i` may see: causal, and within the window.
    fn visible(&self, i: usize) -> (usize, usize) {
        let position = self.prefix_len() + self.row.first + self.from + i % self.queries();
        let low = self
            .heads
            .window
            .map_or(0, |w| (position + 1).saturating_sub(w));
        (low, position + 1)
    }

    /// Gathers the group's columns of `source`, times `factor`.
    fn stack(&self, source: &Matrix, factor: f32, into: &mut Vec<f32>) {
        let dim = self.heads.dim;
        into.clear();
        for head in self.heads.of_group(self.group) {
            for t in self.from..self.to {
                let row = &source.row(self.row.start + t)[head * dim..(head + 1) * dim];
                into.extend(row.iter().map(|v| v * factor));
            }
        }
    }

    /// `into = stacked . context^T` for every visible part of the context: scores, or their gradient.
    fn against(&self, stacked: &[f32], pick: impl Fn(&Context<'_>) -> usize, into: &mut Vec<f32>) {
        let (m, dim, width) = (self.stacked(), self.heads.dim, self.width());
        into.resize(m * width, 0.0);
        let parts = [
            (self.row.prefix, self.prefix_len(), 0),
            (Some(self.row.own), self.own_keys(), self.prefix_len()),
        ];
        for (context, keys, at) in parts {
            let Some(context) = context.filter(|_| keys > 0) else {
                continue;
            };
            let source = View::new(
                &context.data[pick(&context) + self.group * dim..],
                keys,
                dim,
                context.stride,
            );
            let dst = ViewMut::new(&mut into[at..], m, keys, width);
            gemm(
                dst,
                Write::Set,
                View::new(stacked, m, dim, dim),
                source.t(),
                1.0,
                Threads::One,
            );
        }
    }

    /// `into = weights . context`, the sum over all keys.
    fn combine(
        &self,
        weights: &[f32],
        pick: impl Fn(&Context<'_>) -> usize,
        factor: f32,
        into: &mut Vec<f32>,
    ) {
        let (m, dim, width) = (self.stacked(), self.heads.dim, self.width());
        into.resize(m * dim, 0.0);
        let parts = [
            (self.row.prefix, self.prefix_len(), 0),
            (Some(self.row.own), self.own_keys(), self.prefix_len()),
        ];
        let mut write = Write::Set;
        for (context, keys, at) in parts {
            let Some(context) = context.filter(|_| keys > 0) else {
                continue;
            };
            let source = View::new(
                &context.data[pick(&context) + self.group * dim..],
                keys,
                dim,
                context.stride,
            );
            let weights = View::new(&weights[at..], m, keys, width);
            gemm(
                ViewMut::new(into, m, dim, dim),
                write,
                weights,
                source,
                factor,
                Threads::One,
            );
            write = Write::Add;
        }
    }

    /// The attention output (stacked, head width columns) and the log-sum-exp of every stacked row.
    pub(super) fn forward(&self, qkv: &Matrix, scratch: &mut Scratch) -> (Vec<f32>, Vec<f32>) {
        let (m, dim, width) = (self.stacked(), self.heads.dim, self.width());
        self.stack(qkv, self.heads.scale, &mut scratch.query);
        self.against(&scratch.query, |c| c.key, &mut scratch.scores);
        let mut inverse = Vec::with_capacity(m);
        let mut lse = Vec::with_capacity(m);
        for (i, row) in scratch.scores.chunks_exact_mut(width).enumerate() {
            let (low, high) = self.visible(i);
            row[..low].fill(0.0);
            row[high..].fill(0.0);
            if let Some(cap) = self.heads.softcap {
                for score in &mut row[low..high] {
                    *score = cap * (*score / cap).tanh();
                }
            }
            let most = max(&row[low..high]);
            let sum = exp_shifted_sum(&mut row[low..high], most);
            inverse.push(1.0 / sum);
            lse.push(most + sum.ln());
        }
        let mut out = Vec::new();
        self.combine(&scratch.scores, |c| c.value, 1.0, &mut out);
        for (row, inverse) in out.chunks_exact_mut(dim).zip(&inverse) {
            scale(row, *inverse);
        }
        (out, lse)
    }

    /// The gradient of the stacked queries; adds those of keys and values to `grads`.
    ///
    /// With `p = exp(s - lse)` and `D = sum(do * o)`: `dv = p^T do`, `ds = p * (do v^T - D)`,
    /// `dq = scale * ds k`, `dk = ds^T (scale * q)`. A cap multiplies `ds` by its slope.
    pub(super) fn backward(
        &self,
        given: &Given<'_>,
        grads: &mut KeyGrads,
        scratch: &mut Scratch,
    ) -> Vec<f32> {
        let (dim, width) = (self.heads.dim, self.width());
        let factor = self.heads.scale;
        self.stack(given.qkv, factor, &mut scratch.query);
        self.stack(given.out, 1.0, &mut scratch.out);
        self.stack(given.out_grad, 1.0, &mut scratch.out_grad);
        self.against(&scratch.query, |c| c.key, &mut scratch.scores);
        self.against(&scratch.out_grad, |c| c.value, &mut scratch.score_grad);
        let rows = scratch
            .scores
            .chunks_exact_mut(width)
            .zip(scratch.score_grad.chunks_exact_mut(width));
        for (i, (p, ds)) in rows.enumerate() {
            let (low, high) = self.visible(i);
            let head = self.group * self.heads.per_group() + i / self.queries();
            let lse = given
                .lse
                .row(self.row.start + self.from + i % self.queries())[head];
            let at = i * dim..(i + 1) * dim;
            let pull = dot(&scratch.out[at.clone()], &scratch.out_grad[at]);
            for gap in [0..low, high..width] {
                p[gap.clone()].fill(0.0);
                ds[gap].fill(0.0);
            }
            let (p, ds) = (&mut p[low..high], &mut ds[low..high]);
            match self.heads.softcap {
                Some(cap) => capped_score_gradient(p, ds, lse, pull, cap),
                None => score_gradient(p, ds, lse, pull),
            }
        }
        self.add_key_gradient(
            &scratch.scores,
            &scratch.out_grad,
            &mut grads.prefix_value,
            &mut grads.own_value,
        );
        self.add_key_gradient(
            &scratch.score_grad,
            &scratch.query,
            &mut grads.prefix_key,
            &mut grads.own_key,
        );
        let mut query_grad = Vec::new();
        self.combine(&scratch.score_grad, |c| c.key, factor, &mut query_grad);
        query_grad
    }

    /// `prefix += w[:, prefix]^T . rows`, `own += w[:, own]^T . rows`.
    fn add_key_gradient(&self, w: &[f32], rows: &[f32], prefix: &mut [f32], own: &mut [f32]) {
        let (m, dim, width) = (self.stacked(), self.heads.dim, self.width());
        for (into, keys, at) in [
            (prefix, self.prefix_len(), 0),
            (own, self.own_keys(), self.prefix_len()),
        ] {
            if keys > 0 {
                let weights = View::new(&w[at..], m, keys, width).t();
                let rows = View::new(rows, m, dim, dim);
                gemm(
                    ViewMut::new(into, keys, dim, dim),
                    Write::Add,
                    weights,
                    rows,
                    1.0,
                    Threads::One,
                );
            }
        }
    }
}

/// What the forward left behind, and the gradient of its output.
pub(super) struct Given<'a> {
    pub(super) qkv: &'a Matrix,
    pub(super) out: &'a Matrix,
    pub(super) lse: &'a Matrix,
    pub(super) out_grad: &'a Matrix,
}

vectorized! {
    /// Scores to probabilities, and the gradient of probabilities to that of scores.
    fn score_gradient(p: &mut [f32], ds: &mut [f32], lse: f32, pull: f32) {
        for (p, ds) in p.iter_mut().zip(ds) {
            *p = exp(*p - lse);
            *ds = *p * (*ds - pull);
        }
    }
}

/// The same for scores that are capped before the softmax.
fn capped_score_gradient(p: &mut [f32], ds: &mut [f32], lse: f32, pull: f32, cap: f32) {
    for (p, ds) in p.iter_mut().zip(ds) {
        let t = (*p / cap).tanh();
        *p = (cap * t - lse).exp();
        *ds = *p * (*ds - pull) * (1.0 - t * t);
    }
}
