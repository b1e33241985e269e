//! Matrix products on strided views, through the `gemm` crate (AVX-512 where the machine has it).
//!
//! Promises: views are checked against their slices before the product starts, so the one unsafe call
//! is contained here; the bits do not depend on the number of threads, because the crate cuts the inner
//! dimension by shape and cache size alone and threads only share out whole output tiles.

use gemm::Parallelism;

use super::skinny;
use super::view::{View, ViewMut, Write};

/// Who computes the product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread: for products inside a parallel task.
    One,
    /// All threads of the current rayon pool.
    All,
}

/// `dst = scale * a . b`, or `dst += scale * a . b`.
///
/// Shapes: `dst` is `m x n`, `a` is `m x k`, `b` is `k x n`.
pub(crate) fn gemm(
    mut dst: ViewMut<'_>,
    write: Write,
    a: View<'_>,
    b: View<'_>,
    scale: f32,
    threads: Threads,
) {
    assert_eq!(a.cols, b.rows, "inner dimensions of a product");
    assert_eq!((dst.rows, dst.cols), (a.rows, b.cols), "shape of a product");
    if View::along_inner(a, b) && skinny::serves(a.rows, b.cols, a.cols) {
        skinny::product(&mut dst, write, a, b.t(), scale, threads == Threads::All);
        return;
    }
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
    #[expect(unsafe_code, reason = "the gemm crate takes raw pointers and strides")]
    // SAFETY: `fits` held when each view was made, so every index `i * row_stride + j * col_stride`
    // within its shape lies inside its slice (a transposed view swaps both pairs alike); shapes agree by
    // the assertions above; `dst` is borrowed mutably, so it aliases neither operand and its rows do not
    // overlap.
    unsafe {
        gemm::gemm(
            dst.rows,
            dst.cols,
            a.cols,
            dst.data.as_mut_ptr(),
            1,
            dst.stride as isize,
            write == Write::Add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::simd::tests::noise;

    /// The plain reference, in f64.
    fn reference(a: View<'_>, b: View<'_>, i: usize, j: usize) -> f64 {
        (0..a.cols)
            .map(|k| {
                f64::from(a.data[i * a.row_stride + k * a.col_stride])
                    * f64::from(b.data[k * b.row_stride + j * b.col_stride])
            })
            .sum()
    }

    fn check(m: usize, n: usize, k: usize, transpose_b: bool, write: Write) {
        let (a, pad) = (noise(m * (k + 3), 1), 3);
        let b = noise(n * k, 2);
        let old = noise(m * (n + 2), 3);
        let mut dst = old.clone();
        let va = View::new(&a, m, k, k + pad);
        let vb = if transpose_b {
            View::new(&b, n, k, k).t()
        } else {
            View::new(&b, k, n, n)
        };
        gemm(
            ViewMut::new(&mut dst, m, n, n + 2),
            write,
            va,
            vb,
            0.5,
            Threads::All,
        );
        for i in 0..m {
            for j in 0..n {
                let at = i * (n + 2) + j;
                let kept = if write == Write::Add {
                    f64::from(old[at])
                } else {
                    0.0
                };
                let want = kept + 0.5 * reference(va, vb, i, j);
                let got = f64::from(dst[at]);
                assert!(
                    (got - want).abs() < 2e-5 * (k as f64).sqrt(),
                    "{m} {n} {k} {got} {want}"
                );
            }
            for gap in n..n + 2 {
                if i + 1 < m {
                    assert_eq!(
                        dst[i * (n + 2) + gap],
                        old[i * (n + 2) + gap],
                        "padding is untouched"
                    );
                }
            }
        }
    }

    #[test]
    fn products_of_odd_shapes_match_the_reference() {
        for (m, n, k) in [
            (1, 1, 1),
            (1, 48, 576),
            (3, 17, 5),
            (100, 48, 33),
            (65, 130, 700),
            (9, 7, 2),
            // Few rows and many weights, with and without lanes left over: the skinny product.
            (1, 600, 576),
            (6, 64, 592),
            (77, 131, 584),
            (128, 70, 1553),
        ] {
            for transpose in [false, true] {
                check(m, n, k, transpose, Write::Set);
                check(m, n, k, transpose, Write::Add);
            }
        }
    }

    #[test]
    fn bits_do_not_depend_on_the_number_of_threads() {
        for (m, n, k) in [
            (300, 624, 576),
            (576, 48, 2000),
            (48, 1536, 900),
            (301, 577, 1553),
            (17, 4096, 64),
            (17, 1000, 592),
        ] {
            let (a, b) = (noise(m * k, 4), noise(n * k, 5));
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                let mut dst = vec![0.0; m * n];
                pool.install(|| {
                    gemm(
                        ViewMut::new(&mut dst, m, n, n),
                        Write::Set,
                        View::new(&a, m, k, k),
                        View::new(&b, n, k, k).t(),
                        1.0,
                        Threads::All,
                    );
                });
                dst
            };
            let one = run(1);
            for threads in [2, 3, 4] {
                assert!(one == run(threads), "{m} {n} {k} at {threads} threads");
            }
        }
    }
}
