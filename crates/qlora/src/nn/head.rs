//! Final norm, logits and loss, computed only for tokens that predict a label, some rows at a time: the
//! logits of a whole batch would be larger than the model.

use super::model::Model;
use super::pool::Pool;
use crate::ops::gemm::{Threads, gemm};
use crate::ops::view::{View, ViewMut, Write};
use crate::ops::{cross_entropy, rmsnorm, softcap};
use crate::tensor::Matrix;

/// Logits held at a time, in values: 96 MiB.
const CHUNK_VALUES: usize = 24 << 20;

/// A token that predicts a label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Predicts {
    /// Its place among the tokens of the pass.
    pub(crate) token: usize,
    /// The id that comes next.
    pub(crate) target: u32,
    /// What its loss is multiplied by in the batch's loss.
    pub(crate) weight: f32,
}

fn gather(x: &Matrix, tokens: impl ExactSizeIterator<Item = usize>, pool: &mut Pool) -> Matrix {
    let mut rows = pool.take(tokens.len(), x.cols());
    for (i, token) in tokens.enumerate() {
        rows.row_mut(i).copy_from_slice(x.row(token));
    }
    rows
}

/// `logits[i] = head . normed[from + i]` for some rows, capped where the model caps them.
fn logits_of(model: &Model, normed: &Matrix, from: usize, logits: &mut Matrix) {
    let (hidden, vocab, rows) = (normed.cols(), logits.cols(), logits.rows());
    gemm(
        ViewMut::new(logits.data_mut(), rows, vocab, vocab),
        Write::Set,
        View::new(&normed.data()[from * hidden..], rows, hidden, hidden),
        View::new(model.head().data(), vocab, hidden, hidden).t(),
        1.0,
        Threads::All,
    );
    if let Some(cap) = model.config().logit_softcap {
        softcap::forward(logits.data_mut(), cap);
    }
}

fn chunk_rows(model: &Model) -> usize {
    (CHUNK_VALUES / model.config().vocab).max(1)
}

/// The logits of the given tokens, one row each.
pub(crate) fn logits(model: &Model, x: &Matrix, tokens: &[usize], pool: &mut Pool) -> Matrix {
    let rows = gather(x, tokens.iter().copied(), pool);
    let mut normed = pool.take(rows.rows(), rows.cols());
    rmsnorm::forward(
        &rows,
        &model.final_norm,
        model.config().rms_eps,
        &mut normed,
    );
    let mut logits = pool.take(tokens.len(), model.config().vocab);
    logits_of(model, &normed, 0, &mut logits);
    pool.give(rows);
    pool.give(normed);
    logits
}

/// Each prediction's loss.
pub(crate) fn losses(
    model: &Model,
    x: &Matrix,
    predicts: &[Predicts],
    pool: &mut Pool,
) -> Vec<f64> {
    let mut losses = Vec::with_capacity(predicts.len());
    for chunk in predicts.chunks(chunk_rows(model)) {
        let tokens: Vec<usize> = chunk.iter().map(|p| p.token).collect();
        let targets: Vec<u32> = chunk.iter().map(|p| p.target).collect();
        let mut logits = logits(model, x, &tokens, pool);
        losses.extend(cross_entropy::forward(&mut logits, &targets));
        pool.give(logits);
    }
    losses
}

/// Each prediction's loss (unweighted), and the gradient of their weighted sum with respect to `x`.
pub(crate) fn losses_and_gradient(
    model: &Model,
    x: &Matrix,
    predicts: &[Predicts],
    pool: &mut Pool,
) -> (Vec<f64>, Matrix) {
    let (hidden, vocab) = (x.cols(), model.config().vocab);
    let rows = gather(x, predicts.iter().map(|p| p.token), pool);
    let mut normed = pool.take(rows.rows(), hidden);
    let inv = rmsnorm::forward(
        &rows,
        &model.final_norm,
        model.config().rms_eps,
        &mut normed,
    );
    let mut d_normed = pool.take(rows.rows(), hidden);
    let mut losses = Vec::with_capacity(predicts.len());
    for (index, chunk) in predicts.chunks(chunk_rows(model)).enumerate() {
        let from = index * chunk_rows(model);
        let targets: Vec<u32> = chunk.iter().map(|p| p.target).collect();
        let weights: Vec<f32> = chunk.iter().map(|p| p.weight).collect();
        let mut logits = pool.take(chunk.len(), vocab);
        logits_of(model, &normed, from, &mut logits);
        let cap = model.config().logit_softcap;
        let capped = cap.map(|cap| (cap, pool.copy(&logits)));
        losses.extend(cross_entropy::forward_backward(
            &mut logits,
            &targets,
            &weights,
        ));
        if let Some((cap, capped)) = capped {
            softcap::backward(logits.data_mut(), capped.data(), cap);
            pool.give(capped);
        }
        gemm(
            ViewMut::new(
                &mut d_normed.data_mut()[from * hidden..],
                chunk.len(),
                hidden,
                hidden,
            ),
            Write::Set,
            View::new(logits.data(), chunk.len(), vocab, vocab),
            View::new(model.head().data(), vocab, hidden, hidden),
            1.0,
            Threads::All,
        );
        pool.give(logits);
    }
    let mut d_rows = pool.zeros(rows.rows(), hidden);
    rmsnorm::backward(&d_normed, &rows, &model.final_norm, &inv, &mut d_rows);
    let mut dx = pool.zeros(x.rows(), hidden);
    for (p, gradient) in predicts.iter().zip(d_rows.data().chunks_exact(hidden)) {
        dx.row_mut(p.token).copy_from_slice(gradient);
    }
    for matrix in [rows, normed, d_normed, d_rows] {
        pool.give(matrix);
    }
    (losses, dx)
}
