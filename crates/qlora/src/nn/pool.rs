//! A store of used buffers. Activations of one step have the shapes of the step before, and fresh memory
//! costs a page fault per four kilobytes, which is a tenth of a step on a CPU.

use crate::tensor::Matrix;

/// Buffers waiting to be used again. Dropping it frees them. Batches differ in length, so a request that
/// no buffer fits replaces the nearest one that is too small: the store never holds more than the largest
/// step needed.
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
        let Some(best) = best else {
            self.outgrow(len);
            return Matrix::zeros(rows, cols);
        };
        let mut data = self.free.swap_remove(best);
        data.resize(len, 0.0);
        Matrix::new(rows, cols, data)
    }

    /// Frees the largest buffer that is just too small for `len` values.
    fn outgrow(&mut self, len: usize) {
        let small = |v: &Vec<f32>| v.capacity() < len && v.capacity() >= len / 2;
        let nearest = (0..self.free.len())
            .filter(|i| small(&self.free[*i]))
            .max_by_key(|i| self.free[*i].capacity());
        if let Some(nearest) = nearest {
            self.free.swap_remove(nearest);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growing_batches_replace_their_buffers() {
        let mut pool = Pool::default();
        for rows in [100, 110, 120, 130, 90] {
            let matrix = pool.take(rows, 64);
            assert_eq!((matrix.rows(), matrix.cols()), (rows, 64));
            pool.give(matrix);
        }
        assert_eq!(pool.free.len(), 1);
    }
}
