//! One decoder layer, forward and backward.
//!
//! Forward: `m = x + attention(norm(x))`, `y = m + mlp(norm(m))`. What the backward needs is kept in
//! [`Kept`]; the gated activation is recomputed, and the last product (down) is never repeated. The
//! gradient of `y` is turned into that of `x` in place.

use super::adapter::Site;
use super::pass::Pass;
use super::pool::Pool;
use crate::ops::gemm::Write;
use crate::ops::rope::Turn;
use crate::ops::simd::add;
use crate::ops::{attention, rmsnorm, swiglu};
use crate::tensor::Matrix;

/// The first half of attention: norm, projections, rotation.
pub(crate) struct Projected {
    inv: Vec<f32>,
    /// Normed input, then the adapter columns.
    normed: Matrix,
    /// Queries and keys (rotated), values.
    pub(crate) qkv: Matrix,
}

/// The second half: output projection and MLP.
struct Finished {
    middle: Matrix,
    inv: Vec<f32>,
    normed: Matrix,
    gate_up: Matrix,
}

/// All that the backward of one layer needs.
pub(crate) struct Kept {
    x: Matrix,
    projected: Projected,
    /// Attention output, then the adapter columns.
    attended: Matrix,
    lse: Matrix,
    finished: Finished,
}

/// Values kept per token and layer, for planning memory.
pub(crate) fn kept_values(config: &crate::config::ModelConfig, r: usize) -> usize {
    let (q, kv) = (config.query_width(), config.kv_width());
    3 * config.hidden
        + (config.hidden + 5 * r)
        + (q + 2 * kv)
        + (q + r)
        + config.heads
        + 2 * config.intermediate
}

pub(crate) fn project(pass: &Pass<'_>, layer: usize, x: &Matrix, pool: &mut Pool) -> Projected {
    let (model, config) = (pass.model, pass.model.config());
    let site = pass.site(layer, Site::Qkv);
    let mut normed = pool.take(x.rows(), site.width());
    let inv = rmsnorm::forward(
        x,
        &model.layers[layer].attention_norm,
        config.rms_eps,
        &mut normed,
    );
    site.down(&mut normed, pool);
    let mut qkv = pool.take(x.rows(), site.linear.outputs());
    site.forward(&normed, &mut qkv, Write::Set);
    if let Some(bias) = &model.layers[layer].qkv_bias {
        for row in qkv.data_mut().chunks_exact_mut(bias.len()) {
            add(row, bias);
        }
    }
    let turned = config.heads + config.kv_heads;
    pass.rope
        .rotate(&mut qkv, turned, pass.rows.positions(), Turn::Forward);
    Projected { inv, normed, qkv }
}

/// Room for the attention output of `rows` tokens, with the adapter columns of the output projection.
pub(crate) fn attended(pass: &Pass<'_>, layer: usize, rows: usize, pool: &mut Pool) -> Matrix {
    pool.take(rows, pass.site(layer, Site::Output).width())
}

fn finish(
    pass: &Pass<'_>,
    layer: usize,
    x: &Matrix,
    attended: &mut Matrix,
    pool: &mut Pool,
) -> Finished {
    let output = pass.site(layer, Site::Output);
    output.down(attended, pool);
    let mut middle = pool.copy(x);
    output.forward(attended, &mut middle, Write::Add);
    let site = pass.site(layer, Site::GateUp);
    let mut normed = pool.take(x.rows(), site.width());
    let weight = &pass.model.layers[layer].mlp_norm;
    let inv = rmsnorm::forward(&middle, weight, pass.model.config().rms_eps, &mut normed);
    site.down(&mut normed, pool);
    let mut gate_up = pool.take(x.rows(), site.linear.outputs());
    site.forward(&normed, &mut gate_up, Write::Set);
    Finished {
        middle,
        inv,
        normed,
        gate_up,
    }
}

