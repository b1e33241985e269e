//! Launches of the attention kernels (`cuda/attention_*.cu`): their parameter block and, for a
//! shape, every kernel's name, grid, block and dynamic shared memory, in the order they must run.
//!
//! It promises that the same shape on the same kind of card always gives the same plan, so that
//! recomputation and resumption repeat the same bits. It must not know streams, modules or drivers.

mod tile_map;
mod warpgroup;

pub use tile_map::{Matrix, MatrixPlace, TileMap};

/// Widest head the kernels serve.
pub const MAX_HEAD_DIM: u32 = 256;
/// Head sizes with bf16 kernels; the `f32` kernels take any up to [`MAX_HEAD_DIM`].
pub const BF16_HEAD_DIMS: [u32; 3] = [64, 128, 256];

/// `attention::Params` of `cuda/attention.cuh`, passed by value to every kernel.
///
/// Pointers are device addresses, strides are in elements. Rows of bf16 matrices start on 16-byte
/// boundaries; all matrices hold `f32` where an `f32` kernel is launched.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct AttentionParams {
    /// `[tokens, qkv_stride]`: `heads` queries, `kv_heads` keys, `kv_heads` values of `head_dim` each.
    pub qkv: u64,
    /// `[prefix, prefix_stride]`, `kv_heads * head_dim` wide; may point into the prefix's own qkv rows.
    pub prefix_k: u64,
    /// As `prefix_k`.
    pub prefix_v: u64,
    /// `[tokens, out_stride]`, `heads * head_dim` wide; written by the forward, read by the backward.
    pub out: u64,
    /// `f32 [heads, tokens]`: natural logarithm of the sum of exponentials.
    pub lse: u64,
    /// `i32 [tokens]`: first token of the sequence a token belongs to (`attention_bounds` writes it).
    pub seq_start: u64,
    /// `i32 [tokens]`: one past its last token (`attention_bounds` writes it).
    pub seq_end: u64,
    /// `[tokens, d_out_stride]`: gradient of `out`.
    pub d_out: u64,
    /// `f32 [heads, tokens]`: scratch of the backward.
    pub delta: u64,
    /// `[tokens, d_qkv_stride]`: gradient of `qkv`, every element written.
    pub d_qkv: u64,
    /// 0, or `f32 [tokens, kv_heads * head_dim]` added to the gradient of the keys before it is
    /// rounded: how a prefix's own backward takes in what its rows accumulated.
    pub add_d_k: u64,
    /// As `add_d_k`, for the values.
    pub add_d_v: u64,
    /// `f32`, [`Plan::partial_floats`] of scratch.
    pub partial: u64,
    /// `f32 [prefix, kv_heads * head_dim]`: the gradient of the prefix's keys is added to it.
    pub d_prefix_k: u64,
    /// As `d_prefix_k`, for the values.
    pub d_prefix_v: u64,
    /// Elements between rows of `qkv`.
    pub qkv_stride: i64,
    /// Elements between rows of `prefix_k` and of `prefix_v`.
    pub prefix_stride: i64,
    /// Elements between rows of `out`.
    pub out_stride: i64,
    /// Elements between rows of `d_out`.
    pub d_out_stride: i64,
    /// Elements between rows of `d_qkv`.
    pub d_qkv_stride: i64,
    /// Own tokens of all sequences together.
    pub tokens: i32,
    /// Tokens of the shared prefix, 0 for none.
    pub prefix: i32,
    /// Query heads.
    pub heads: i32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: i32,
    /// Keys a query sees back from its position, itself included; 0 for all.
    pub window: i32,
    /// [`Plan::splits`].
    pub splits: i32,
    /// Factor on the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// 0, or the cap in `cap * tanh(score / cap)`.
    pub soft_cap: f32,
    /// Width of a head.
    pub head_dim: i32,
    /// Zero.
    pub reserved: i32,
}

const _: () = assert!(size_of::<AttentionParams>() == 200);

/// Number type of every matrix of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// bf16 matrices on the tensor cores, sums in f32.
    Bf16,
    /// f32 throughout, plain and slow: for tests and tiny models.
    F32,
}

