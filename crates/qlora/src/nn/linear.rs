//! A frozen linear map with room for adapters: rows of `W` are followed by the adapters' `B`, so that
//! base and adapter are one product, `y = [x | u] . [W | B]^T` with `u = (alpha / r) . drop(x) A^T`.
//!
//! Several maps of one input (q, k, v) are stacked; their `B` stand on a block diagonal. Backward:
//! `[dx | du] = dy . [W | B]`, `dA = s du^T drop(x)`, `dB = dy^T u`, `dx += s drop'(du A)`. `W` is
//! frozen and gets no gradient.

use std::ops::Range;

use super::adapter::{Adapter, Site, Slot};
use super::pool::Pool;
use crate::ops::dropout::Dropout;
use crate::ops::gemm::{Threads, gemm};
use crate::ops::simd::add;
use crate::ops::view::{View, ViewMut, Write};
use crate::tensor::Matrix;

/// Stacked frozen weights `[out, in]`, each row followed by `extra` adapter columns.
pub(crate) struct Linear {
    values: Vec<f32>,
    outputs: usize,
    inputs: usize,
    extra: usize,
}

impl Linear {
    /// Stacks weights that read the same input.
    pub(crate) fn stack(parts: Vec<Matrix>) -> Self {
        let inputs = parts[0].cols();
        let outputs = parts.iter().map(Matrix::rows).sum();
        let mut parts = parts.into_iter();
        let mut values = parts.next().map(Matrix::into_data).unwrap_or_default();
        values.reserve_exact(inputs * outputs - values.len());
        for part in parts {
            assert_eq!(part.cols(), inputs, "stacked weights read one input");
            values.extend_from_slice(part.data());
        }
        Self {
            values,
            outputs,
            inputs,
            extra: 0,
        }
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    fn stride(&self) -> usize {
        self.inputs + self.extra
    }

    /// Makes room for `extra` adapter columns, all zero.
    pub(crate) fn reserve(&mut self, extra: usize) {
        if extra == self.extra {
            return;
        }
        let mut values = Vec::with_capacity(self.outputs * (self.inputs + extra));
        for row in self.values.chunks_exact(self.stride()) {
            values.extend_from_slice(&row[..self.inputs]);
            values.resize(values.len() + extra, 0.0);
        }
        self.values = values;
        self.extra = extra;
    }

    /// Copies the adapters' `B` into their columns.
    pub(crate) fn write_up(&mut self, pairs: &[Pair<'_>]) {
        let stride = self.stride();
        for pair in pairs {
            for (row, b) in pair.outputs.clone().zip(pair.b.chunks_exact(pair.r)) {
                let at = row * stride + self.inputs + pair.column;
                self.values[at..at + pair.r].copy_from_slice(b);
            }
        }
    }
}

/// One adapter pair of a site.
pub(crate) struct Pair<'a> {
    b: &'a [f32],
    r: usize,
    /// First of its columns behind the inputs.
    column: usize,
    /// Its rows among the stacked outputs.
    outputs: Range<usize>,
    /// Where dB goes in the gradient vector.
    b_at: Range<usize>,
}

/// The adapter of one site of one layer.
pub(crate) struct SiteAdapter<'a> {
    /// All A of the site, `(pairs * r) x in`.
    a: &'a [f32],
    a_at: Range<usize>,
    pub(crate) pairs: Vec<Pair<'a>>,
    scale: f32,
}

impl<'a> SiteAdapter<'a> {
    /// The pairs of `site`, or nothing if it has none. `widths` gives the outputs of each target.
    pub(crate) fn of(
        adapter: &'a Adapter,
        layer: usize,
        site: Site,
        width: impl Fn(usize) -> usize,
    ) -> Option<Self> {
        let slots: &[Slot] = adapter.site(layer, site);
        let r = adapter.config().r;
        let a_at = slots.first()?.a.start..slots.last()?.a.end;
        let values = adapter.values();
        let mut pairs = Vec::with_capacity(slots.len());
        let mut row = 0;
        for (index, target) in site.targets().iter().enumerate() {
            if let Some(slot) = slots.iter().find(|s| s.target == *target) {
                pairs.push(Pair {
                    b: &values[slot.b.clone()],
                    r,
                    column: pairs.len() * r,
                    outputs: row..row + slot.outputs,
                    b_at: slot.b.clone(),
                });
            }
            row += width(index);
        }
        Some(Self {
            a: &values[a_at.clone()],
            a_at,
            pairs,
            scale: adapter.config().scale(),
        })
    }

    /// Adapter columns of the site.
    pub(crate) fn extra(&self) -> usize {
        self.pairs.iter().map(|p| p.r).sum()
    }
}

/// A site ready to run: weights, adapter and the dropout of this pass.
pub(crate) struct SiteCall<'a> {
    pub(crate) linear: &'a Linear,
    pub(crate) adapter: Option<SiteAdapter<'a>>,
    pub(crate) dropout: Option<&'a Dropout>,
    /// Numbers the layer and site, for dropout.
    pub(crate) place: u64,
}