/// The gated activation with its adapter columns: the input of the down projection.
fn activation(pass: &Pass<'_>, layer: usize, gate_up: &Matrix, pool: &mut Pool) -> Matrix {
    let down = pass.site(layer, Site::Down);
    let mut active = pool.take(gate_up.rows(), down.width());
    swiglu::forward(gate_up, pass.model.config().intermediate, &mut active);
    down.down(&mut active, pool);
    active
}

/// `middle + mlp`: the layer's output.
fn close(pass: &Pass<'_>, layer: usize, finished: &Finished, pool: &mut Pool) -> Matrix {
    let active = activation(pass, layer, &finished.gate_up, pool);
    let mut y = pool.copy(&finished.middle);
    pass.site(layer, Site::Down)
        .forward(&active, &mut y, Write::Add);
    pool.give(active);
    y
}

/// The rest of a layer after attention, for a pass that needs no backward.
pub(crate) fn finish_and_close(
    pass: &Pass<'_>,
    layer: usize,
    x: Matrix,
    mut attended: Matrix,
    pool: &mut Pool,
) -> Matrix {
    let finished = finish(pass, layer, &x, &mut attended, pool);
    let y = close(pass, layer, &finished, pool);
    pool.give(x);
    pool.give(attended);
    finished.give_back(pool);
    y
}

/// All of a layer but its last product.
fn keep(
    pass: &Pass<'_>,
    layer: usize,
    x: Matrix,
    context: Option<&Matrix>,
    pool: &mut Pool,
) -> Kept {
    let projected = project(pass, layer, &x, pool);
    let mut attended = attended(pass, layer, x.rows(), pool);
    let rows = pass.queries(&projected.qkv, context);
    let lse = attention::forward(pass.model.heads(), &projected.qkv, &rows, &mut attended);
    let finished = finish(pass, layer, &x, &mut attended, pool);
    Kept {
        x,
        projected,
        attended,
        lse,
        finished,
    }
}

/// The layer's output, and what its backward needs.
pub(crate) fn forward(
    pass: &Pass<'_>,
    layer: usize,
    x: Matrix,
    context: Option<&Matrix>,
    pool: &mut Pool,
) -> (Kept, Matrix) {
    let kept = keep(pass, layer, x, context, pool);
    let y = close(pass, layer, &kept.finished, pool);
    (kept, y)
}

/// Builds [`Kept`] again from the layer's input: the same shapes, so the same bits.
pub(crate) fn again(
    pass: &Pass<'_>,
    layer: usize,
    x: Matrix,
    context: Option<&Matrix>,
    pool: &mut Pool,
) -> Kept {
    keep(pass, layer, x, context, pool)
}

/// Gradients of keys and values on their way between a prefix and its rows.
#[derive(Default)]
pub(crate) struct KeyFlow<'a> {
    /// Keys and values of the prefix before these rows.
    pub(crate) context: Option<&'a Matrix>,
    /// Where their gradient is added.
    pub(crate) context_grad: Option<&'a mut Matrix>,
    /// The gradient that later rows sent to this row's own keys and values.
    pub(crate) received: Option<&'a Matrix>,
}

/// Turns `dy` into the gradient of the layer's input, in place (left unspecified in the lowest layer),
/// and adds the adapter's gradients to `grads`.
pub(crate) fn backward(
    pass: &Pass<'_>,
    layer: usize,
    kept: Kept,
    dy: &mut Matrix,
    flow: KeyFlow<'_>,
    grads: &mut [f32],
    pool: &mut Pool,
) {
    let Kept {
        x,
        projected,
        attended,
        lse,
        finished,
    } = kept;
    let finished = mlp_backward(pass, layer, finished, dy, grads, pool);
    finished.give_back(pool);
    let d_attended = pass
        .site(layer, Site::Output)
        .backward(&attended, dy, grads, true, pool);
    let mut dqkv = pool.take(projected.qkv.rows(), projected.qkv.cols());
    let rows = pass.queries(&projected.qkv, flow.context);
    let given = attention::Kept {
        qkv: &projected.qkv,
        out: &attended,
        lse: &lse,
        out_grad: &d_attended,
    };
    attention::backward(
        pass.model.heads(),
        &given,
        &rows,
        &mut dqkv,
        flow.context_grad,
    );
    pool.give(d_attended);
    pool.give(attended);
    project_backward(
        pass,
        layer,
        &x,
        projected,
        dqkv,
        flow.received,
        dy,
        grads,
        pool,
    );
    pool.give(x);
}

