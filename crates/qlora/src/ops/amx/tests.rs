//! The product against f64, over shapes that fill tiles and shapes that do not.

use super::*;
use crate::ops::simd::tests::noise;

/// One product with gaps between the rows of every operand; each matrix lies along its rows or across.
struct Case {
    rows: usize,
    cols: usize,
    inner: usize,
    left_across: bool,
    right_across: bool,
}

fn view(data: &[f32], rows: usize, inner: usize, across: bool) -> View<'_> {
    if across {
        View::new(data, inner, rows, rows + 3).t()
    } else {
        View::new(data, rows, inner, inner + 3)
    }
}

fn at(data: &[f32], (rows, inner): (usize, usize), across: bool, row: usize, k: usize) -> f64 {
    f64::from(if across {
        data[k * (rows + 3) + row]
    } else {
        data[row * (inner + 3) + k]
    })
}

/// Values of very different size, as activations have.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let (values, sizes) = (noise(len, seed), noise(len, seed + 100));
    values
        .iter()
        .zip(sizes)
        .map(|(v, s)| v * (4.0 * s).exp2())
        .collect()
}

fn check(case: &Case, write: Write, parallel: bool) {
    let Case {
        rows,
        cols,
        inner,
        left_across,
        right_across,
    } = *case;
    let (a, b) = (
        values((rows + 3) * (inner + 3), 1),
        values((cols + 3) * (inner + 3), 2),
    );
    let (va, vb) = (
        view(&a, rows, inner, left_across),
        view(&b, cols, inner, right_across).t(),
    );
    let old = noise(rows * (cols + 2), 3);
    let mut got = old.clone();
    product(
        &mut ViewMut::new(&mut got, rows, cols, cols + 2),
        write,
        va,
        vb,
        0.5,
        parallel,
    );
    for i in 0..rows {
        for j in 0..cols {
            let term = |k| {
                0.5 * at(&a, (rows, inner), left_across, i, k)
                    * at(&b, (cols, inner), right_across, j, k)
            };
            let kept = if write == Write::Add {
                f64::from(old[i * (cols + 2) + j])
            } else {
                0.0
            };
            let want = kept + (0..inner).map(term).sum::<f64>();
            // Of the sum of sizes: a few roundings of f32, as the partial sums are smaller than that.
            let size = kept.abs() + (0..inner).map(|k| term(k).abs()).sum::<f64>();
            let off = (f64::from(got[i * (cols + 2) + j]) - want).abs();
            assert!(
                off <= 2.0_f64.powi(-21) * size,
                "{rows} {cols} {inner} at {i} {j}: off by {off:e} of {size:e}"
            );
        }
        if i + 1 < rows {
            let gap = i * (cols + 2) + cols..(i + 1) * (cols + 2);
            assert_eq!(
                got[gap.clone()],
                old[gap],
                "the gap after a row is untouched"
            );
        }
    }
}

#[test]
fn products_match_f64_as_closely_as_f32_can() {
    if !serves_machine() {
        return;
    }
    for (rows, cols, inner) in [
        (1, 1, 1),
        (32, 32, 32),
        (33, 31, 33),
        (16, 100, 64),
        (70, 45, 1),
        (65, 17, 1100),
        (300, 290, 70),
    ] {
        for (left_across, right_across) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            let case = Case {
                rows,
                cols,
                inner,
                left_across,
                right_across,
            };
            check(&case, Write::Set, true);
            check(&case, Write::Add, false);
        }
    }
}

#[test]
fn values_that_are_not_finite_stay_so() {
    if !serves_machine() {
        return;
    }
    for bad in [
        f32::NAN,
        f32::INFINITY,
        f32::from_bits(0xffff_ffff),
        f32::from_bits(0x7f80_0001),
    ] {
        let mut a = noise(40 * 40, 1);
        a[5 * 40 + 7] = bad;
        let b = vec![1.0; 40 * 40];
        let mut y = vec![0.0; 40 * 40];
        let (va, vb) = (View::new(&a, 40, 40, 40), View::new(&b, 40, 40, 40));
        product(
            &mut ViewMut::new(&mut y, 40, 40, 40),
            Write::Set,
            va,
            vb,
            1.0,
            false,
        );
        for (i, row) in y.chunks(40).enumerate() {
            assert_eq!(
                row.iter().all(|v| v.is_finite()),
                i != 5,
                "{bad} in row {i}"
            );
            assert_eq!(
                row.iter().any(|v| v.is_finite()),
                i != 5,
                "{bad} in row {i}"
            );
        }
    }
}

#[test]
fn few_large_cuts_cover_everything() {
    for (len, most) in [
        (1, 1024),
        (1024, 1024),
        (1025, 1024),
        (49_152, 2048),
        (2200, 1024),
    ] {
        let parts: Vec<_> = cut(len, most).collect();
        assert_eq!((parts[0].start, parts[parts.len() - 1].end), (0, len));
        assert!(
            parts
                .windows(2)
                .all(|w| w[0].end == w[1].start && w[0].end.is_multiple_of(BLOCK))
        );
        assert!(parts.iter().all(|p| p.len() <= most && !p.is_empty()));
    }
}
