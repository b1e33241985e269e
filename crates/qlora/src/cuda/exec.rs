//! Every op of the engine on regions of the card, in the order of one stream.
//!
//! Without a card nothing runs and the arena only counts: that is how a step's memory is planned, by the
//! code of the step itself. The first fault is kept and told by [`Exec::check`]; ops after it do nothing.

use kernels::attention::{AttentionParams, Card, Launch};
use kernels::params::Mask;
use kernels::params::{self, Params};
use kernels::{Element, Grid, Kernel};

use super::blas::{Product, WORKSPACE};
use super::device::Device;
use super::memory::{ALIGNMENT, Arena, Region, Rows};
use super::nccl::Swap;
use super::peers::Peers;
use super::reduce::Reducer;
use crate::error::{Error, Result};

/// Runs ops, or only counts what they take.
pub(super) struct Exec<'d> {
    pub(super) device: Option<&'d Device>,
    pub(super) element: Element,
    pub(super) arena: Arena,
    /// The card, or the one that is planned for.
    pub(super) card: Card,
    /// In a step's last backward where ranks sum their gradients: hears of every layer that it has passed.
    pub(super) reducer: Option<&'d Reducer>,
    /// Those with whom a prefix is divided.
    pub(super) peers: Option<&'d Peers>,
    workspace: Region,
    fault: Option<Error>,
}

const THREADS: usize = 256;

/// Bytes of a block in which nothing but the workspace lies.
pub(super) const LEAST: usize = WORKSPACE + ALIGNMENT;

impl<'d> Exec<'d> {
    /// On a card, with the step's block.
    pub(super) fn on(device: &'d Device, element: Element, block: Region) -> Self {
        let card = device.info().card();
        Self::with(Some(device), element, Arena::over(block), card)
    }

    /// Without a card.
    pub(super) fn counting(element: Element, card: Card) -> Self {
        Self::with(None, element, Arena::counting(), card)
    }

    fn with(device: Option<&'d Device>, element: Element, mut arena: Arena, card: Card) -> Self {
        let workspace = arena.take(WORKSPACE);
        Self {
            device,
            element,
            arena,
            card,
            reducer: None,
            peers: None,
            workspace,
            fault: None,
        }
    }

