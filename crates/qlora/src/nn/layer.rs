//! One decoder layer, forward and backward.
//!
//! Forward: `m = x + attention(norm(x))`, `y = m + mlp(norm(m))`; some families norm the heads of q and k,
//! or each product before it is added. What the backward needs is kept in [`Kept`]; the gated activation is
//! recomputed, and the last product (down) is repeated only if a norm follows it. The gradient of `y` is
//! turned into that of `x` in place.

use super::adapter::Site;
use super::pass::Pass;
use super::pool::Pool;
use super::residual::{self, Normed, PostNorm};
use crate::ops::rope::Turn;
use crate::ops::simd::add;
use crate::ops::view::Write;
use crate::ops::{attention, glu, head_norm, rmsnorm};
use crate::tensor::Matrix;

/// The first half of attention: norm, projections, rotation.
pub(crate) struct Projected {
    inv: Vec<f32>,
    /// Normed input, then the adapter columns.
    normed: Matrix,
    /// Queries and keys (rotated), values.
    pub(crate) qkv: Matrix,
    /// Heads before their norm, and the norm's factor per head.
    heads: Option<(Matrix, Vec<f32>)>,
}

/// The second half: output projection and MLP.
struct Finished {
    attention: Option<Normed>,
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
    /// The MLP's product, where a norm follows it.
    mlp: Option<Normed>,
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
        + if config.qk_norm { q + kv } else { 0 }
        + if config.post_norms {
            2 * config.hidden
        } else {
            0
        }
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
    let heads = model.layers[layer].qk_norm.as_ref().map(|weight| {
        let mut raw = pool.take(x.rows(), weight.len());
        let inv = head_norm::forward(&mut qkv, config.head_dim, weight, config.rms_eps, &mut raw);
        (raw, inv)
    });
    let turned = config.heads + config.kv_heads;
    let (rope, positions) = (pass.rope.layer(layer), pass.rows.positions());
    rope.rotate(&mut qkv, turned, positions, Turn::Forward);
    Projected {
        inv,
        normed,
        qkv,
        heads,
    }
}

/// Room for the attention output of `rows` tokens, with the adapter columns of the output projection.
pub(crate) fn attended(pass: &Pass<'_>, layer: usize, rows: usize, pool: &mut Pool) -> Matrix {
    pool.take(rows, pass.site(layer, Site::Output).width())
}