fn mlp_backward(
    pass: &Pass<'_>,
    layer: usize,
    mut finished: Finished,
    dy: &mut Matrix,
    grads: &mut [f32],
    pool: &mut Pool,
) -> Finished {
    let active = activation(pass, layer, &finished.gate_up, pool);
    let d_active = pass
        .site(layer, Site::Down)
        .backward(&active, dy, grads, true, pool);
    pool.give(active);
    swiglu::backward(&d_active, &mut finished.gate_up);
    pool.give(d_active);
    let d_normed = pass.site(layer, Site::GateUp).backward(
        &finished.normed,
        &finished.gate_up,
        grads,
        true,
        pool,
    );
    let weight = &pass.model.layers[layer].mlp_norm;
    rmsnorm::backward(&d_normed, &finished.middle, weight, &finished.inv, dy);
    pool.give(d_normed);
    finished
}

/// The backward of [`project`]: adds to `dx`. `received` is added to the keys' and values' gradients.
pub(crate) fn project_backward(
    pass: &Pass<'_>,
    layer: usize,
    x: &Matrix,
    projected: Projected,
    mut dqkv: Matrix,
    received: Option<&Matrix>,
    dx: &mut Matrix,
    grads: &mut [f32],
    pool: &mut Pool,
) {
    let config = pass.model.config();
    if let Some(received) = received {
        for t in 0..dqkv.rows() {
            add(
                &mut dqkv.row_mut(t)[config.query_width()..],
                received.row(t),
            );
        }
    }
    let turned = config.heads + config.kv_heads;
    pass.rope
        .rotate(&mut dqkv, turned, pass.rows.positions(), Turn::Back);
    let want_input = layer > 0;
    let d_normed =
        pass.site(layer, Site::Qkv)
            .backward(&projected.normed, &dqkv, grads, want_input, pool);
    if want_input {
        let weight = &pass.model.layers[layer].attention_norm;
        rmsnorm::backward(&d_normed, x, weight, &projected.inv, dx);
    }
    pool.give(d_normed);
    pool.give(dqkv);
    projected.give_back(pool);
}

impl Projected {
    pub(crate) fn give_back(self, pool: &mut Pool) {
        pool.give(self.normed);
        pool.give(self.qkv);
    }
}

impl Finished {
    fn give_back(self, pool: &mut Pool) {
        pool.give(self.middle);
        pool.give(self.normed);
        pool.give(self.gate_up);
    }
}

impl Kept {
    /// Keeps the layer's input only.
    pub(crate) fn into_input(self, pool: &mut Pool) -> Matrix {
        self.projected.give_back(pool);
        self.finished.give_back(pool);
        pool.give(self.attended);
        self.x
    }

    /// Keys and values, one row per token.
    pub(crate) fn keys_values(&self, query_width: usize) -> Matrix {
        keys_values(&self.projected.qkv, query_width)
    }
}

/// The key and value columns of `qkv`.
pub(crate) fn keys_values(qkv: &Matrix, query_width: usize) -> Matrix {
    let width = qkv.cols() - query_width;
    let mut data = Vec::with_capacity(qkv.rows() * width);
    for row in qkv.data().chunks_exact(qkv.cols()) {
        data.extend_from_slice(&row[query_width..]);
    }
    Matrix::new(qkv.rows(), width, data)
}
