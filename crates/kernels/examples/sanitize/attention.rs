//! Attention through every door: packed rows with and without a shared prefix, with a window and with a cap on the
//! scores, forward and backward.

use kernels::attention::{self, AttentionParams, AttentionShape, Card, Door};

use crate::bench::Bench;

/// Four query heads on one key head, so that the long row's tiles of queries, over all heads, are more than the
/// Hopper kernels keep in flight: every stage of their rings is used again.
const HEADS: usize = 4;
const KV_HEADS: usize = 1;
/// Packed rows: one longer than a tile, others that share one.
const ROWS: [usize; 4] = [130, 1, 7, 40];
/// More than a tile of keys.
const PREFIX: usize = 140;

pub(crate) fn f32(bench: &mut Bench) {
    for head_dim in [16, 80] {
        all(bench, attention::Element::F32, Door::Warp, head_dim);
    }
}

pub(crate) fn hd64(bench: &mut Bench) {
    all(bench, attention::Element::Bf16, Door::Warp, 64);
}

pub(crate) fn hd128(bench: &mut Bench) {
    all(bench, attention::Element::Bf16, Door::Warp, 128);
}

pub(crate) fn hd256(bench: &mut Bench) {
    all(bench, attention::Element::Bf16, Door::Warp, 256);
}

pub(crate) fn sm90(bench: &mut Bench) {
    all(bench, attention::Element::Bf16, Door::Warpgroup, 128);
}

fn all(bench: &mut Bench, element: attention::Element, door: Door, head_dim: usize) {
    for prefix in [0, PREFIX] {
        for window in [0, 50] {
            call(bench, element, door, head_dim, prefix, (window, 0.0));
        }
    }
    // The warpgroup kernels have no cap.
    if door == Door::Warp {
        call(bench, element, door, head_dim, PREFIX, (0, 5.0));
    }
}

fn call(
    bench: &mut Bench,
    element: attention::Element,
    door: Door,
    head_dim: usize,
    prefix: usize,
    (window, soft_cap): (i32, f32),
) {
    let tokens: usize = ROWS.iter().sum();
    let shape = AttentionShape {
        tokens: tokens as u32,
        prefix: prefix as u32,
        heads: HEADS as u32,
        kv_heads: KV_HEADS as u32,
        head_dim: head_dim as u32,
        element,
    };
    // Of a small card the prefix is cut into few parts: each is then longer than a ring.
    let card = Card {
        multiprocessors: 2,
        door,
    };
    let plan = attention::plan(shape, card).expect("a shape with kernels");
    let kind = match element {
        attention::Element::Bf16 => kernels::Element::Bf16,
        attention::Element::F32 => kernels::Element::F32,
    };
    let (query, kv) = (HEADS * head_dim, KV_HEADS * head_dim);
    let width = query + 2 * kv;
    let (start, end) = bounds();
    let of_prefix = |bench: &mut Bench, element, count| match prefix {
        0 => 0,
        _ => bench.values(element, count),
    };
    let p = AttentionParams {
        qkv: bench.values(kind, tokens * width),
        prefix_k: of_prefix(bench, kind, prefix * kv),
        prefix_v: of_prefix(bench, kind, prefix * kv),
        out: bench.room(tokens * query * kind.size()),
        lse: bench.room(4 * HEADS * tokens),
        seq_start: bench.holding(&start),
        seq_end: bench.holding(&end),
        d_out: bench.values(kind, tokens * query),
        delta: bench.room(4 * HEADS * tokens),
        d_qkv: bench.room(tokens * width * kind.size()),
        // What later rows sent to these ones, without a prefix before them.
        add_d_k: if prefix == 0 {
            bench.floats(tokens * kv)
        } else {
            0
        },
        add_d_v: if prefix == 0 {
            bench.floats(tokens * kv)
        } else {
            0
        },
        partial: bench.room(4 * plan.partial_floats),
        d_prefix_k: of_prefix(bench, kernels::Element::F32, prefix * kv),
        d_prefix_v: of_prefix(bench, kernels::Element::F32, prefix * kv),
        qkv_stride: width as i64,
        prefix_stride: kv as i64,
        out_stride: query as i64,
        d_out_stride: query as i64,
        d_qkv_stride: width as i64,
        tokens: tokens as i32,
        prefix: prefix as i32,
        heads: HEADS as i32,
        kv_heads: KV_HEADS as i32,
        window,
        splits: plan.splits as i32,
        scale: 0.1,
        soft_cap,
        head_dim: head_dim as i32,
        reserved: 0,
    };
    bench.launch_attention(&plan.forward, &p);
    for launch in &plan.backward {
        bench.launch_attention(launch, &p);
    }
}

/// First token and end of the row that each token belongs to.
fn bounds() -> (Vec<i32>, Vec<i32>) {
    let (mut start, mut end) = (Vec::new(), Vec::new());
    for row in ROWS {
        let from = start.len() as i32;
        start.resize(start.len() + row, from);
        end.resize(end.len() + row, from + row as i32);
    }
    (start, end)
}
