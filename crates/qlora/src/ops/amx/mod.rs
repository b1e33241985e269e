//! Products of f32 matrices on the tile unit (Intel AMX): both operands are cut into three bf16 parts
//! and the six products that matter are summed in f32.
//!
//! Promises: the accuracy of an f32 product or better (tests against f64, `examples/products.rs`); bits
//! that depend on the shape alone (the inner dimension is cut by its length, every block of the result is
//! one task's, and an element's value depends on its row and column only). Where the unit is missing or
//! switched off (`TUNESMITH_AMX=0`) [`serves`] says no, and the caller takes the packed product.

mod pack;
mod tile;

use std::arch::x86_64::{
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps,
    _mm512_set1_ps,
};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::gemm::{View, ViewMut, Write};
use super::simd::LANES;
use pack::{Side, panel, panel_lines};
use tile::{BLOCK, INNER, Line, Sums, Tiles};

/// Inner values of a panel at most: a panel then takes less than a tenth of a second-level cache.
const MOST_INNER: usize = 1024;
/// Rows and columns whose panels are held at a time: 24 MiB and 12 MiB at most.
const MOST_ROWS: usize = 4096;
const MOST_COLS: usize = 2048;
/// Panels of rows and of columns of a task at most: those of the columns stay in the second-level cache
/// while rows pass by.
const TASK: usize = 8;
/// Multiplications below which cutting and packing cost more than they gain.
const LEAST_WORK: usize = 1 << 20;

/// Whether this process multiplies on the tile unit.
pub(crate) fn serves_machine() -> bool {
    static SERVES: OnceLock<bool> = OnceLock::new();
    *SERVES.get_or_init(|| {
        std::env::var_os("TUNESMITH_AMX").is_none_or(|v| v != "0")
            && super::simd::has_avx512()
            && tile::available()
    })
}

/// Whether [`product`] takes this shape.
pub(super) fn serves(rows: usize, cols: usize, inner: usize) -> bool {
    rows.min(cols) >= BLOCK / 2
        && inner >= INNER
        && rows * cols * inner >= LEAST_WORK
        && serves_machine()
}

thread_local! {
    /// Panels of the last product, for the next one.
    static PANELS: Cell<(Vec<Line>, Vec<Line>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

/// `dst = scale * a . b`, or added to `dst`. Only where [`serves`] says so.
pub(super) fn product(
    dst: &mut ViewMut<'_>,
    write: Write,
    a: View<'_>,
    b: View<'_>,
    scale: f32,
    parallel: bool,
) {
    let columns = b.t();
    let (mut left, mut right) = PANELS.take();
    for (index, inner) in cut(a.t().rows(), MOST_INNER).enumerate() {
        let write = if index == 0 { write } else { Write::Add };
        for rows in cut(a.rows(), MOST_ROWS) {
            pack_all(
                a,
                Side::Left,
                rows.clone(),
                inner.clone(),
                &mut left,
                parallel,
            );
            for cols in cut(columns.rows(), MOST_COLS) {
                pack_all(
                    columns,
                    Side::Right,
                    cols.clone(),
                    inner.clone(),
                    &mut right,
                    parallel,
                );
                let part = Part {
                    left: &left,
                    right: &right,
                    lines: panel_lines(inner.len()),
                    scale,
                    write,
                    target: Target::new(dst, rows.clone(), cols),
                };
                part.multiply(parallel);
            }
        }
    }
    PANELS.set((left, right));
}

/// Cuts `0..len` in equal ranges of whole blocks, none longer than `most` rounded up to blocks.
fn cut(len: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let step = len.div_ceil(len.div_ceil(most)).next_multiple_of(BLOCK);
    (0..len)
        .step_by(step)
        .map(move |from| from..(from + step).min(len))
}

/// Packs `rows` of `operand`, panel after panel.
fn pack_all(
    operand: View<'_>,
    side: Side,
    rows: Range<usize>,
    inner: Range<usize>,
    into: &mut Vec<Line>,
    parallel: bool,
) {
    let lines = panel_lines(inner.len());
    let len = rows.len().div_ceil(BLOCK) * lines;
    // What is there already is overwritten: panels are filled whole.
    into.resize(len, Line([0; 16]));
    let fill = |(index, into): (usize, &mut [Line])| {
        panel(
            operand,
            side,
            rows.start + index * BLOCK,
            inner.clone(),
            into,
        );
    };
    if parallel {
        into.par_chunks_mut(lines).enumerate().for_each(fill);
    } else {
        into.chunks_mut(lines).enumerate().for_each(fill);
    }
}

/// Packed operands of one part of a product, and where it goes.
struct Part<'a> {
    left: &'a [Line],
    right: &'a [Line],
    /// Lines of a panel.
    lines: usize,
    scale: f32,
    write: Write,
    target: Target<'a>,
}

/// Panels of rows and columns that one task multiplies.
struct Task {
    rows: Range<usize>,
    cols: Range<usize>,
}

impl Part<'_> {
    fn multiply(&self, parallel: bool) {
        let (rows, cols) = (self.left.len() / self.lines, self.right.len() / self.lines);
        let (high, wide) = ((rows / 8).clamp(1, TASK), (cols / 8).clamp(1, TASK));
        let end = |from: usize, step: usize, len: usize| (from + step).min(len);
        let tasks = (0..cols).step_by(wide).flat_map(|col| {
            (0..rows).step_by(high).map(move |row| Task {
                rows: row..end(row, high, rows),
                cols: col..end(col, wide, cols),
            })
        });
        if parallel {
            let tasks: Vec<Task> = tasks.collect();
            tasks.par_iter().for_each(|task| self.run(task));
        } else {
            tasks.for_each(|task| self.run(&task));
        }
    }

    fn run(&self, task: &Task) {
        let tiles = Tiles::set_up();
        let mut sums = Sums([[0.0; BLOCK]; BLOCK]);
        let panel = |index: usize| index * self.lines..(index + 1) * self.lines;
        for row in task.rows.clone() {
            for col in task.cols.clone() {
                tile::block(
                    &tiles,
                    &self.left[panel(row)],
                    &self.right[panel(col)],
                    &mut sums,
                );
                self.target
                    .put(row * BLOCK, col * BLOCK, &sums, self.scale, self.write);
            }
        }
    }
}