/// Which kernels serve bf16 calls: two doors to the same mathematics, with different sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Products by warps (`mma.sync`): every card from sm_80.
    Warp,
    /// Products by warpgroups on tiles that the copy engine brings: compute capability 9.0 alone. Serves
    /// heads of 128; others take [`Door::Warp`].
    Warpgroup,
}

/// What a plan has to know of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its multiprocessors.
    pub multiprocessors: u32,
    /// The door that bf16 calls take.
    pub door: Door,
}

/// What decides a plan, besides the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Own tokens of all sequences together, at least 1.
    pub tokens: u32,
    /// Tokens of the shared prefix.
    pub prefix: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Number type.
    pub element: Element,
}

/// One kernel launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Symbol in the module.
    pub kernel: &'static str,
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Bytes of dynamic shared memory; above 48 KiB the function needs its attribute raised first.
    pub shared: u32,
    /// Tensor maps that follow the parameter block, in this order.
    pub maps: &'static [TileMap],
}

/// Every launch of one attention call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Writes `out` and `lse`.
    pub forward: Launch,
    /// Write `d_qkv` and add to `d_prefix_k` and `d_prefix_v`; run in this order.
    pub backward: Vec<Launch>,
    /// Parts in which the prefix's gradient is summed: [`AttentionParams::splits`].
    pub splits: u32,
    /// Floats of [`AttentionParams::partial`].
    pub partial_floats: usize,
}

/// Why a shape is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// The head size has no kernel for this number type.
    HeadDim(u32),
    /// `kv_heads` does not divide `heads`, or one of them is zero.
    Heads {
        /// Query heads asked for.
        heads: u32,
        /// Key heads asked for.
        kv_heads: u32,
    },
    /// There are no tokens.
    Empty,
}

/// Launch of `attention_bounds(cu_seqlens, sequences, tokens, seq_start, seq_end)`, which fills
/// [`AttentionParams::seq_start`] and `seq_end` from the `sequences + 1` offsets; once a batch.
#[must_use]
pub fn bounds(tokens: u32) -> Launch {
    Launch {
        kernel: "attention_bounds",
        grid: [tokens.div_ceil(256), 1, 1],
        block: 256,
        shared: 0,
        maps: &[],
    }
}

/// Launches for a shape on a card.
///
/// # Errors
/// [`Unsupported`] where no kernel serves the shape.
pub fn plan(shape: AttentionShape, card: Card) -> Result<Plan, Unsupported> {
    let AttentionShape {
        tokens,
        heads,
        kv_heads,
        head_dim,
        ..
    } = shape;
    if tokens == 0 {
        return Err(Unsupported::Empty);
    }
    if heads == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(Unsupported::Heads { heads, kv_heads });
    }
    match shape.element {
        Element::F32 if (1..=MAX_HEAD_DIM).contains(&head_dim) => Ok(f32_plan(shape)),
        Element::Bf16 if card.door == Door::Warpgroup && head_dim == warpgroup::HEAD_DIM => {
            Ok(warpgroup::plan(shape, card.multiprocessors))
        }
        Element::Bf16 => warp_kernels(head_dim)
            .map(|k| tiled_plan(shape, &k, card.multiprocessors))
            .ok_or(Unsupported::HeadDim(head_dim)),
        Element::F32 => Err(Unsupported::HeadDim(head_dim)),
    }
}

fn f32_plan(shape: AttentionShape) -> Plan {
    let rows = |kernel, rows: u32, heads| Launch {
        kernel,
        grid: [rows.div_ceil(4), heads, 1],
        block: 128,
        shared: 0,
        maps: &[],
    };
    Plan {
        forward: rows("attention_forward_f32", shape.tokens, shape.heads),
        backward: vec![
            rows("attention_dq_f32", shape.tokens, shape.heads),
            rows(
                "attention_dkv_f32",
                shape.prefix + shape.tokens,
                shape.kv_heads,
            ),
        ],
        splits: 1,
        partial_floats: 0,
    }
}

