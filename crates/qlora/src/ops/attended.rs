//! What attention is given: the shape of the heads, keys and values of consecutive positions, the queries of a row.
//!
//! Must not know: how attention is computed, or in what pieces.

/// Shape of the heads. Query head `h` uses key/value head `h / (heads / kv_heads)`.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_field_names,
    reason = "the names that every config of a decoder uses"
)]
pub(crate) struct Heads {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) dim: usize,
    /// A query sees itself and the `window - 1` positions before it.
    pub(crate) window: Option<usize>,
    /// Scores are multiplied by it.
    pub(crate) scale: f32,
    /// Then a score `s` becomes `cap * tanh(s / cap)`.
    pub(crate) softcap: Option<f32>,
}

impl Heads {
    pub(super) fn per_group(&self) -> usize {
        self.heads / self.kv_heads
    }

    pub(super) fn of_group(&self, group: usize) -> std::ops::Range<usize> {
        group * self.per_group()..(group + 1) * self.per_group()
    }

    pub(super) fn query_width(&self) -> usize {
        self.heads * self.dim
    }

    pub(super) fn kv_width(&self) -> usize {
        self.kv_heads * self.dim
    }
}

/// Keys and values of consecutive positions: row `i` starts at `data[i * stride]`; keys begin at column
/// `key`, values at column `value`.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) key: usize,
    pub(crate) value: usize,
    pub(crate) len: usize,
}

/// The queries of one row and what they may look at.
pub(crate) struct Query<'a> {
    /// First token of the row in the query matrix.
    pub(crate) start: usize,
    /// Number of queries.
    pub(crate) len: usize,
    /// Place of the first query among the own keys (0 unless a cache holds earlier ones).
    pub(crate) first: usize,
    pub(crate) prefix: Option<Context<'a>>,
    pub(crate) own: Context<'a>,
}
