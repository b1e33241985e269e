//! The kernels of a training step, attention apart: rows of odd number, widths that fill no whole block.

use kernels::params::{
    AdamwStep, AddRows, CrossEntropy, Dropout, Embed, GradientNorm, LoraDown, LoraUp, Mask,
    Nf4Decode, Nf4Encode, Noise, NormBackward, NormBackwardMasked, NormForward, NormForwardMasked,
    Rope, Swiglu, SwigluMasked,
};
use kernels::{Element, Grid, Kernel};

use crate::bench::{BOTH, Bench};

/// Rows of every matrix here.
const ROWS: usize = 5;
/// Values between the end of a row and the next.
const GAP: usize = 8;

pub(crate) fn nf4(bench: &mut Bench) {
    // 288 scales: more than one of the second level.
    let (outputs, inputs) = (144, 128);
    let (count, scales) = (outputs * inputs, outputs * inputs / 64);
    for element in BOTH {
        for (nested, rounding) in [(false, 0), (true, 1), (true, 2)] {
            let stride = inputs + GAP;
            let p = Nf4Decode {
                packed: bench.bytes(count / 2),
                codes: if nested { bench.bytes(scales) } else { 0 },
                absmax: bench.floats(if nested { scales.div_ceil(256) } else { scales }),
                map: if nested { bench.floats(256) } else { 0 },
                out: bench.room(outputs * stride * element.size()),
                vectors: (count / 8) as u32,
                row_vectors: (inputs / 8) as u32,
                stride: stride as u32,
                block_shift: 6,
                nested_shift: 8,
                rounding,
                offset: 0.5,
                unused: 0,
            };
            let grid = Grid::cover(count / 8, 1024, 1).threads(256);
            bench.launch(Kernel::Nf4Decode, element, grid, &p);
        }
        // The last block of threads is not full.
        let count = 100 * 64;
        let p = Nf4Encode {
            values: bench.values(element, count),
            packed: bench.room(count / 2),
            absmax: bench.room(4 * count / 64),
            vectors: (count / 8) as u32,
            bounds: std::array::from_fn(|i| (i as f32 - 7.0) / 8.0),
        };
        let grid = Grid::cover(count / 8, 256, 1);
        bench.launch(Kernel::Nf4Encode, element, grid, &p);
        let p = Noise {
            out: bench.room(count * element.size()),
            count: count as u64,
            seed: 7,
            deviation: 0.02,
            unused: 0,
        };
        bench.launch(Kernel::Noise, element, grid, &p);
    }
}

/// The masks of `ROWS` rows; `drawn` already, or about to be.
fn mask(bench: &mut Bench, width: usize, drawn: bool) -> Mask {
    let bytes = ROWS * width / 8;
    Mask {
        bits: if drawn {
            bench.bytes(bytes)
        } else {
            bench.room(bytes)
        },
        keys: bench.bytes(8 * ROWS),
        place: 3,
        threshold: 6554,
        keep: 1.1,
    }
}

pub(crate) fn norm(bench: &mut Bench) {
    // One vector a thread, and two.
    for (element, width) in BOTH.iter().flat_map(|e| [(*e, 136), (*e, 4104)]) {
        let stride = width + GAP;
        // Rows of a larger matrix, in no order.
        let index = bench.holding(&[8u32, 0, 3, 5, 1]);
        let x = bench.values(element, 9 * stride);
        let forward = NormForward {
            x,
            weight: bench.floats(width),
            y: bench.room(ROWS * stride * element.size()),
            inv: bench.room(4 * ROWS),
            index,
            width: width as u32,
            x_stride: stride as u32,
            y_stride: stride as u32,
            eps: 1e-5,
        };
        let grid = Grid::row(ROWS, 512);
        bench.launch(Kernel::NormForward, element, grid, &forward);
        let masked = NormForwardMasked {
            norm: NormForward {
                index: 0,
                ..forward
            },
            seen: bench.room(ROWS * stride * element.size()),
            mask: mask(bench, width, false),
            seen_stride: stride as u32,
            unused: 0,
        };
        bench.launch(Kernel::NormForwardMasked, element, grid, &masked);
        let backward = NormBackward {
            dy: bench.values(element, ROWS * stride),
            x,
            weight: forward.weight,
            inv: forward.inv,
            dx: bench.values(element, 9 * stride),
            index,
            width: width as u32,
            dy_stride: stride as u32,
            x_stride: stride as u32,
            add: 0,
        };
        bench.launch(Kernel::NormBackward, element, grid, &backward);
        let masked = NormBackwardMasked {
            norm: NormBackward {
                index: 0,
                add: 1,
                ..backward
            },
            through: bench.values(element, ROWS * stride),
            mask: mask(bench, width, true),
            through_stride: stride as u32,
            unused: 0,
        };
        bench.launch(Kernel::NormBackwardMasked, element, grid, &masked);
    }
}