/// Names and shared memory of the warp kernels of one head size.
struct Tiled {
    forward: (&'static str, u32),
    dq: (&'static str, u32),
    dkv: (&'static str, u32),
    /// Blocks that share the columns of one tile of keys.
    dkv_halves: u32,
}

/// Rows of a tile of queries, and of a tile of keys in the backward.
const TILE: u32 = 64;

/// Kernels for every card from sm_80. Shared memory: the tile that stays, two stages of the two
/// that move, and for `dkv` two stages of three statistics of each moving row.
fn warp_kernels(head_dim: u32) -> Option<Tiled> {
    Some(match head_dim {
        64 => Tiled {
            forward: ("attention_forward_bf16_hd64", 40_960),
            dq: ("attention_dq_bf16_hd64", 49_152),
            dkv: ("attention_dkv_bf16_hd64", 49_152 + 1_536),
            dkv_halves: 1,
        },
        128 => Tiled {
            forward: ("attention_forward_bf16_hd128", 81_920),
            dq: ("attention_dq_bf16_hd128", 65_536),
            dkv: ("attention_dkv_bf16_hd128", 65_536 + 768),
            dkv_halves: 1,
        },
        256 => Tiled {
            forward: ("attention_forward_bf16_hd256", 98_304),
            dq: ("attention_dq_bf16_hd256", 98_304),
            dkv: ("attention_dkv_bf16_hd256", 98_304 + 384),
            dkv_halves: 2,
        },
        _ => return None,
    })
}

fn tiled_plan(shape: AttentionShape, kernels: &Tiled, multiprocessors: u32) -> Plan {
    let AttentionShape {
        tokens,
        prefix,
        heads,
        kv_heads,
        head_dim,
        ..
    } = shape;
    let splits = prefix_splits(shape, TILE, multiprocessors);
    let width = prefix as usize * (kv_heads * head_dim) as usize;
    let block = |(kernel, shared), grid| Launch {
        kernel,
        grid,
        block: 128,
        shared,
        maps: &[],
    };
    let mut backward = vec![
        delta(shape),
        block(kernels.dq, [tokens.div_ceil(TILE), heads, 1]),
        block(
            kernels.dkv,
            [
                prefix.div_ceil(TILE) * splits + tokens.div_ceil(TILE),
                kv_heads,
                kernels.dkv_halves,
            ],
        ),
    ];
    backward.extend(prefix_sum(width));
    Plan {
        forward: block(kernels.forward, [tokens.div_ceil(TILE), heads, 1]),
        backward,
        splits,
        partial_floats: 2 * splits as usize * width,
    }
}

/// The launch that sums `out * d_out` over each head, first in a backward.
fn delta(shape: AttentionShape) -> Launch {
    Launch {
        kernel: "attention_delta_bf16",
        grid: [shape.tokens.div_ceil(8), shape.heads, 1],
        block: 256,
        shared: 0,
        maps: &[],
    }
}

/// The launch that adds the partial sums up, where there is a prefix; `width` = floats of its keys.
fn prefix_sum(width: usize) -> Option<Launch> {
    let blocks = u32::try_from(width.div_ceil(1024)).expect("a prefix has fewer than 2^42 numbers");
    (width > 0).then_some(Launch {
        kernel: "attention_prefix_sum",
        grid: [blocks, 1, 1],
        block: 256,
        shared: 0,
        maps: &[],
    })
}

/// Parts in which the queries of the prefix's keys are summed. Every prefix key meets all queries
/// of its group, so whole blocks would be few and long: about two rounds of blocks even that out;
/// more would only move more partial sums through memory.
fn prefix_splits(shape: AttentionShape, tile: u32, multiprocessors: u32) -> u32 {
    if shape.prefix == 0 {
        return 1;
    }
    let blocks = shape.prefix.div_ceil(tile) * shape.kv_heads;
    let query_tiles = shape.tokens.div_ceil(64) * (shape.heads / shape.kv_heads);
    (2 * multiprocessors)
        .div_ceil(blocks)
        .clamp(1, query_tiles.min(8))
}

#[cfg(test)]
mod tests;
