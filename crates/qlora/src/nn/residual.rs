//! How a sublayer's product joins the residual stream: added as it is, or (Gemma 2 and 3) through a norm.
//!
//! Forward: `y = x + product` or `y = x + norm(product)`. Backward: the product's gradient from that of `y`.

use super::linear::SiteCall;
use super::pool::Pool;
use crate::ops::rmsnorm;
use crate::ops::simd::add;
use crate::ops::view::Write;
use crate::tensor::Matrix;

/// The norm between a sublayer and the residual.
#[derive(Clone, Copy)]
pub(super) struct PostNorm<'a> {
    pub(super) weight: &'a [f32],
    pub(super) eps: f32,
}

/// A product before its norm, and the norm's factor per row.
pub(super) struct Normed {
    product: Matrix,
    inv: Vec<f32>,
}

impl Normed {
    pub(super) fn give_back(self, pool: &mut Pool) {
        pool.give(self.product);
    }
}

/// Adds `site`'s product with `input` to `stream`; gives what the backward needs where there is a norm.
pub(super) fn join(
    site: &SiteCall<'_>,
    norm: Option<PostNorm<'_>>,
    input: &Matrix,
    stream: &mut Matrix,
    pool: &mut Pool,
) -> Option<Normed> {
    let Some(norm) = norm else {
        site.forward(input, stream, Write::Add);
        return None;
    };
    let mut product = pool.take(stream.rows(), stream.cols());
    site.forward(input, &mut product, Write::Set);
    let mut normed = pool.take(stream.rows(), stream.cols());
    let inv = rmsnorm::forward(&product, norm.weight, norm.eps, &mut normed);
    add(stream.data_mut(), normed.data());
    pool.give(normed);
    Some(Normed { product, inv })
}

/// The gradient of the product, where it is not that of the stream itself.
pub(super) fn part(
    norm: Option<PostNorm<'_>>,
    normed: Option<&Normed>,
    stream_grad: &Matrix,
    pool: &mut Pool,
) -> Option<Matrix> {
    let (norm, normed) = (norm?, normed?);
    let mut d_product = pool.zeros(stream_grad.rows(), stream_grad.cols());
    rmsnorm::backward(
        stream_grad,
        &normed.product,
        norm.weight,
        &normed.inv,
        &mut d_product,
    );
    Some(d_product)
}
