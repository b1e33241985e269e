//! Cuts f32 values in bf16 parts and lays them out as tiles.
//!
//! `x = h + m + l`, exactly: `h` is `x` rounded to the 8 significant bits of bf16, `m` the rest rounded
//! likewise, `l` what then remains (8 + 8 + 8 bits and two signs cover the 24 bits of f32). Parts below the
//! smallest normal number count as zero on the tile unit. A value that is not finite stays so.
//!
//! A panel holds 32 rows (or columns) of an operand: for each 32 inner values the tiles of `h`, `m` and `l`,
//! two tiles of 16 rows each. A left operand has a line per row; a right one a line per pair of inner
//! values. Either comes from a matrix that lies along the inner dimension or across it; where the two do
//! not agree, tiles are transposed on the way.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_maskz_loadu_ps, _mm512_or_si512, _mm512_permutex2var_epi16, _mm512_set1_epi32,
    _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_srli_epi32, _mm512_sub_ps,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::ops::Range;

use super::super::gemm::View;
use super::tile::{BLOCK, INNER, LINES, Line};

/// Which side of a product an operand is on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Lines of a panel over `inner` values.
pub(super) fn panel_lines(inner: usize) -> usize {
    inner.div_ceil(INNER) * LINES
}

/// Fills a panel with rows `from..from + 32` of `operand` (rows x inner; those beyond its end are zero)
/// and its inner values `inner`.
pub(super) fn panel(
    operand: View<'_>,
    side: Side,
    from: usize,
    inner: Range<usize>,
    into: &mut [Line],
) {
    assert!(super::serves_machine(), "the driver asks first");
    #[expect(unsafe_code, reason = "run-time choice of the instruction set")]
    // SAFETY: the assertion above saw every feature that the function enables.
    unsafe {
        fill(operand, side, from, inner, into);
    }
}

#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
fn fill(operand: View<'_>, side: Side, from: usize, inner: Range<usize>, into: &mut [Line]) {
    let along = operand.lies_along_rows();
    let steps = inner.clone().step_by(INNER);
    for (k, lines) in steps.zip(into.chunks_exact_mut(LINES)) {
        let ks = k..(k + INNER).min(inner.end);
        for half in 0..2 {
            let first = (from + half * BLOCK / 2).min(operand.rows());
            let rows = first..(first + BLOCK / 2).min(operand.rows());
            if along {
                read_along(operand, rows, ks.clone(), half, lines);
            } else {
                read_across(operand.t(), rows, ks.clone(), half, lines);
            }
        }
        if along != (side == Side::Left) {
            for tile in lines.as_chunks_mut::<16>().0 {
                transpose(tile);
            }
        }
    }
}

/// A line per row: its inner values in pairs.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
fn read_along(x: View<'_>, rows: Range<usize>, ks: Range<usize>, half: usize, lines: &mut [Line]) {
    let middle = (ks.start + 16).min(ks.end);
    for i in 0..16 {
        let parts = if rows.start + i < rows.end {
            let row = x.row(rows.start + i);
            let low = parts(&row[ks.start..middle]);
            let high = parts(&row[middle..ks.end]);
            join(low, high)
        } else {
            [_mm512_setzero_si512(); 3]
        };
        store(parts, half, i, lines);
    }
}

/// A line per pair of inner values: one pair for each row. `x` lies along the rows: inner x rows.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
fn read_across(x: View<'_>, rows: Range<usize>, ks: Range<usize>, half: usize, lines: &mut [Line]) {
    for i in 0..16 {
        let k = ks.start + 2 * i;
        let of = |k: usize| {
            if k < ks.end {
                &x.row(k)[rows.clone()]
            } else {
                &[]
            }
        };
        let (first, second) = (parts(of(k)), parts(of(k + 1)));
        let mut pairs = [_mm512_setzero_si512(); 3];
        for p in 0..3 {
            pairs[p] = _mm512_or_si512(_mm512_srli_epi32::<16>(first[p]), second[p]);
        }
        store(pairs, half, i, lines);
    }
}

