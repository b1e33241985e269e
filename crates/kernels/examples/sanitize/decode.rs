//! The kernels of generation: few rows, heads that share keys, caches of different lengths.

use kernels::decode;
use kernels::params::{
    ArgMax, CacheFill, DecodeAttention, DecodeMerge, FinishAdd, FinishGate, FinishTurn, LoraRows,
    Nf4Part, Nf4Rows, Sums,
};
use kernels::{Element, Grid, Kernel};

use crate::bench::{BOTH, Bench};

/// Rank of every pair, and A's rows where three are stacked.
const R: usize = 8;
const A_ROWS: usize = 3 * R;

fn lora_rows(bench: &mut Bench, rows: usize, inputs: usize, x: u64, x_stride: usize) -> LoraRows {
    LoraRows {
        a: bench.floats(A_ROWS * inputs),
        x,
        u: bench.room(4 * rows * A_ROWS),
        inputs: inputs as u32,
        x_stride: x_stride as u32,
        a_rows: A_ROWS as u32,
        rows: rows as u32,
        scale: 2.0,
        unused: 0,
    }
}

fn part(bench: &mut Bench, outputs: usize, inputs: usize, end: usize, nested: bool) -> Nf4Part {
    let (count, scales) = (outputs * inputs, outputs * inputs / decode::BLOCK);
    let second = scales.div_ceil(decode::NESTED);
    Nf4Part {
        packed: bench.bytes(count / 2),
        codes: if nested { bench.bytes(scales) } else { 0 },
        absmax: bench.floats(if nested { second } else { scales }),
        map: if nested { bench.floats(256) } else { 0 },
        offset: 0.5,
        end: end as u32,
    }
}

pub(crate) fn rows(bench: &mut Bench) {
    // A tile and a part of one; a stage and a part of one.
    let (outputs, inputs) = (416, 160);
    let x_stride = inputs + 64;
    for rows in [1, 11, 30, 61] {
        let x = bench.values(Element::Bf16, rows * x_stride);
        let lora = lora_rows(bench, rows, inputs, x, x_stride);
        let blocks = decode::lora_blocks(rows, A_ROWS);
        let beside = if decode::beside(rows) { blocks } else { 0 };
        let splits = decode::splits(rows, outputs, inputs, 132);
        let p = Nf4Rows {
            parts: [
                part(bench, 288, inputs, 288, true),
                part(bench, 64, inputs, 352, false),
                part(bench, 64, inputs, 416, true),
            ],
            lora,
            x,
            sums: bench.room(4 * splits * rows * outputs),
            inputs: inputs as u32,
            outputs: outputs as u32,
            x_stride: x_stride as u32,
            rows: rows as u32,
            splits: splits as u32,
            lora_blocks: beside as u32,
        };
        let (kernel, grid) = decode::rows(rows, outputs, splits, beside);
        for element in BOTH {
            bench.launch(Kernel::LoraRows, element, Grid::row(blocks, 256), &lora);
            bench.launch(kernel, element, grid, &p);
        }
    }
}

/// What a product with stacked maps that end at `ends` left.
fn sums(bench: &mut Bench, rows: usize, ends: [usize; 3]) -> Sums {
    let (splits, outputs) = (3, ends[2]);
    Sums {
        parts: bench.floats(splits * rows * outputs),
        u: bench.floats(rows * A_ROWS),
        // The second map has no pair.
        b: [
            bench.floats(ends[0] * R),
            0,
            bench.floats((ends[2] - ends[1]) * R),
        ],
        splits: splits as u32,
        rows: rows as u32,
        outputs: outputs as u32,
        u_stride: A_ROWS as u32,
        ends: ends.map(|e| e as u32),
        columns: [0, R as u32, 2 * R as u32],
        r: R as u32,
        unused: 0,
    }
}

pub(crate) fn finish(bench: &mut Bench) {
    // One row has a path of its own; eleven are more than a thread takes.
    for (element, rows) in BOTH.iter().flat_map(|e| [(*e, 1), (*e, 11)]) {
        finish_turn(bench, element, rows);
        let width = 136;
        let stride = width + 8;
        let p = FinishGate {
            sums: sums(bench, rows, [width, 2 * width, 2 * width]),
            out: bench.room(rows * stride * element.size()),
            stride: stride as u32,
            width: width as u32,
        };
        let grid = decode::finish_grid(width, rows);
        bench.launch(Kernel::FinishGate, element, grid, &p);
        let p = FinishAdd {
            sums: sums(bench, rows, [width; 3]),
            add: bench.values(element, rows * stride),
            out: bench.room(rows * stride * element.size()),
            add_stride: stride as u32,
            stride: stride as u32,
        };
        bench.launch(Kernel::FinishAdd, element, grid, &p);
        cache_fill(bench, element);
        arg_max(bench, element, rows);
    }
}