/// The part of the destination that a product's tasks write, each its own blocks.
struct Target<'a> {
    first: *mut f32,
    rows: usize,
    cols: usize,
    stride: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

#[expect(unsafe_code, reason = "tasks write blocks of one matrix")]
// SAFETY: the only access is `put`, and tasks put different blocks, which share no element.
unsafe impl Sync for Target<'_> {}

impl<'a> Target<'a> {
    fn new(dst: &'a mut ViewMut<'_>, rows: Range<usize>, cols: Range<usize>) -> Self {
        let stride = dst.stride();
        let values = dst.values();
        assert!(
            rows.is_empty()
                || cols.is_empty()
                || (rows.end - 1) * stride + cols.end <= values.len(),
            "part of the destination"
        );
        Self {
            first: values[rows.start * stride + cols.start..].as_mut_ptr(),
            rows: rows.len(),
            cols: cols.len(),
            stride,
            borrowed: PhantomData,
        }
    }

    /// Writes what lies inside of the block at `row`, `col`.
    fn put(&self, row: usize, col: usize, sums: &Sums, scale: f32, write: Write) {
        let (height, width) = (BLOCK.min(self.rows - row), BLOCK.min(self.cols - col));
        #[expect(unsafe_code, reason = "tasks write blocks of one matrix")]
        // SAFETY: `row + height <= rows` and `col + width <= cols`, so by the assertion in `new` the block
        // lies inside the slice, which is borrowed mutably as long as `self` lives; no other task has it. The
        // instruction set was detected before anything was packed.
        unsafe {
            let first = self.first.add(row * self.stride + col);
            put(first, self.stride, (height, width), sums, scale, write);
        }
    }
}

/// Writes the first `height` rows and `width` columns of `sums` where `first` points to, rows `stride`
/// values apart.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
#[expect(unsafe_code, reason = "vector stores take pointers")]
unsafe fn put(
    first: *mut f32,
    stride: usize,
    (height, width): (usize, usize),
    sums: &Sums,
    scale: f32,
    write: Write,
) {
    let factor = _mm512_set1_ps(scale);
    let masks = [mask(width), mask(width.saturating_sub(LANES))];
    for (i, row) in sums.0.iter().enumerate().take(height) {
        for (half, mask) in masks.into_iter().enumerate() {
            // SAFETY: only masked-in lanes are touched; the caller owns them.
            unsafe {
                let sum = _mm512_loadu_ps(row[half * LANES..].as_ptr());
                let place = first.wrapping_add(i * stride + half * LANES);
                let value = match write {
                    Write::Set => _mm512_mul_ps(factor, sum),
                    Write::Add => _mm512_fmadd_ps(factor, sum, _mm512_maskz_loadu_ps(mask, place)),
                };
                _mm512_mask_storeu_ps(place, mask, value);
            }
        }
    }
}

/// The first `len` lanes, or all.
fn mask(len: usize) -> u16 {
    ((1_u32 << len.min(LANES)) - 1) as u16
}

#[cfg(test)]
mod tests;
