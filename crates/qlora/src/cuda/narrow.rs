//! The adapter's own products on kernels made for them (narrow.cu): what a rank is one side of moves a wide matrix
//! once and computes next to nothing, and cuBLASLt takes two to four times as long as the bytes do.
//!
//! They serve bf16 and the ranks that their tiles hold; [`serves`] says which. Others go through cuBLASLt (linear.rs).

use kernels::params::{self, Mask};
use kernels::{Element, Grid, Kernel};

use super::exec::Exec;
use super::linear::{Pairs, SitePlan};
use super::memory::{Region, Rows};

/// Columns of the wide side in one block.
const TILE: usize = 64;
/// Blocks that fill a card of 132 multiprocessors twice: no measure of the card at hand, so that equal
/// shapes are cut alike on every one.
const BLOCKS: usize = 264;
/// Fewest tokens that are worth a block of their own.
const PART: usize = 128;

/// Whether the kernels serve a site: rank in whole columns of eight, all pairs within 64, maps that end between tiles.
pub(super) fn serves(plan: &SitePlan, element: Element) -> bool {
    let Some(pairs) = &plan.pairs else {
        return false;
    };
    let within = |(_, column): (usize, usize)| column + pairs.r.next_multiple_of(16) <= plan.pad;
    element == Element::Bf16
        && plan.pad == TILE
        && pairs.r.is_multiple_of(8)
        && pairs.b.iter().flatten().copied().all(within)
        && plan.inputs.is_multiple_of(TILE)
        && plan.ends.iter().all(|end| end.is_multiple_of(TILE))
}

/// Bytes of the flags that [`gradient`] needs, zero at first.
pub(super) fn flag_bytes(plans: &[SitePlan]) -> usize {
    let widest = plans.iter().map(|p| p.inputs.max(p.outputs)).max();
    4 * widest.unwrap_or(0).div_ceil(TILE)
}

/// Of four kernels, the one for `count` units of `each`.
fn pick(kernels: [Kernel; 4], count: usize, each: usize) -> Kernel {
    kernels[count.div_ceil(each) - 1]
}

/// `u = scale . seen A^T`, and once more into `also`.
pub(super) fn down(
    exec: &mut Exec<'_>,
    pairs: &Pairs,
    values: Region,
    seen: Rows,
    u: Rows,
    also: Option<Rows>,
) {
    let p = params::NarrowDown {
        x: seen.at,
        a: values.at + 4 * pairs.a as u64,
        u: u.at,
        also: also.map_or(0, |rows| rows.at),
        tokens: seen.rows as u32,
        width: seen.cols as u32,
        rows: pairs.a_rows as u32,
        pad: u.cols as u32,
        x_stride: seen.stride as u32,
        u_stride: u.stride as u32,
        also_stride: also.map_or(0, |rows| rows.stride as u32),
        scale: pairs.scale,
    };
    let kernels = [
        Kernel::NarrowDown2,
        Kernel::NarrowDown4,
        Kernel::NarrowDown6,
        Kernel::NarrowDown8,
    ];
    let kernel = pick(kernels, pairs.a_rows, 16);
    exec.launch(kernel, Grid::row(seen.rows.div_ceil(32), 512), &p);
}

/// `dx += mask(scale . du A)`.
pub(super) fn out(
    exec: &mut Exec<'_>,
    pairs: &Pairs,
    values: Region,
    du: Rows,
    dx: Rows,
    mask: Option<Mask>,
) {
    let tiles = dx.cols.div_ceil(2 * TILE);
    let per_block = (dx.rows * tiles)
        .div_ceil(2 * BLOCKS)
        .next_multiple_of(TILE);
    let p = params::NarrowOut {
        du: du.at,
        a: values.at + 4 * pairs.a as u64,
        dx: dx.at,
        mask: mask.unwrap_or_default(),
        tokens: dx.rows as u32,
        width: dx.cols as u32,
        rows: pairs.a_rows as u32,
        du_stride: du.stride as u32,
        dx_stride: dx.stride as u32,
        per_block: per_block as u32,
        scale: pairs.scale,
        unused: 0,
    };
    let kernels = [
        Kernel::NarrowOut1,
        Kernel::NarrowOut2,
        Kernel::NarrowOut3,
        Kernel::NarrowOut4,
    ];
    let grid = Grid {
        blocks: (tiles, dx.rows.div_ceil(per_block)),
        ..Grid::row(0, 256)
    };
    exec.launch(pick(kernels, pairs.a_rows, 16), grid, &p);
}

/// One gradient: `scale . thin^T wide` over tokens, added to f32 values.
struct Gradient {
    wide: Rows,
    thin: Rows,
    /// Of the rank.
    rows: usize,
    out: Region,
    starts: [u64; 3],
    ends: [usize; 3],
    columns: [u32; 3],
    scale: f32,
    turned: bool,
}

/// Adds the gradient of A: `scale . du^T seen`.
pub(super) fn gradient_of_a(
    exec: &mut Exec<'_>,
    pairs: &Pairs,
    grads: Region,
    flags: Region,
    du: Rows,
    seen: Rows,
) {
    let gradient = Gradient {
        wide: seen,
        thin: du,
        rows: pairs.a_rows,
        out: grads,
        starts: [pairs.a as u64; 3],
        ends: [seen.cols; 3],
        columns: [0; 3],
        scale: pairs.scale,
        turned: false,
    };
    gradient.launch(exec, flags);
}

/// Adds the gradients of the site's B: `dy^T u`, each map's own columns of both.
pub(super) fn gradient_of_b(
    exec: &mut Exec<'_>,
    plan: &SitePlan,
    pairs: &Pairs,
    grads: Region,
    flags: Region,
    u: Rows,
    dy: Rows,
) {
    let gradient = Gradient {
        wide: dy,
        thin: u,
        rows: pairs.r,
        out: grads,
        starts: pairs.b.map(|b| b.map_or(0, |(at, _)| at as u64)),
        ends: plan.ends,
        columns: pairs
            .b
            .map(|b| b.map_or(u32::MAX, |(_, column)| column as u32)),
        scale: 1.0,
        turned: true,
    };
    gradient.launch(exec, flags);
}

impl Gradient {
    fn launch(self, exec: &mut Exec<'_>, flags: Region) {
        let (tokens, tiles) = (self.wide.rows, self.wide.cols / TILE);
        let splits = (BLOCKS / tiles).clamp(1, tokens.div_ceil(PART).max(1));
        let per_split = tokens.div_ceil(splits).next_multiple_of(32);
        let splits = tokens.div_ceil(per_split);
        let p = params::NarrowGrad {
            wide: self.wide.at,
            thin: self.thin.at,
            out: self.out.at,
            partial: exec.workspace().at,
            arrived: flags.part(0, 4 * tiles).at,
            starts: self.starts,
            ends: self.ends.map(|end| end as u32),
            columns: self.columns,
            tokens: tokens as u32,
            width: self.wide.cols as u32,
            wide_stride: self.wide.stride as u32,
            thin_stride: self.thin.stride as u32,
            rows: self.rows as u32,
            per_split: per_split as u32,
            scale: self.scale,
            turned: u32::from(self.turned),
        };
        let kernels = [
            Kernel::NarrowGrad1,
            Kernel::NarrowGrad2,
            Kernel::NarrowGrad3,
            Kernel::NarrowGrad4,
        ];
        let grid = Grid {
            blocks: (tiles, splits),
            ..Grid::row(0, 128)
        };
        exec.launch(pick(kernels, self.rows, 16), grid, &p);
    }
}