pub(crate) fn elementwise(bench: &mut Bench) {
    for element in BOTH {
        rope(bench, element);
        swiglu(bench, element);
        let width = 136;
        let p = Embed {
            table: bench.values(element, 9 * width),
            ids: bench.holding(&[8u32, 0, 8, 2, 1]),
            out: bench.room(ROWS * width * element.size()),
            width: width as u32,
            unused: 0,
        };
        bench.launch(Kernel::Embed, element, Grid::row(ROWS, 256), &p);
        for values_stride in [0, width] {
            let (stride, offset) = (width + 2 * GAP, GAP);
            let p = AddRows {
                rows: bench.values(element, ROWS * stride),
                values: bench.floats(width.max(ROWS * values_stride)),
                width: width as u32,
                stride: stride as u32,
                offset: offset as u32,
                values_stride: values_stride as u32,
            };
            let grid = Grid::cover(width / 8, 256, ROWS);
            bench.launch(Kernel::AddRows, element, grid, &p);
        }
    }
}

fn rope(bench: &mut Bench, element: Element) {
    let (heads, head_dim) = (3, 64);
    let stride = (heads + 1) * head_dim;
    let p = Rope {
        rows: bench.values(element, ROWS * stride),
        positions: bench.holding(&[0u32, 1, 2, 0, 10]),
        table: bench.floats(11 * head_dim),
        tokens: ROWS as u32,
        heads: heads as u32,
        head_dim: head_dim as u32,
        stride: stride as u32,
        sign: -1.0,
        unused: 0,
    };
    let items = ROWS * heads * (head_dim / 16);
    bench.launch(Kernel::Rope, element, Grid::cover(items, 256, 1), &p);
}

fn swiglu(bench: &mut Bench, element: Element) {
    let width = 136;
    let (stride, gate_stride) = (width + GAP, 2 * width + GAP);
    let grid = Grid::cover(width / 8, 256, ROWS);
    let gate_up = bench.values(element, ROWS * gate_stride);
    let gated = |active| Swiglu {
        gate_up,
        active,
        tokens: ROWS as u32,
        width: width as u32,
        stride: stride as u32,
        gate_stride: gate_stride as u32,
    };
    let bytes = ROWS * stride * element.size();
    let masked = |gated, other, mask| SwigluMasked {
        gated,
        other,
        mask,
        other_stride: stride as u32,
        unused: 0,
    };
    let active = gated(bench.room(bytes));
    bench.launch(Kernel::SwigluForward, element, grid, &active);
    let (other, fresh) = (bench.room(bytes), mask(bench, width, false));
    let p = masked(active, other, fresh);
    bench.launch(Kernel::SwigluForwardMasked, element, grid, &p);

    let d_active = gated(bench.values(element, ROWS * stride));
    bench.launch(Kernel::SwigluBackward, element, grid, &d_active);
    let other = bench.values(element, ROWS * stride);
    let p = masked(d_active, other, mask(bench, width, true));
    bench.launch(Kernel::SwigluBackwardMasked, element, grid, &p);
}