impl SiteCall<'_> {
    /// Columns of the input matrix: the inputs, then `u`.
    pub(crate) fn width(&self) -> usize {
        self.linear.inputs + self.extra()
    }

    fn extra(&self) -> usize {
        self.adapter.as_ref().map_or(0, SiteAdapter::extra)
    }

    /// Fills the adapter columns of `x`, whose first columns hold the inputs.
    pub(crate) fn down(&self, x: &mut Matrix, pool: &mut Pool) {
        let Some(adapter) = &self.adapter else { return };
        let (rows, inputs, extra, stride) = (x.rows(), self.linear.inputs, self.extra(), x.cols());
        let mut u = pool.take(rows, extra);
        let dropped = self.dropped(x, pool);
        let source = dropped.as_ref().unwrap_or(x);
        gemm(
            ViewMut::new(u.data_mut(), rows, extra, extra),
            Write::Set,
            View::new(source.data(), rows, inputs, source.cols()),
            View::new(adapter.a, extra, inputs, inputs).t(),
            adapter.scale,
            Threads::All,
        );
        for (row, u) in x
            .data_mut()
            .chunks_exact_mut(stride)
            .zip(u.data().chunks_exact(extra))
        {
            row[inputs..].copy_from_slice(u);
        }
        pool.give(u);
        give_all(pool, dropped);
    }

    fn dropped(&self, x: &Matrix, pool: &mut Pool) -> Option<Matrix> {
        let dropout = self.dropout?;
        let mut dropped = pool.take(x.rows(), self.linear.inputs);
        dropout.apply(x, self.linear.inputs, self.place, &mut dropped);
        Some(dropped)
    }

    /// `y = x W^T + adapter`, set or added to `y`. `x` has been through [`SiteCall::down`].
    pub(crate) fn forward(&self, x: &Matrix, y: &mut Matrix, write: Write) {
        let (rows, inner, outputs) = (x.rows(), self.width(), self.linear.outputs);
        gemm(
            ViewMut::new(y.data_mut(), rows, outputs, outputs),
            write,
            View::new(x.data(), rows, inner, x.cols()),
            View::new(&self.linear.values, outputs, inner, self.linear.stride()).t(),
            1.0,
            Threads::All,
        );
    }

    /// Adds the pairs' gradients to `grads` (laid out as the adapter) and gives the input's gradient in
    /// the first columns of a matrix; without `want_input` that part is left unspecified.
    pub(crate) fn backward(
        &self,
        x: &Matrix,
        dy: &Matrix,
        grads: &mut [f32],
        want_input: bool,
        pool: &mut Pool,
    ) -> Matrix {
        let (rows, inputs, width) = (x.rows(), self.linear.inputs, self.width());
        let mut dx = pool.take(rows, width);
        // Below the lowest adapter nobody asks for the input's gradient: only the adapter columns are computed.
        let from = if want_input { 0 } else { inputs };
        gemm(
            ViewMut::new(&mut dx.data_mut()[from..], rows, width - from, width),
            Write::Set,
            View::new(dy.data(), rows, self.linear.outputs, dy.cols()),
            View::new(
                &self.linear.values[from..],
                self.linear.outputs,
                width - from,
                self.linear.stride(),
            ),
            1.0,
            Threads::All,
        );
        if let Some(adapter) = &self.adapter {
            self.adapter_backward(adapter, x, dy, &mut dx, grads, want_input, pool);
        }
        dx
    }

    fn adapter_backward(
        &self,
        adapter: &SiteAdapter<'_>,
        x: &Matrix,
        dy: &Matrix,
        dx: &mut Matrix,
        grads: &mut [f32],
        want_input: bool,
        pool: &mut Pool,
    ) {
        let (rows, inputs, extra, width) =
            (x.rows(), self.linear.inputs, self.extra(), self.width());
        let mut du = pool.take(rows, extra);
        for (du, dx) in du
            .data_mut()
            .chunks_exact_mut(extra)
            .zip(dx.data().chunks_exact(width))
        {
            du.copy_from_slice(&dx[inputs..]);
        }
        let dropped = self.dropped(x, pool);
        let source = dropped.as_ref().unwrap_or(x);
        gemm(
            ViewMut::new(&mut grads[adapter.a_at.clone()], extra, inputs, inputs),
            Write::Add,
            View::new(du.data(), rows, extra, extra).t(),
            View::new(source.data(), rows, inputs, source.cols()),
            adapter.scale,
            Threads::All,
        );
        for pair in &adapter.pairs {
            let outputs = pair.outputs.len();
            gemm(
                ViewMut::new(&mut grads[pair.b_at.clone()], outputs, pair.r, pair.r),
                Write::Add,
                View::new(&dy.data()[pair.outputs.start..], rows, outputs, dy.cols()).t(),
                View::new(&x.data()[inputs + pair.column..], rows, pair.r, x.cols()),
                1.0,
                Threads::All,
            );
        }
        if want_input {
            self.input_backward(adapter, &du, dx, pool);
        }
        pool.give(du);
        give_all(pool, dropped);
    }

    /// `dx += scale * drop'(du . A)`.
    fn input_backward(
        &self,
        adapter: &SiteAdapter<'_>,
        du: &Matrix,
        dx: &mut Matrix,
        pool: &mut Pool,
    ) {
        let (rows, inputs, extra, width) =
            (du.rows(), self.linear.inputs, self.extra(), self.width());
        let a = View::new(adapter.a, extra, inputs, inputs);
        let du = View::new(du.data(), rows, extra, extra);
        let Some(dropout) = self.dropout else {
            let dx = ViewMut::new(dx.data_mut(), rows, inputs, width);
            gemm(dx, Write::Add, du, a, adapter.scale, Threads::All);
            return;
        };
        let mut through = pool.take(rows, inputs);
        let into = ViewMut::new(through.data_mut(), rows, inputs, inputs);
        gemm(into, Write::Set, du, a, adapter.scale, Threads::All);
        let mut masked = pool.take(rows, inputs);
        dropout.apply(&through, inputs, self.place, &mut masked);
        for (dx, masked) in dx
            .data_mut()
            .chunks_exact_mut(width)
            .zip(masked.data().chunks_exact(inputs))
        {
            add(&mut dx[..inputs], masked);
        }
        pool.give(through);
        pool.give(masked);
    }
}

fn give_all(pool: &mut Pool, matrices: impl IntoIterator<Item = Matrix>) {
    for matrix in matrices {
        pool.give(matrix);
    }
}
