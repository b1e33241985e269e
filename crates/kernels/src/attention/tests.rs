//! Plans for shapes whose numbers are worked out by hand.

use super::*;

const CARD: Card = Card {
    multiprocessors: 132,
    door: Door::Warp,
};

const JOB: AttentionShape = AttentionShape {
    tokens: 1600,
    prefix: 600,
    heads: 32,
    kv_heads: 8,
    head_dim: 128,
    element: Element::Bf16,
};

#[test]
fn the_prefix_is_split_over_the_card() {
    let plan = plan(JOB, CARD).expect("supported");
    assert_eq!(plan.splits, 4);
    assert_eq!(plan.backward[2].grid, [10 * 4 + 25, 8, 1]);
    assert_eq!(plan.partial_floats, 2 * 4 * 600 * 8 * 128);
    assert_eq!(
        plan.backward.last().expect("launches").kernel,
        "attention_prefix_sum"
    );
}

#[test]
fn no_prefix_needs_no_scratch() {
    let plan = plan(AttentionShape { prefix: 0, ..JOB }, CARD).expect("supported");
    assert_eq!(
        (plan.splits, plan.partial_floats, plan.backward.len()),
        (1, 0, 3)
    );
}

#[test]
fn shapes_without_a_kernel_are_refused_by_name() {
    let refused = |shape| plan(shape, CARD).expect_err("unsupported");
    assert_eq!(
        refused(AttentionShape {
            head_dim: 96,
            ..JOB
        }),
        Unsupported::HeadDim(96)
    );
    assert_eq!(
        refused(AttentionShape { heads: 9, ..JOB }),
        Unsupported::Heads {
            heads: 9,
            kv_heads: 8
        }
    );
    assert_eq!(
        refused(AttentionShape { tokens: 0, ..JOB }),
        Unsupported::Empty
    );
    assert_eq!(
        refused(AttentionShape {
            head_dim: 257,
            element: Element::F32,
            ..JOB
        }),
        Unsupported::HeadDim(257)
    );
}

const HOPPER: Card = Card {
    multiprocessors: 132,
    door: Door::Warpgroup,
};

#[test]
fn hopper_takes_tiles_of_128_and_names_the_matrices_it_copies() {
    let plan = plan(JOB, HOPPER).expect("supported");
    assert_eq!(plan.splits, 7);
    assert_eq!(plan.forward.kernel, "attention_forward_sm90_hd128");
    assert_eq!(plan.forward.grid, [32 * 13, 1, 1]);
    assert_eq!(plan.forward.maps.len(), 3);
    assert_eq!(plan.backward[1].grid, [32 * 13, 1, 1]);
    assert_eq!(plan.backward[2].grid, [8 * (5 * 7 + 13), 1, 1]);
    assert_eq!(plan.partial_floats, 2 * 7 * 600 * 8 * 128);
}

#[test]
fn what_hopper_s_kernels_do_not_serve_takes_the_warp_door() {
    for shape in [
        AttentionShape {
            head_dim: 64,
            ..JOB
        },
        AttentionShape {
            element: Element::F32,
            ..JOB
        },
    ] {
        assert_eq!(plan(shape, HOPPER), plan(shape, CARD));
    }
}

#[test]
fn a_matrix_is_told_from_the_parameters() {
    let params = AttentionParams {
        qkv: 1 << 20,
        qkv_stride: 6208,
        prefix_k: 1 << 21,
        prefix_stride: 6144,
        tokens: 100,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        ..AttentionParams::default()
    };
    let qkv = MatrixPlace {
        address: 1 << 20,
        columns: 6144,
        rows: 100,
        stride: 6208,
    };
    assert_eq!(params.place(Matrix::Qkv), qkv);
    // Without a prefix its maps are never read, but have to be valid.
    assert_eq!(params.place(Matrix::PrefixKeys), qkv);
    let with = AttentionParams {
        prefix: 600,
        ..params
    };
    assert_eq!(
        with.place(Matrix::PrefixKeys),
        MatrixPlace {
            address: 1 << 21,
            columns: 1024,
            rows: 600,
            stride: 6144,
        }
    );
}
