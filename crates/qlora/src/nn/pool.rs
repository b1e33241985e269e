//! A store of used buffers. Activations of one step have the shapes of the step before, and fresh memory
//! costs a page fault per four kilobytes, which is a tenth of a step on a CPU.

use crate::tensor::Matrix;

/// Buffers waiting to be used again. Dropping it frees them.
#[derive(Default)]
pub(crate) struct Pool {
    free: Vec<Vec<f32>>,
}

impl Pool {
    /// A matrix with unspecified values: the caller overwrites all that it reads.
    pub(crate) fn take(&mut self, rows: usize, cols: usize) -> Matrix {
        let len = rows * cols;
        let fitting = |v: &Vec<f32>| v.capacity() >= len && v.capacity() <= 2 * len + 1024;
        let best = (0..self.free.len())
            .filter(|i| fitting(&self.free[*i]))
            .min_by_key(|i| self.free[*i].capacity());
        let mut data = best.map_or_else(Vec::new, |i| self.free.swap_remove(i));
        data.resize(len, 0.0);
        Matrix::new(rows, cols, data)
    }

    /// A matrix of zeros.
    pub(crate) fn zeros(&mut self, rows: usize, cols: usize) -> Matrix {
        let mut matrix = self.take(rows, cols);
        matrix.data_mut().fill(0.0);
        matrix
    }

    /// A copy of `source`.
    pub(crate) fn copy(&mut self, source: &Matrix) -> Matrix {
        let mut matrix = self.take(source.rows(), source.cols());
        matrix.data_mut().copy_from_slice(source.data());
        matrix
    }

    /// Takes a matrix back.
    pub(crate) fn give(&mut self, matrix: Matrix) {
        self.free.push(matrix.into_data());
    }
}
