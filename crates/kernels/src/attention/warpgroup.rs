//! The plan of the Hopper kernels (`cuda/attention_*_sm90.cu`): tiles of 128 rows, one warpgroup that copies
//! and two that compute.
//!
//! It promises what their sources ask of a launch; it must not know which cards take it.

use super::{AttentionShape, Launch, Matrix, Plan, TileMap, delta, prefix_splits, prefix_sum};

/// The head size that these kernels serve.
pub(super) const HEAD_DIM: u32 = 128;
/// Rows of a tile of queries, and of a tile of keys in the backward.
const TILE: u32 = 128;
/// A copying warpgroup and two computing ones.
const BLOCK: u32 = 384;

const fn map(matrix: Matrix, rows: u32) -> TileMap {
    TileMap { matrix, rows }
}

const FORWARD: [TileMap; 3] = [
    map(Matrix::Qkv, 128),
    map(Matrix::PrefixKeys, 128),
    map(Matrix::PrefixValues, 128),
];
const D_QUERIES: [TileMap; 5] = [
    map(Matrix::Qkv, 128),
    map(Matrix::DOut, 128),
    map(Matrix::Qkv, 64),
    map(Matrix::PrefixKeys, 64),
    map(Matrix::PrefixValues, 64),
];
const D_KEYS: [TileMap; 5] = [
    map(Matrix::Qkv, 64),
    map(Matrix::DOut, 64),
    map(Matrix::Qkv, 128),
    map(Matrix::PrefixKeys, 128),
    map(Matrix::PrefixValues, 128),
];

pub(super) fn plan(shape: AttentionShape, multiprocessors: u32) -> Plan {
    let (heads, kv_heads) = (shape.heads, shape.kv_heads);
    let tiles = shape.tokens.div_ceil(TILE);
    let splits = prefix_splits(shape, TILE, multiprocessors);
    let width = shape.prefix as usize * (kv_heads * HEAD_DIM) as usize;
    // Shared memory: the tiles that stay and those in flight, barriers, statistics, room to align.
    let launch = |kernel, blocks, shared, maps: &'static [TileMap]| Launch {
        kernel,
        grid: [blocks, 1, 1],
        block: BLOCK,
        shared,
        maps,
    };
    let key_tiles = shape.prefix.div_ceil(TILE) * splits + tiles;
    let mut backward = vec![
        delta(shape),
        launch(
            "attention_dq_sm90_hd128",
            heads * tiles,
            197_888,
            &D_QUERIES,
        ),
        launch(
            "attention_dkv_sm90_hd128",
            kv_heads * key_tiles,
            200_960,
            &D_KEYS,
        ),
    ];
    backward.extend(prefix_sum(width));
    Plan {
        forward: launch(
            "attention_forward_sm90_hd128",
            heads * tiles,
            164_992,
            &FORWARD,
        ),
        backward,
        splits,
        partial_floats: 2 * splits as usize * width,
    }
}
