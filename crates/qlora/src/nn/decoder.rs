//! All layers, forward and backward, for rows and for the prefix that rows share.
//!
//! The prefix reaches the loss only through its keys and values. So its top layer stops after the
//! projections, and its backward starts from the gradients that all rows sent to those keys and values.

use super::layer::{self, Kept, KeyFlow, Projected};
use super::model::Model;
use super::pass::Pass;
use super::pool::Pool;
use crate::ops::simd;
use crate::tensor::Matrix;

/// How much of the forward stays in memory for the backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Every activation.
    Everything,
    /// The input of each layer; the rest is computed again.
    LayerInputs,
    /// Nothing: there will be no backward.
    Nothing,
}

enum LayerTape {
    Everything(Box<Kept>),
    Input(Matrix),
}

/// What a forward left for its backward, layer by layer.
pub(crate) struct Tape {
    layers: Vec<LayerTape>,
}

/// The tape of a prefix; its top layer holds no more than keys and values need.
pub(crate) struct PrefixTape {
    tape: Tape,
    top: Option<(Matrix, Projected)>,
}

/// Embeds ids, one row per token.
pub(crate) fn embed(
    model: &Model,
    ids: impl ExactSizeIterator<Item = u32>,
    pool: &mut Pool,
) -> Matrix {
    let mut x = pool.take(ids.len(), model.config().hidden);
    for (t, id) in ids.enumerate() {
        x.row_mut(t)
            .copy_from_slice(model.embedding.row(id as usize));
    }
    let scale = model.config().embedding_scale;
    if scale != 1.0 {
        simd::scale(x.data_mut(), scale);
    }
    x
}

fn run_layer(
    pass: &Pass<'_>,
    layer: usize,
    x: Matrix,
    context: Option<&Matrix>,
    keep: Keep,
    tape: &mut Tape,
    pool: &mut Pool,
) -> (Matrix, Matrix) {
    let (kept, y) = layer::forward(pass, layer, x, context, pool);
    let keys_values = kept.keys_values(pass.model.config().query_width());
    match keep {
        Keep::Everything => tape.layers.push(LayerTape::Everything(Box::new(kept))),
        Keep::LayerInputs => tape.layers.push(LayerTape::Input(kept.into_input(pool))),
        Keep::Nothing => {
            let x = kept.into_input(pool);
            pool.give(x);
        }
    }
    (y, keys_values)
}

/// The last hidden state of every token (before the final norm). `contexts` holds the prefix's keys and
/// values per layer.
pub(crate) fn forward(
    pass: &Pass<'_>,
    mut x: Matrix,
    contexts: Option<&[Matrix]>,
    keep: Keep,
    pool: &mut Pool,
) -> (Tape, Matrix) {
    let mut tape = Tape { layers: Vec::new() };
    for layer in 0..pass.model.layers.len() {
        let context = contexts.map(|c| &c[layer]);
        (x, _) = run_layer(pass, layer, x, context, keep, &mut tape, pool);
    }
    (tape, x)
}

/// From the gradient of the last hidden state to the adapter's gradients; the prefix's share is added
/// to `context_grads`, per layer.
pub(crate) fn backward(
    pass: &Pass<'_>,
    tape: Tape,
    mut dx: Matrix,
    contexts: Option<&[Matrix]>,
    mut context_grads: Option<&mut [Matrix]>,
    grads: &mut [f32],
    pool: &mut Pool,
) {
    let lowest = pass.lowest();
    for (layer, kept) in tape.layers.into_iter().enumerate().skip(lowest).rev() {
        let context = contexts.map(|c| &c[layer]);
        let kept = kept.whole(pass, layer, context, pool);
        let flow = KeyFlow {
            context,
            context_grad: context_grads.as_deref_mut().map(|g| &mut g[layer]),
            received: None,
        };
        layer::backward(pass, layer, kept, &mut dx, flow, grads, pool);
    }
    pool.give(dx);
}

impl LayerTape {
    fn whole(
        self,
        pass: &Pass<'_>,
        layer: usize,
        context: Option<&Matrix>,
        pool: &mut Pool,
    ) -> Kept {
        match self {
            Self::Everything(kept) => *kept,
            Self::Input(x) => layer::again(pass, layer, x, context, pool),
        }
    }
}

/// The keys and values of a prefix, per layer.
pub(crate) fn forward_prefix(
    pass: &Pass<'_>,
    mut x: Matrix,
    keep: Keep,
    pool: &mut Pool,
) -> (PrefixTape, Vec<Matrix>) {
    let mut tape = Tape { layers: Vec::new() };
    let mut contexts = Vec::new();
    let top = pass.model.layers.len() - 1;
    for layer in 0..top {
        let keys_values;
        (x, keys_values) = run_layer(pass, layer, x, None, keep, &mut tape, pool);
        contexts.push(keys_values);
    }
    let projected = layer::project(pass, top, &x, pool);
    contexts.push(layer::keys_values(
        &projected.qkv,
        pass.model.config().query_width(),
    ));
    let top = if keep == Keep::Nothing {
        projected.give_back(pool);
        pool.give(x);
        None
    } else {
        Some((x, projected))
    };
    (PrefixTape { tape, top }, contexts)
}

/// From the gradients of the prefix's keys and values to the adapter's gradients.
pub(crate) fn backward_prefix(
    pass: &Pass<'_>,
    tape: PrefixTape,
    context_grads: &[Matrix],
    grads: &mut [f32],
    pool: &mut Pool,
) {
    let top = pass.model.layers.len() - 1;
    let (x, projected) = tape
        .top
        .expect("a prefix that is trained has kept its top layer");
    let mut dx = pool.zeros(x.rows(), x.cols());
    let dqkv = pool.zeros(projected.qkv.rows(), projected.qkv.cols());
    layer::project_backward(
        pass,
        top,
        &x,
        projected,
        dqkv,
        Some(&context_grads[top]),
        &mut dx,
        grads,
        pool,
    );
    pool.give(x);
    let lowest = pass.lowest();
    for (layer, kept) in tape.tape.layers.into_iter().enumerate().skip(lowest).rev() {
        let kept = kept.whole(pass, layer, None, pool);
        let flow = KeyFlow {
            received: Some(&context_grads[layer]),
            ..KeyFlow::default()
        };
        layer::backward(pass, layer, kept, &mut dx, flow, grads, pool);
    }
    pool.give(dx);
}