pub(crate) fn lora(bench: &mut Bench) {
    for element in BOTH {
        let (inputs, pad, r) = (136, 64, 8);
        let ends = [64, 96, 130];
        let stride = inputs + pad;
        let weight = bench.room(ends[2] * stride * element.size());
        let p = LoraUp {
            // The second map has no pair.
            b: [bench.floats(64 * r), 0, bench.floats(34 * r)],
            out: weight + (inputs * element.size()) as u64,
            ends: ends.map(|e| e as u32),
            columns: [0, 0, 8],
            r: r as u32,
            pad: pad as u32,
            stride: stride as u32,
            unused: 0,
        };
        let rows = 256 / (pad / 8);
        let grid = Grid {
            blocks: (ends[2].div_ceil(rows), 1),
            threads: (pad / 8, rows),
            shared: 0,
        };
        bench.launch(Kernel::LoraUp, element, grid, &p);
        let p = LoraDown {
            a: bench.floats(2 * r * inputs),
            out: bench.room(pad * inputs * element.size()),
            rows: 2 * r as u32,
            width: inputs as u32,
        };
        let grid = Grid::cover(inputs / 8, 256, pad);
        bench.launch(Kernel::LoraDown, element, grid, &p);
        dropout(bench, element);
    }
}

fn dropout(bench: &mut Bench, element: Element) {
    let width = 136;
    let stride = width + GAP;
    let drawn = Dropout {
        x: bench.values(element, ROWS * stride),
        out: bench.room(ROWS * stride * element.size()),
        mask: mask(bench, width, false),
        width: width as u32,
        x_stride: stride as u32,
        out_stride: stride as u32,
        unused: 0,
    };
    let again = Dropout {
        mask: mask(bench, width, true),
        ..drawn
    };
    let added = Dropout {
        out: bench.values(element, ROWS * stride),
        ..again
    };
    let grid = Grid::cover(width / 8, 256, ROWS);
    bench.launch(Kernel::DropoutDraw, element, grid, &drawn);
    bench.launch(Kernel::DropoutApply, element, grid, &again);
    bench.launch(Kernel::DropoutAdd, element, grid, &added);
}

pub(crate) fn loss(bench: &mut Bench) {
    // More than all threads take at a time.
    let vocab = 4360;
    let stride = vocab + GAP;
    for (element, backward) in BOTH.iter().flat_map(|e| [(*e, 0), (*e, 1)]) {
        let p = CrossEntropy {
            logits: bench.values(element, ROWS * stride),
            targets: bench.holding(&[0u32, 1, 4359, 4100, 77]),
            weights: bench.floats(ROWS),
            losses: bench.room(4 * ROWS),
            vocab: vocab as u32,
            stride: stride as u32,
            backward,
            unused: 0,
        };
        bench.launch(Kernel::CrossEntropy, element, Grid::row(ROWS, 512), &p);
    }
}

pub(crate) fn adamw(bench: &mut Bench) {
    // Three chunks of the norm, the last not full.
    let count = 40_000;
    let chunks = 3;
    let gradient = bench.floats(count);
    let p = GradientNorm {
        gradient,
        parts: bench.room(8 * chunks),
        norm: bench.room(8),
        count: count as u64,
        chunks: chunks as u32,
        unused: 0,
    };
    let step = AdamwStep {
        values: bench.floats(count),
        gradient,
        first: bench.floats(count),
        second: bench.holding(&vec![0.5f32; count]),
        count: count as u64,
        factor: 1.0,
        shrink: 1.0,
        b1: 0.9,
        one_minus_b1: 0.1,
        b2: 0.999,
        one_minus_b2: 0.001,
        rate: 1e-3,
        root: 1.0,
        eps: 1e-8,
        unused: 0,
    };
    for element in BOTH {
        bench.launch(Kernel::GradientSquares, element, Grid::row(chunks, 256), &p);
        bench.launch(Kernel::GradientNorm, element, Grid::row(1, 256), &p);
        bench.launch(
            Kernel::AdamwStep,
            element,
            Grid::cover(count, 256, 1),
            &step,
        );
    }
}
