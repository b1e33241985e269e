//! Launches of the generation kernels (`cuda/decode*.cu`): which kernel serves a shape, its grid and how a
//! product is cut. Numbers that both sides know stand here and in the `.cu` files alone.
//!
//! It promises that the same shape on the same kind of card is always cut alike. It must not know models.

use crate::module::{Element, Grid, Kernel};

/// Most rows of one product with four-bit weights.
pub const MOST_ROWS: usize = 64;
/// Inputs and each stacked weight's outputs are multiples of this.
pub const STEP: usize = 32;
/// Weights that share a scale.
pub const BLOCK: usize = 64;
/// Scales that share a second-level scale.
pub const NESTED: usize = 256;
/// Rows that one thread finishes, and that cost as much as one in a product.
pub const GROUP: usize = 8;

const TILE: usize = 256;
const STAGE: usize = 128;
/// Stages in shared memory at a time.
const STAGES: usize = 3;
/// Bytes of shared memory that these kernels hold besides.
const STATIC: usize = 256;
const CHUNK: usize = 128;
const QUERIES: usize = 4;
/// More sums than this cost more than they save.
const MOST_SPLITS: usize = 16;

/// Which kernel multiplies `rows` rows, and its dynamic shared memory.
fn product(rows: usize) -> (Kernel, usize) {
    let (kernel, groups) = match rows.div_ceil(GROUP) {
        1 => (Kernel::Nf4Rows1, 1),
        2 => (Kernel::Nf4Rows2, 2),
        3 | 4 => (Kernel::Nf4Rows4, 4),
        _ => (Kernel::Nf4Rows8, 8),
    };
    let (table, maps) = (256 * 16 * 8, 3 * 256 * 4);
    (
        kernel,
        table + maps + STAGES * (8 * 4 * 32 + groups * 128) * 16,
    )
}

/// Whether a card whose blocks may take `shared` bytes of shared memory multiplies so many rows.
pub fn serves(rows: usize, shared: usize) -> bool {
    (1..=MOST_ROWS).contains(&rows) && product(rows).1 + STATIC <= shared
}

/// Whether A's product is done by blocks of the same launch: there is room beside small batches.
pub fn beside(rows: usize) -> bool {
    rows <= 2 * GROUP
}

/// Blocks of A's product.
pub fn lora_blocks(rows: usize, a_rows: usize) -> usize {
    a_rows * rows.div_ceil(GROUP)
}

/// In how many parts a product's inner length is cut: the card is filled once, or twice where two blocks share
/// a multiprocessor.
pub fn splits(rows: usize, outputs: usize, inputs: usize, multiprocessors: usize) -> usize {
    let blocks = if beside(rows) {
        2 * multiprocessors
    } else {
        multiprocessors
    };
    (blocks / outputs.div_ceil(TILE)).clamp(1, inputs.div_ceil(STAGE).min(MOST_SPLITS))
}

/// The launch of a product of `rows` rows with four-bit weights, after `lora` blocks of A's.
pub fn rows(rows: usize, outputs: usize, splits: usize, lora: usize) -> (Kernel, Grid) {
    assert!(
        (1..=MOST_ROWS).contains(&rows),
        "a product of {rows} rows with four-bit weights"
    );
    let (kernel, shared) = product(rows);
    let grid = Grid {
        shared,
        ..Grid::row(lora + outputs.div_ceil(TILE) * splits, 256)
    };
    (kernel, grid)
}

/// The attention kernel for a head size, where there is one.
pub fn attention(head_dim: usize, element: Element) -> Option<Kernel> {
    match (head_dim, element) {
        (16, Element::F32) => Some(Kernel::DecodeAttention16),
        (32, Element::F32) => Some(Kernel::DecodeAttention32),
        (64, _) => Some(Kernel::DecodeAttention64),
        (128, _) => Some(Kernel::DecodeAttention128),
        (256, Element::Bf16) => Some(Kernel::DecodeAttention256),
        _ => None,
    }
}

/// Chunks of keys that `keys` keys make.
pub fn chunks(keys: usize) -> usize {
    keys.div_ceil(CHUNK)
}

/// Blocks that share the query heads of one key head.
pub fn query_groups(heads: usize, kv_heads: usize) -> usize {
    (heads / kv_heads).div_ceil(QUERIES)
}

/// The attention launch: a block a chunk, row, key head and group of query heads.
pub fn attention_grid(chunks: usize, rows: usize, heads: usize, kv_heads: usize) -> Grid {
    Grid {
        blocks: (chunks, rows * kv_heads * query_groups(heads, kv_heads)),
        threads: (128, 1),
        shared: 0,
    }
}

/// The launch that merges the chunks: a block a head and row, a thread a column.
pub fn merge_grid(rows: usize, heads: usize, head_dim: usize) -> Grid {
    Grid {
        blocks: (heads, rows),
        threads: (head_dim, 1),
        shared: 0,
    }
}

/// A launch over `columns` in fours and rows in eights.
pub fn finish_grid(columns: usize, rows: usize) -> Grid {
    Grid::cover(columns / 4, 64, rows.div_ceil(GROUP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistral_s_products_fill_an_h100() {
        let cut = |rows, outputs, inputs| splits(rows, outputs, inputs, 132);
        let sites = [(6144, 4096), (4096, 4096), (28_672, 4096), (4096, 14_336)];
        assert_eq!(sites.map(|(o, i)| cut(1, o, i)), [11, 16, 2, 16]);
        assert_eq!(sites.map(|(o, i)| cut(50, o, i)), [5, 8, 1, 8]);
        let (kernel, grid) = rows(50, 6144, 5, 0);
        assert_eq!((kernel, grid.blocks), (Kernel::Nf4Rows8, (120, 1)));
    }

    #[test]
    fn shared_memory_is_what_the_kernels_take() {
        // The same numbers are asserted in decode_rows.cu.
        let bytes = [1, 16, 30, 64].map(|rows| product(rows).1);
        assert_eq!(bytes, [91_136, 97_280, 109_568, 134_144]);
        let ada = 99 << 10;
        assert!(serves(16, ada) && !serves(17, ada) && serves(64, 163 << 10));
        assert!(!serves(0, usize::MAX) && !serves(65, usize::MAX));
    }

    #[test]
    fn short_inner_lengths_are_cut_no_finer_than_stages() {
        assert_eq!(splits(1, 256, 100, 132), 1);
        assert_eq!(splits(1, 256, 300, 132), 3);
    }
}