fn post_norm<'a>(pass: &Pass<'_>, weight: Option<&'a Vec<f32>>) -> Option<PostNorm<'a>> {
    let eps = pass.model.config().rms_eps;
    weight.map(|weight| PostNorm { weight, eps })
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
    let norm = post_norm(pass, pass.model.layers[layer].post_attention_norm.as_ref());
    let attention = residual::join(&output, norm, attended, &mut middle, pool);
    let site = pass.site(layer, Site::GateUp);
    let mut normed = pool.take(x.rows(), site.width());
    let weight = &pass.model.layers[layer].mlp_norm;
    let inv = rmsnorm::forward(&middle, weight, pass.model.config().rms_eps, &mut normed);
    site.down(&mut normed, pool);
    let mut gate_up = pool.take(x.rows(), site.linear.outputs());
    site.forward(&normed, &mut gate_up, Write::Set);
    Finished {
        attention,
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
    let config = pass.model.config();
    glu::forward(config.activation, gate_up, config.intermediate, &mut active);
    down.down(&mut active, pool);
    active
}

/// `middle + mlp`: the layer's output, and what a norm of the MLP's product needs in the backward.
fn close(
    pass: &Pass<'_>,
    layer: usize,
    finished: &Finished,
    pool: &mut Pool,
) -> (Matrix, Option<Normed>) {
    let active = activation(pass, layer, &finished.gate_up, pool);
    let mut y = pool.copy(&finished.middle);
    let norm = post_norm(pass, pass.model.layers[layer].post_mlp_norm.as_ref());
    let down = pass.site(layer, Site::Down);
    let mlp = residual::join(&down, norm, &active, &mut y, pool);
    pool.give(active);
    (y, mlp)
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
    let (y, mlp) = close(pass, layer, &finished, pool);
    pool.give(x);
    pool.give(attended);
    finished.give_back(pool);
    if let Some(mlp) = mlp {
        mlp.give_back(pool);
    }
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
    let heads = pass.model.heads(layer);
    let lse = attention::forward(heads, &projected.qkv, &rows, &mut attended);
    let finished = finish(pass, layer, &x, &mut attended, pool);
    Kept {
        x,
        projected,
        attended,
        lse,
        finished,
        mlp: None,
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
    let mut kept = keep(pass, layer, x, context, pool);
    let (y, mlp) = close(pass, layer, &kept.finished, pool);
    kept.mlp = mlp;
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
    let mut kept = keep(pass, layer, x, context, pool);
    if pass.model.config().post_norms {
        let (y, mlp) = close(pass, layer, &kept.finished, pool);
        kept.mlp = mlp;
        pool.give(y);
    }
    kept
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
        mlp,
    } = kept;
    let finished = mlp_backward(pass, layer, finished, mlp, dy, grads, pool);
    let norm = post_norm(pass, pass.model.layers[layer].post_attention_norm.as_ref());
    let d_product = residual::part(norm, finished.attention.as_ref(), dy, pool);
    finished.give_back(pool);
    let d_attended = pass.site(layer, Site::Output).backward(
        &attended,
        d_product.as_ref().unwrap_or(dy),
        grads,
        true,
        pool,
    );
    give_all(pool, d_product);
    let mut dqkv = pool.take(projected.qkv.rows(), projected.qkv.cols());
    let rows = pass.queries(&projected.qkv, flow.context);
    let given = attention::Kept {
        qkv: &projected.qkv,
        out: &attended,
        lse: &lse,
        out_grad: &d_attended,
    };
    attention::backward(
        pass.model.heads(layer),
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
    mlp: Option<Normed>,
    dy: &mut Matrix,
    grads: &mut [f32],
    pool: &mut Pool,
) -> Finished {
    let active = activation(pass, layer, &finished.gate_up, pool);
    let norm = post_norm(pass, pass.model.layers[layer].post_mlp_norm.as_ref());
    let d_product = residual::part(norm, mlp.as_ref(), dy, pool);
    let d_active = pass.site(layer, Site::Down).backward(
        &active,
        d_product.as_ref().unwrap_or(dy),
        grads,
        true,
        pool,
    );
    give_all(pool, d_product);
    if let Some(mlp) = mlp {
        mlp.give_back(pool);
    }
    pool.give(active);
    let gate = pass.model.config().activation;
    glu::backward(gate, &d_active, &mut finished.gate_up);
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
    let (rope, positions) = (pass.rope.layer(layer), pass.rows.positions());
    rope.rotate(&mut dqkv, turned, positions, Turn::Back);
    let weight = pass.model.layers[layer].qk_norm.as_ref();
    if let (Some(weight), Some((raw, inv))) = (weight, &projected.heads) {
        head_norm::backward(&mut dqkv, config.head_dim, weight, raw, inv);
    }
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
        give_all(pool, self.heads.map(|(raw, _)| raw));
    }
}

fn give_all(pool: &mut Pool, matrices: impl IntoIterator<Item = Matrix>) {
    for matrix in matrices {
        pool.give(matrix);
    }
}

impl Finished {
    fn give_back(self, pool: &mut Pool) {
        pool.give(self.middle);
        pool.give(self.normed);
        pool.give(self.gate_up);
        if let Some(attention) = self.attention {
            attention.give_back(pool);
        }
    }
}

impl Kept {
    /// Keeps the layer's input only.
    pub(crate) fn into_input(self, pool: &mut Pool) -> Matrix {
        self.projected.give_back(pool);
        self.finished.give_back(pool);
        if let Some(mlp) = self.mlp {
            mlp.give_back(pool);
        }
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
