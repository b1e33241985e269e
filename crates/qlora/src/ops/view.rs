//! Strided matrices as products read and write them.
//!
//! Promises: a view lies inside its slice, which is checked when it is made. Must not know: how a product is computed.

/// A read-only strided matrix.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
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

    pub(super) fn rows(&self) -> usize {
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

    /// Both operands of `a . b` lie in rows along the inner dimension.
    pub(super) fn along_inner(a: Self, b: Self) -> bool {
        a.col_stride == 1 && b.row_stride == 1
    }
}

/// A row-major strided matrix to be written.
pub(crate) struct ViewMut<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) stride: usize,
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

    pub(super) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.stride..][..self.cols]
    }
}

/// The last element of a `rows x cols` matrix lies inside `len`, and rows do not overlap.
fn fits(len: usize, rows: usize, cols: usize, stride: usize) -> bool {
    rows == 0 || cols == 0 || (stride >= cols && (rows - 1) * stride + cols <= len)
}

/// What happens to the values already in the destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// They are replaced (and never read).
    Set,
    /// The product is added to them.
    Add,
}
