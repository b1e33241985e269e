//! Matrix products on strided views: on the tile unit where the machine has one and the shape is worth
//! it, else through the `gemm` crate (AVX-512 where the machine has it).
//!
//! Promises: views are checked against their slices before the product starts, so the one unsafe call
//! is contained here; the bits do not depend on the number of threads, because the crate cuts the inner
//! dimension by shape and cache size alone and threads only share out whole output tiles.

use gemm::Parallelism;

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::skinny;

/// A read-only strided matrix.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// `rows x cols`, row after row, `stride` values apart.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(
            fits(data.len(), rows, cols, stride),
            "view outside its slice"
        );
        Self {
            data,
            rows,
            cols,
            row_stride: stride,
            col_stride: 1,
        }
    }

    /// The transposed view of the same values.
    pub(crate) fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// A row of a matrix that is not transposed.
    pub(super) fn row(&self, row: usize) -> &'a [f32] {
        debug_assert_eq!(
            self.col_stride, 1,
            "the rows of a transposed view lie scattered"
        );
        &self.data[row * self.row_stride..][..self.cols]
    }

    /// Rows are contiguous runs (of a transposed view, the columns are).
    pub(super) fn lies_along_rows(&self) -> bool {
        self.col_stride == 1
    }

    /// Both operands of `a . b` lie in rows along the inner dimension.
    fn along_inner(a: Self, b: Self) -> bool {
        a.col_stride == 1 && b.row_stride == 1
    }
}

/// A row-major strided matrix to be written.
pub(crate) struct ViewMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a> ViewMut<'a> {
    /// `rows x cols`, row after row, `stride` values apart.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(
            fits(data.len(), rows, cols, stride),
            "view outside its slice"
        );
        Self {
            data,
            rows,
            cols,
            stride,
        }
    }

    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// The slice in which the rows lie.
    pub(super) fn values(&mut self) -> &mut [f32] {
        self.data
    }

    pub(super) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.stride..][..self.cols]
    }
}

/// The last element of a `rows x cols` matrix lies inside `len`, and rows do not overlap.
fn fits(len: usize, rows: usize, cols: usize, stride: usize) -> bool {
    rows == 0 || cols == 0 || (stride >= cols && (rows - 1) * stride + cols <= len)
}

/// Who computes the product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread: for products inside a parallel task.
    One,
    /// All threads of the current rayon pool.
    All,
}

/// What happens to the values already in the destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// They are replaced (and never read).
    Set,
    /// The product is added to them.
    Add,
}

fn check(dst: &ViewMut<'_>, a: View<'_>, b: View<'_>) {
    assert_eq!(a.cols, b.rows, "inner dimensions of a product");
    assert_eq!((dst.rows, dst.cols), (a.rows, b.cols), "shape of a product");
}

/// Whether large products of this process run on the tile unit.
pub(crate) fn has_tiles() -> bool {
    #[cfg(target_arch = "x86_64")]
    return amx::serves_machine();
    #[cfg(not(target_arch = "x86_64"))]
    false
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
    check(&dst, a, b);
    #[cfg(target_arch = "x86_64")]
    if amx::serves(a.rows, b.cols, a.cols) && !few_rows(a, b) {
        amx::product(&mut dst, write, a, b, scale, threads == Threads::All);
        return;
    }
    on_vectors(dst, write, a, b, scale, threads);
}

fn few_rows(a: View<'_>, b: View<'_>) -> bool {
    View::along_inner(a, b) && skinny::serves(a.rows, b.cols, a.cols)
}

/// [`gemm`] without the tile unit.
pub(crate) fn on_vectors(
    mut dst: ViewMut<'_>,
    write: Write,
    a: View<'_>,
    b: View<'_>,
    scale: f32,
    threads: Threads,
) {
    check(&dst, a, b);
    if few_rows(a, b) {
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