/// The three parts of up to 16 values, each in the upper half of its lane; zeros behind them.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
#[inline]
fn parts(values: &[f32]) -> [__m512i; 3] {
    let mask = ((1_u32 << values.len().min(16)) - 1) as u16;
    #[expect(unsafe_code, reason = "vector loads take pointers")]
    // SAFETY: only the masked-in lanes are read, no more than `values` holds. No alignment is asked for.
    let x = unsafe { _mm512_maskz_loadu_ps(mask, values.as_ptr()) };
    let keep = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    let half = _mm512_set1_epi32(0x8000);
    let high = _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(x), half), keep);
    let rest = _mm512_sub_ps(x, _mm512_castsi512_ps(high));
    let middle = _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(rest), half), keep);
    let low = _mm512_sub_ps(rest, _mm512_castsi512_ps(middle));
    // Nothing is lost here, as 8 bits are left; a NaN keeps its quiet bit.
    let low = _mm512_and_si512(_mm512_castps_si512(low), keep);
    [high, middle, low]
}

/// The upper halves of the lanes of `low`, then of `high`.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
#[inline]
fn join(low: [__m512i; 3], high: [__m512i; 3]) -> [__m512i; 3] {
    let odd = load(&ODD);
    let mut joined = [_mm512_setzero_si512(); 3];
    for p in 0..3 {
        joined[p] = _mm512_permutex2var_epi16(low[p], odd, high[p]);
    }
    joined
}

/// Places of the odd 16-bit words of two registers.
static ODD: Line = {
    let mut pairs = [0; 16];
    let mut i = 0;
    while i < 16 {
        let place = 4 * i as u32 + 1;
        pairs[i] = place | (place + 2) << 16;
        i += 1;
    }
    Line(pairs)
};

#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
#[inline]
fn store(parts: [__m512i; 3], half: usize, line: usize, lines: &mut [Line]) {
    for (part, value) in parts.into_iter().enumerate() {
        put(&mut lines[(2 * part + half) * 16 + line], value);
    }
}

#[inline]
fn load(line: &Line) -> __m512i {
    #[expect(unsafe_code, reason = "a line as a register")]
    // SAFETY: both are 64 bytes for which every bit pattern is a value, and equally aligned.
    unsafe {
        std::mem::transmute::<Line, __m512i>(*line)
    }
}

#[inline]
fn put(line: &mut Line, value: __m512i) {
    #[expect(unsafe_code, reason = "a register as a line")]
    // SAFETY: both are 64 bytes for which every bit pattern is a value.
    let stored = unsafe { std::mem::transmute::<__m512i, Line>(value) };
    *line = stored;
}

/// Transposes 16 lines of 16 pairs: within blocks of 4 x 4, then the blocks.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
fn transpose(tile: &mut [Line; 16]) {
    let mut r = [_mm512_setzero_si512(); 16];
    for i in 0..16 {
        r[i] = load(&tile[i]);
    }
    let mut q = r;
    for i in (0..16).step_by(4) {
        let low = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        let high = _mm512_unpackhi_epi32(r[i], r[i + 1]);
        let low2 = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]);
        let high2 = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
        q[i] = _mm512_unpacklo_epi64(low, low2);
        q[i + 1] = _mm512_unpackhi_epi64(low, low2);
        q[i + 2] = _mm512_unpacklo_epi64(high, high2);
        q[i + 3] = _mm512_unpackhi_epi64(high, high2);
    }
    for j in 0..4 {
        let even = _mm512_shuffle_i32x4::<0x88>(q[j], q[j + 4]);
        let odd = _mm512_shuffle_i32x4::<0xdd>(q[j], q[j + 4]);
        let even2 = _mm512_shuffle_i32x4::<0x88>(q[j + 8], q[j + 12]);
        let odd2 = _mm512_shuffle_i32x4::<0xdd>(q[j + 8], q[j + 12]);
        put(&mut tile[j], _mm512_shuffle_i32x4::<0x88>(even, even2));
        put(&mut tile[j + 4], _mm512_shuffle_i32x4::<0x88>(odd, odd2));
        put(&mut tile[j + 8], _mm512_shuffle_i32x4::<0xdd>(even, even2));
        put(&mut tile[j + 12], _mm512_shuffle_i32x4::<0xdd>(odd, odd2));
    }
}
