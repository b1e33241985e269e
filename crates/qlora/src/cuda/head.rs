//! Final norm, logits and loss of the tokens that predict a label, some rows at a time.

use super::base::Base;
use super::blas::Product;
use super::exec::Exec;
use super::memory::{Region, Rows};

/// Rows of logits held at a time.
const CHUNK: usize = 2048;

/// Tokens that predict labels, on the card.
pub(super) struct Labels {
    tokens: Region,
    targets: Region,
    /// Of each label's gradient.
    weights: Region,
    count: usize,
}

impl Labels {
    pub(super) fn upload(
        exec: &mut Exec<'_>,
        tokens: &[u32],
        targets: &[u32],
        weights: &[f32],
    ) -> Self {
        Self {
            tokens: exec.upload(tokens),
            targets: exec.upload(targets),
            weights: exec.upload(weights),
            count: tokens.len(),
        }
    }
}

/// The final norm of rows of `hidden`, chosen by `index` where there is one, and their product with the head.
pub(super) fn logits(
    exec: &mut Exec<'_>,
    base: &Base,
    hidden: Rows,
    index: Option<Region>,
    (normed, inv): (Rows, Region),
    logits: Rows,
) {
    exec.norm(
        hidden,
        base.final_norm,
        base.config.rms_eps,
        normed,
        inv,
        index,
        None,
    );
    exec.product(&Product {
        a: normed,
        a_t: false,
        b: base.head,
        b_t: true,
        out: logits,
        alpha: 1.0,
        add: None,
    });
}

/// Writes each label's loss to `losses`. With `into`, sets it to the gradient of their weighted sum.
pub(super) fn losses(
    exec: &mut Exec<'_>,
    base: &Base,
    hidden: Rows,
    labels: &Labels,
    losses: Region,
    into: Option<Rows>,
) {
    if let Some(dx) = into {
        exec.zero(dx.region());
    }
    let mark = exec.arena.mark();
    let rows = labels.count.min(CHUNK);
    let normed = exec.rows(rows, base.config.hidden);
    let d_normed = exec.rows(rows, base.config.hidden);
    let inv = exec.floats(rows);
    let all = exec.rows(rows, base.config.vocab);
    for from in (0..labels.count).step_by(CHUNK) {
        let count = CHUNK.min(labels.count - from);
        let part = |region: Region| region.part(4 * from, 4 * count);
        let (index, normed, scores) = (
            Some(part(labels.tokens)),
            normed.slice(0, count),
            all.slice(0, count),
        );
        logits(exec, base, hidden, index, (normed, inv), scores);
        exec.cross_entropy(
            scores,
            part(labels.targets),
            part(losses),
            into.is_some().then(|| part(labels.weights)),
        );
        if let Some(dx) = into {
            let d_normed = d_normed.slice(0, count);
            exec.product(&Product {
                a: scores,
                a_t: false,
                b: base.head,
                b_t: false,
                out: d_normed,
                alpha: 1.0,
                add: None,
            });
            exec.norm_back(d_normed, hidden, base.final_norm, inv, dx, index, None);
        }
    }
    exec.arena.release(mark);
}