    /// Runs `work` on the card, if there is one and nothing has failed.
    pub(super) fn go(&mut self, work: impl FnOnce(&'d Device) -> Result<()>) {
        if let (Some(device), None) = (self.device, &self.fault) {
            self.fault = work(device).err();
        }
    }

    /// A backward has passed `layer`.
    pub(super) fn passed(&mut self, layer: usize) {
        if let Some(reducer) = self.reducer {
            self.go(|d| reducer.passed(d, layer));
        }
    }

    /// Exchanges with the other ranks.
    pub(super) fn swap(&mut self, swaps: &[Swap]) {
        let Some(peers) = self.peers else {
            return;
        };
        self.go(|d| {
            d.profile
                .timed(d, || "exchange".to_owned(), || peers.swap(d, swaps))
        });
    }

    /// The first fault since the last check.
    pub(super) fn check(&mut self) -> Result<()> {
        self.fault.take().map_or(Ok(()), Err)
    }

    pub(super) fn rows(&mut self, rows: usize, cols: usize) -> Rows {
        self.arena.rows(rows, cols, self.element)
    }

    /// Room for `count` f32 values.
    pub(super) fn floats(&mut self, count: usize) -> Region {
        self.arena.take(4 * count)
    }

    /// Takes room for host values and copies them.
    pub(super) fn upload<T: Copy>(&mut self, values: &[T]) -> Region {
        let region = self.arena.take(size_of_val(values));
        self.put(region, values);
        region
    }

    /// Copies host values into a region.
    pub(super) fn put<T: Copy>(&mut self, region: Region, values: &[T]) {
        if !values.is_empty() {
            self.go(|d| d.upload(region, values));
        }
    }

    pub(super) fn zero(&mut self, region: Region) {
        if region.bytes > 0 {
            self.go(|d| d.zero(region));
        }
    }

    pub(super) fn launch<P: Params>(&mut self, kernel: Kernel, grid: Grid, params: &P) {
        if grid.blocks.0 == 0 || grid.blocks.1 == 0 {
            return;
        }
        let element = self.element;
        self.go(|d| {
            d.profile.timed(
                d,
                || format!("{kernel:?}"),
                || d.launch(kernel, element, grid, params),
            )
        });
    }

    pub(super) fn attention(&mut self, launch: &Launch, params: &AttentionParams) {
        self.go(|d| {
            d.profile.timed(
                d,
                || launch.kernel.to_owned(),
                || d.launch_attention(launch, params),
            )
        });
    }

    pub(super) fn product(&mut self, product: &Product) {
        let workspace = self.workspace;
        self.go(|d| {
            d.profile
                .timed(d, || product.name(), || d.blas.run(d, product, workspace))
        });
    }

    pub(super) fn copy(&mut self, to: Rows, from: Rows) {
        assert_eq!((to.rows, to.cols), (from.rows, from.cols), "a copy");
        let size = to.element.size();
        self.go(|d| {
            d.copy_rows(
                to.at,
                to.stride * size,
                from.at,
                from.stride * size,
                to.cols * size,
                to.rows,
            )
        });
    }

    /// Rows of `x`, all or those that `index` names, by their root mean square. `masked` is what an adapter is to see
    /// of them.
    pub(super) fn norm(
        &mut self,
        x: Rows,
        weight: Region,
        eps: f32,
        y: Rows,
        inv: Region,
        index: Option<Region>,
        masked: Option<(Mask, Rows)>,
    ) {
        let norm = params::NormForward {
            x: x.at,
            weight: weight.at,
            y: y.at,
            inv: inv.at,
            index: index.map_or(0, |i| i.at),
            width: x.cols as u32,
            x_stride: x.stride as u32,
            y_stride: y.stride as u32,
            eps,
        };
        let grid = Grid::row(y.rows, 512);
        let Some((mask, seen)) = masked else {
            self.launch(Kernel::NormForward, grid, &norm);
            return;
        };
        let p = params::NormForwardMasked {
            norm,
            seen: seen.at,
            mask,
            seen_stride: seen.stride as u32,
            unused: 0,
        };
        self.launch(Kernel::NormForwardMasked, grid, &p);
    }

    /// Adds to `dx`, or with an index sets the rows that it names. `through` belongs to `dy` once it is masked.
    pub(super) fn norm_back(
        &mut self,
        dy: Rows,
        x: Rows,
        weight: Region,
        inv: Region,
        dx: Rows,
        index: Option<Region>,
        through: Option<(Mask, Rows)>,
    ) {
        let norm = params::NormBackward {
            dy: dy.at,
            x: x.at,
            weight: weight.at,
            inv: inv.at,
            dx: dx.at,
            index: index.map_or(0, |i| i.at),
            width: x.cols as u32,
            dy_stride: dy.stride as u32,
            x_stride: x.stride as u32,
            add: u32::from(index.is_none()),
        };
        let grid = Grid::row(dy.rows, 512);
        let Some((mask, through)) = through else {
            self.launch(Kernel::NormBackward, grid, &norm);
            return;
        };
        let p = params::NormBackwardMasked {
            norm,
            through: through.at,
            mask,
            through_stride: through.stride as u32,
            unused: 0,
        };
        self.launch(Kernel::NormBackwardMasked, grid, &p);
    }

    /// Turns the first `heads` heads of each row by its position's angle, or back.
    pub(super) fn rope(
        &mut self,
        rows: Rows,
        positions: Region,
        table: Region,
        heads: usize,
        head_dim: usize,
        sign: f32,
    ) {
        let p = params::Rope {
            rows: rows.at,
            positions: positions.at,
            table: table.at,
            tokens: rows.rows as u32,
            heads: heads as u32,
            head_dim: head_dim as u32,
            stride: rows.stride as u32,
            sign,
            unused: 0,
        };
        let items = rows.rows * heads * (head_dim / 16);
        self.launch(Kernel::Rope, Grid::cover(items, THREADS, 1), &p);
    }

    /// `plain` runs without a mask, `with_mask` with one.
    fn swiglu(
        &mut self,
        [plain, with_mask]: [Kernel; 2],
        gate_up: Rows,
        active: Rows,
        masked: Option<(Mask, Rows)>,
    ) {
        let width = gate_up.cols / 2;
        let gated = params::Swiglu {
            gate_up: gate_up.at,
            active: active.at,
            tokens: gate_up.rows as u32,
            width: width as u32,
            stride: active.stride as u32,
            gate_stride: gate_up.stride as u32,
        };
        let grid = Grid::cover(width / 8, THREADS, gate_up.rows);
        let Some((mask, other)) = masked else {
            self.launch(plain, grid, &gated);
            return;
        };
        let p = params::SwigluMasked {
            gated,
            other: other.at,
            mask,
            other_stride: other.stride as u32,
            unused: 0,
        };
        self.launch(with_mask, grid, &p);
    }

    /// `masked` is what an adapter is to see of the activation.
    pub(super) fn activate(&mut self, gate_up: Rows, active: Rows, masked: Option<(Mask, Rows)>) {
        let kernels = [Kernel::SwigluForward, Kernel::SwigluForwardMasked];
        self.swiglu(kernels, gate_up, active, masked);
    }

    /// `gate_up` becomes its gradient, `d_active` the activation, as the adapter saw it. `through` belongs to
    /// `d_active` once it is masked.
    pub(super) fn activate_back(
        &mut self,
        gate_up: Rows,
        d_active: Rows,
        through: Option<(Mask, Rows)>,
    ) {
        let kernels = [Kernel::SwigluBackward, Kernel::SwigluBackwardMasked];
        self.swiglu(kernels, gate_up, d_active, through);
    }

    pub(super) fn embed(&mut self, table: Rows, ids: Region, out: Rows) {
        let p = params::Embed {
            table: table.at,
            ids: ids.at,
            out: out.at,
            width: out.cols as u32,
            unused: 0,
        };
        self.launch(Kernel::Embed, Grid::row(out.rows, THREADS), &p);
    }

    /// Adds f32 rows without gaps (or one row to all) to columns from `offset`.
    pub(super) fn add_rows(
        &mut self,
        rows: Rows,
        offset: usize,
        values: Region,
        width: usize,
        one: bool,
    ) {
        let p = params::AddRows {
            rows: rows.at,
            values: values.at,
            width: width as u32,
            stride: rows.stride as u32,
            offset: offset as u32,
            values_stride: if one { 0 } else { width as u32 },
        };
        self.launch(
            Kernel::AddRows,
            Grid::cover(width / 8, THREADS, rows.rows),
            &p,
        );
    }

    /// Adds f32 values to f32 values, as rows of `width`.
    pub(super) fn add_floats(&mut self, to: Region, values: Region, width: usize) {
        let rows = to.bytes / 4 / width;
        let p = params::AddRows {
            rows: to.at,
            values: values.at,
            width: width as u32,
            stride: width as u32,
            offset: 0,
            values_stride: width as u32,
        };
        let grid = Grid::cover(width / 8, THREADS, rows);
        self.go(|d| d.launch(Kernel::AddRows, Element::F32, grid, &p));
    }

    pub(super) fn cross_entropy(
        &mut self,
        logits: Rows,
        targets: Region,
        losses: Region,
        weights: Option<Region>,
    ) {
        let p = params::CrossEntropy {
            logits: logits.at,
            targets: targets.at,
            losses: losses.at,
            vocab: logits.cols as u32,
            stride: logits.stride as u32,
            weights: weights.map_or(0, |w| w.at),
            backward: u32::from(weights.is_some()),
            unused: 0,
        };
        self.launch(Kernel::CrossEntropy, Grid::row(logits.rows, 512), &p);
    }
}
