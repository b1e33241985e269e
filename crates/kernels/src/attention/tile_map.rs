//! Matrices that kernels read through the copy engine: which they are, and where a call keeps them.
//!
//! It promises places that are valid to describe to the driver even where a call has no such matrix. It must not
//! know how the driver encodes them.

use super::AttentionParams;

/// A matrix of an attention call, read by whole tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    /// [`AttentionParams::qkv`].
    Qkv,
    /// [`AttentionParams::d_out`].
    DOut,
    /// [`AttentionParams::prefix_k`].
    PrefixKeys,
    /// [`AttentionParams::prefix_v`].
    PrefixValues,
}

/// One tensor map: a matrix in boxes of 64 columns and `rows` rows, with 128-byte swizzle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileMap {
    /// What is read.
    pub matrix: Matrix,
    /// Rows of a box.
    pub rows: u32,
}

/// A bf16 matrix on the card; tiles past its end read as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixPlace {
    /// Device address of its first value.
    pub address: u64,
    /// Values of a row.
    pub columns: u64,
    /// Rows.
    pub rows: u64,
    /// Values between the starts of rows.
    pub stride: u64,
}

impl AttentionParams {
    /// Where this call keeps a matrix. A prefix that is not there gives the place of `qkv`: kernels do not read
    /// it then, but the map has to be valid.
    #[must_use]
    pub fn place(&self, matrix: Matrix) -> MatrixPlace {
        let positive = |value: i64| u64::try_from(value).expect("sizes are not negative");
        let tall = |value: i32| positive(value.into());
        let head = tall(self.head_dim);
        let prefix = |address| MatrixPlace {
            address,
            columns: tall(self.kv_heads) * head,
            rows: tall(self.prefix),
            stride: positive(self.prefix_stride),
        };
        match matrix {
            Matrix::PrefixKeys if self.prefix > 0 => prefix(self.prefix_k),
            Matrix::PrefixValues if self.prefix > 0 => prefix(self.prefix_v),
            Matrix::Qkv | Matrix::PrefixKeys | Matrix::PrefixValues => MatrixPlace {
                address: self.qkv,
                columns: tall(self.heads + 2 * self.kv_heads) * head,
                rows: tall(self.tokens),
                stride: positive(self.qkv_stride),
            },
            Matrix::DOut => MatrixPlace {
                address: self.d_out,
                columns: tall(self.heads) * head,
                rows: tall(self.tokens),
                stride: positive(self.d_out_stride),
            },
        }
    }
}
