//! Products of a few rows with transposed weights, `y = s x W^T`: the shape of decoding.
//!
//! A general product first copies (packs) `W` into tiles, which pays off over many rows of `x`; with a
//! few dozen rows the copy takes longer than the product. Here a tile of outputs is a set of dot products
//! that read both operands where they lie. Promises: the bits depend on the shape alone, not on threads
//! (a task computes whole outputs, each summed over 16 lanes in one order). It needs AVX-512; elsewhere
//! the caller takes the packed product.

use rayon::prelude::*;

use super::view::{View, ViewMut, Write};

/// More rows than this are left to the packed product, whose copy is paid for by then.
pub(super) const MOST_ROWS: usize = 128;
/// Fewer weights than this are not worth it: the packed product is quick anyway.
const LEAST_WEIGHTS: usize = 1 << 15;
/// Outputs of one task.
const BLOCK: usize = 64;
/// Rows of `x` and of `W` in a tile: 6 x 4 sums and 10 operands fit the 32 registers with a few spills at most.
const TILE_ROWS: usize = 6;
const TILE_OUTPUTS: usize = 4;

/// Whether [`product`] takes this shape: `rows x inner` times `inner x outputs`.
pub(super) fn serves(rows: usize, outputs: usize, inner: usize) -> bool {
    rows > 0 && rows <= MOST_ROWS && outputs * inner >= LEAST_WEIGHTS && has_avx512()
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    super::simd::has_avx512()
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}

/// `dst = scale * x . w^T`, or added to `dst`; rows of `x` and `w` are contiguous runs of `inner` values.
/// Only where [`serves`] says so.
pub(super) fn product(
    dst: &mut ViewMut<'_>,
    write: Write,
    x: View<'_>,
    w: View<'_>,
    scale: f32,
    parallel: bool,
) {
    let (rows, outputs) = (x.rows(), w.rows());
    let blocks: Vec<usize> = (0..outputs).step_by(BLOCK).collect();
    let compute = |from: &usize| block(x, w, *from, (*from + BLOCK).min(outputs), scale);
    let done: Vec<Vec<f32>> = if parallel {
        blocks.par_iter().map(compute).collect()
    } else {
        blocks.iter().map(compute).collect()
    };
    for row in 0..rows {
        for (from, block) in blocks.iter().zip(&done) {
            let width = block.len() / rows;
            let source = &block[row * width..][..width];
            let target = &mut dst.row_mut(row)[*from..from + width];
            match write {
                Write::Set => target.copy_from_slice(source),
                Write::Add => super::simd::add(target, source),
            }
        }
    }
}

/// Outputs `from..to` of every row, `rows x (to - from)`.
#[cfg(target_arch = "x86_64")]
fn block(x: View<'_>, w: View<'_>, from: usize, to: usize, scale: f32) -> Vec<f32> {
    assert!(has_avx512(), "`serves` keeps other machines away");
    #[expect(unsafe_code, reason = "run-time choice of the instruction set")]
    // SAFETY: the assertion above saw every feature that the function enables.
    unsafe {
        avx512::block(x, w, from, to, scale)
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn block(_: View<'_>, _: View<'_>, _: usize, _: usize, _: f32) -> Vec<f32> {
    unreachable!("`serves` keeps other machines away")
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, _mm512_fmadd_ps, _mm512_maskz_loadu_ps, _mm512_reduce_add_ps, _mm512_setzero_ps,
    };

    use super::{TILE_OUTPUTS, TILE_ROWS, View};

    const LANES: usize = 16;

    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
    pub(super) fn block(x: View<'_>, w: View<'_>, from: usize, to: usize, scale: f32) -> Vec<f32> {
        let width = to - from;
        let mut out = vec![0.0; x.rows() * width];
        let mut place = Place {
            x,
            w,
            from,
            width,
            scale,
            out: &mut out,
        };
        let mut output = from;
        while output + TILE_OUTPUTS <= to {
            place.rows::<TILE_OUTPUTS>(output);
            output += TILE_OUTPUTS;
        }
        for output in output..to {
            place.rows::<1>(output);
        }
        out
    }

    struct Place<'a> {
        x: View<'a>,
        w: View<'a>,
        from: usize,
        width: usize,
        scale: f32,
        out: &'a mut [f32],
    }

    impl Place<'_> {
        /// `N` outputs of all rows.
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
        fn rows<const N: usize>(&mut self, output: usize) {
            let mut w: [&[f32]; N] = [&[]; N];
            for (j, w) in w.iter_mut().enumerate() {
                *w = self.w.row(output + j);
            }
            let rows = self.x.rows();
            let mut row = 0;
            while row + TILE_ROWS <= rows {
                self.tile::<TILE_ROWS, N>(row, output, &w);
                row += TILE_ROWS;
            }
            match rows - row {
                0 => {}
                1 => self.tile::<1, N>(row, output, &w),
                2 => self.tile::<2, N>(row, output, &w),
                3 => self.tile::<3, N>(row, output, &w),
                4 => self.tile::<4, N>(row, output, &w),
                _ => self.tile::<5, N>(row, output, &w),
            }
        }

        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
        fn tile<const M: usize, const N: usize>(
            &mut self,
            row: usize,
            output: usize,
            w: &[&[f32]; N],
        ) {
            let mut x: [&[f32]; M] = [&[]; M];
            for (i, x) in x.iter_mut().enumerate() {
                *x = self.x.row(row + i);
            }
            let sums = dots::<M, N>(&x, w);
            for (i, sums) in sums.iter().enumerate() {
                let at = (row + i) * self.width + output - self.from;
                for (out, sum) in self.out[at..at + N].iter_mut().zip(sums) {
                    *out = self.scale * sum;
                }
            }
        }
    }

    /// `x[i] . w[j]` for all pairs; all slices are equally long. Loops instead of closures: a closure that is
    /// called from a function without these instruction sets would not be inlined.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
    fn dots<const M: usize, const N: usize>(x: &[&[f32]; M], w: &[&[f32]; N]) -> [[f32; N]; M] {
        let inner = x[0].len();
        let mut sums = [[_mm512_setzero_ps(); N]; M];
        for at in (0..inner).step_by(LANES) {
            let lanes = LANES.min(inner - at);
            let mut weights = [_mm512_setzero_ps(); N];
            for j in 0..N {
                weights[j] = load(&w[j][at..at + lanes]);
            }
            for i in 0..M {
                let x = load(&x[i][at..at + lanes]);
                for j in 0..N {
                    sums[i][j] = _mm512_fmadd_ps(x, weights[j], sums[i][j]);
                }
            }
        }
        let mut totals = [[0.0; N]; M];
        for i in 0..M {
            for j in 0..N {
                totals[i][j] = _mm512_reduce_add_ps(sums[i][j]);
            }
        }
        totals
    }

    /// Up to 16 values, zeros behind them.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
    #[inline]
    fn load(values: &[f32]) -> __m512 {
        let mask = u16::MAX >> (LANES - values.len());
        #[expect(unsafe_code, reason = "vector loads take pointers")]
        // SAFETY: only the masked-in lanes are read: as many as `values` holds (1 to 16: for more, the
        // subtraction above overflows). No alignment is asked for.
        unsafe {
            _mm512_maskz_loadu_ps(mask, values.as_ptr())
        }
    }
}