/// Numbers of rows, and where each lies.
fn counted(bench: &mut Bench, rows: usize, of: impl Fn(usize) -> u32) -> u64 {
    let numbers: Vec<u32> = (0..rows).map(of).collect();
    bench.holding(&numbers)
}

fn finish_turn(bench: &mut Bench, element: Element, rows: usize) {
    let (heads, kv_heads, head_dim, prefix, capacity) = (4, 2, 64, 3, 12);
    let (query, kv) = (heads * head_dim, kv_heads * head_dim);
    let p = FinishTurn {
        sums: sums(bench, rows, [query, query + kv, query + 2 * kv]),
        bias: if rows == 1 {
            0
        } else {
            bench.floats(query + 2 * kv)
        },
        table: bench.floats((prefix + capacity) * head_dim),
        lens: counted(bench, rows, |row| row as u32),
        slots: counted(bench, rows, |row| (rows - 1 - row) as u32),
        q: bench.room(rows * query * element.size()),
        cache: bench.values(element, rows * capacity * 2 * kv),
        q_stride: query as u32,
        prefix: prefix as u32,
        heads: heads as u32,
        kv_heads: kv_heads as u32,
        head_dim: head_dim as u32,
        capacity: capacity as u32,
    };
    // Two fours of a head a thread.
    let grid = decode::finish_grid((heads + 2 * kv_heads) * head_dim / 2, rows);
    bench.launch(Kernel::FinishTurn, element, grid, &p);
}

fn cache_fill(bench: &mut Bench, element: Element) {
    // More than the threads of a block take at a time.
    let width = 1096;
    let stride = width + 8;
    let p = CacheFill {
        rows: bench.values(element, 3 * stride),
        places: bench.holding(&[4u32, 0, 2]),
        cache: bench.room(5 * width * element.size()),
        width: width as u32,
        stride: stride as u32,
    };
    bench.launch(Kernel::CacheFill, element, Grid::row(3, 128), &p);
}

fn arg_max(bench: &mut Bench, element: Element, rows: usize) {
    let (vocab, capacity) = (2100, 12);
    let p = ArgMax {
        logits: bench.floats(rows * vocab),
        ids: bench.room(4 * rows),
        lens: counted(bench, rows, |row| row as u32),
        slots: counted(bench, rows, |row| (rows - 1 - row) as u32),
        history: bench.room(4 * rows * capacity),
        vocab: vocab as u32,
        stride: vocab as u32,
        capacity: capacity as u32,
        unused: 0,
    };
    bench.launch(Kernel::ArgMax, element, Grid::row(rows, 512), &p);
}

pub(crate) fn attention(bench: &mut Bench) {
    for element in BOTH {
        for head_dim in [16, 32, 64, 128, 256] {
            let Some(kernel) = decode::attention(head_dim, element) else {
                continue;
            };
            for (prefix, window) in [(0, 0), (150, 0), (150, 20)] {
                attend(bench, kernel, element, head_dim, prefix, window);
            }
        }
    }
}

fn attend(
    bench: &mut Bench,
    kernel: Kernel,
    element: Element,
    head_dim: usize,
    prefix: usize,
    window: u32,
) {
    // Six query heads a key head: a whole group of four and a part of one.
    let (rows, heads, kv_heads, capacity) = (3, 12, 2, 140);
    let kv = kv_heads * head_dim;
    let behind = decode::chunks(prefix);
    let splits = behind + decode::chunks(capacity);
    let lens = bench.holding(&[0u32, 5, 130]);
    let parts = bench.room(4 * rows * heads * splits * (head_dim + 2));
    let keys = |bench: &mut Bench| match prefix {
        0 => 0,
        _ => bench.values(element, prefix * kv),
    };
    let p = DecodeAttention {
        q: bench.values(element, rows * heads * head_dim),
        prefix_keys: keys(bench),
        prefix_values: keys(bench),
        cache: bench.values(element, rows * capacity * 2 * kv),
        lens,
        slots: bench.holding(&[2u32, 0, 1]),
        parts,
        q_stride: (heads * head_dim) as u32,
        prefix_stride: kv as u32,
        prefix: prefix as u32,
        heads: heads as u32,
        kv_heads: kv_heads as u32,
        groups: decode::query_groups(heads, kv_heads) as u32,
        capacity: capacity as u32,
        window,
        prefix_splits: behind as u32,
        splits: splits as u32,
        scale: 0.1,
        unused: 0,
    };
    let grid = decode::attention_grid(splits, rows, heads, kv_heads);
    bench.launch(kernel, element, grid, &p);
    let p = DecodeMerge {
        parts,
        lens,
        out: bench.room(rows * heads * head_dim * element.size()),
        out_stride: (heads * head_dim) as u32,
        heads: heads as u32,
        head_dim: head_dim as u32,
        prefix_splits: behind as u32,
        splits: splits as u32,
        unused: 0,
    };
    let grid = decode::merge_grid(rows, heads, head_dim);
    bench.launch(Kernel::DecodeMerge, element, grid, &p);
}
