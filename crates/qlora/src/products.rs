//! Which unit of the processor multiplies matrices, for records and for benchmarks.
//!
//! Rounding depends on the unit, so a run says which it used; nothing else does. Training and generation
//! choose by themselves.

use std::fmt;

use crate::ops::gemm::{self, Threads, View, ViewMut, Write};
use crate::tensor::Matrix;

/// What computes an f32 product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Vector instructions on f32, the best set that the machine has.
    Vector,
    /// The tile unit (Intel AMX) on three bf16 parts of each value, six products of parts.
    Tile,
}

impl Unit {
    /// The unit of this process: tiles where the machine has them and `TUNESMITH_AMX` is not `0`.
    pub fn here() -> Self {
        if gemm::has_tiles() {
            Self::Tile
        } else {
            Self::Vector
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vector => "f32",
            Self::Tile => "amx-bf16x6",
        })
    }
}

/// `a . b^T` on all threads: `a` is m x k, `b` is n x k. [`Unit::Tile`] is a wish: shapes that it does not
/// serve and machines without it take the other.
///
/// # Panics
/// If the inner dimensions differ.
pub fn times_transposed(unit: Unit, a: &Matrix, b: &Matrix) -> Matrix {
    product(unit, a, b, true)
}

/// `a . b` on all threads: `a` is m x k, `b` is k x n. See [`times_transposed`].
///
/// # Panics
/// If the inner dimensions differ.
pub fn times(unit: Unit, a: &Matrix, b: &Matrix) -> Matrix {
    product(unit, a, b, false)
}

fn product(unit: Unit, a: &Matrix, b: &Matrix, transposed: bool) -> Matrix {
    let a = View::new(a.data(), a.rows(), a.cols(), a.cols());
    let b = View::new(b.data(), b.rows(), b.cols(), b.cols());
    let b = if transposed { b.t() } else { b };
    let (rows, cols) = (a.rows(), b.t().rows());
    let mut y = Matrix::zeros(rows, cols);
    let dst = ViewMut::new(y.data_mut(), rows, cols, cols);
    match unit {
        Unit::Tile => gemm::gemm(dst, Write::Set, a, b, 1.0, Threads::All),
        Unit::Vector => gemm::on_vectors(dst, Write::Set, a, b, 1.0, Threads::All),
    }
    y
}
