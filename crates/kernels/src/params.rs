//! The parameters of each kernel, laid out as the `.cu` files lay them out; sizes are asserted on both sides.
//!
//! An address is a device pointer; zero is null. What a field means stands beside it in the `.cu` file.

/// A device pointer.
pub type Address = u64;

macro_rules! params {
    ($($(#[$doc:meta])* $name:ident, $size:literal { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        #[repr(C)]
        pub struct $name { $(pub $field: $type),* }
        const _: () = assert!(size_of::<$name>() == $size);
        impl Sealed for $name {}
        impl Params for $name {}
    )*};
}

mod sealed {
    /// Keeps [`super::Params`] to the structs of this file.
    pub trait Sealed {}
}
use sealed::Sealed;

/// A struct that a kernel takes by value.
pub trait Params: Copy + Sealed {}

params! {
    /// nf4.cu: four bits to values.
    Nf4Decode, 72 {
        packed: Address,
        codes: Address,
        absmax: Address,
        map: Address,
        out: Address,
        vectors: u32,
        row_vectors: u32,
        stride: u32,
        block_shift: u32,
        nested_shift: u32,
        rounding: u32,
        offset: f32,
        unused: u32,
    }
    /// nf4.cu: values to four bits.
    Nf4Encode, 88 {
        values: Address,
        packed: Address,
        absmax: Address,
        vectors: u32,
        bounds: [f32; 15],
    }
    /// nf4.cu: normal values.
    Noise, 32 {
        out: Address,
        count: u64,
        seed: u64,
        deviation: f32,
        unused: u32,
    }
    /// dropout.cuh: the masks of one site.
    Mask, 32 {
        bits: Address,
        keys: Address,
        place: u64,
        threshold: u32,
        keep: f32,
    }
    /// norm.cu.
    NormForward, 56 {
        x: Address,
        weight: Address,
        y: Address,
        inv: Address,
        index: Address,
        width: u32,
        x_stride: u32,
        y_stride: u32,
        eps: f32,
    }
    /// norm.cu.
    NormBackward, 64 {
        dy: Address,
        x: Address,
        weight: Address,
        inv: Address,
        dx: Address,
        index: Address,
        width: u32,
        dy_stride: u32,
        x_stride: u32,
        add: u32,
    }
    /// norm.cu.
    NormForwardMasked, 104 {
        norm: NormForward,
        seen: Address,
        mask: Mask,
        seen_stride: u32,
        unused: u32,
    }
    /// norm.cu.
    NormBackwardMasked, 112 {
        norm: NormBackward,
        through: Address,
        mask: Mask,
        through_stride: u32,
        unused: u32,
    }
    /// elementwise.cu: rotary embedding.
    Rope, 48 {
        rows: Address,
        positions: Address,
        table: Address,
        tokens: u32,
        heads: u32,
        head_dim: u32,
        stride: u32,
        sign: f32,
        unused: u32,
    }
    /// elementwise.cu: gated activation, both ways.
    Swiglu, 32 {
        gate_up: Address,
        active: Address,
        tokens: u32,
        width: u32,
        stride: u32,
        gate_stride: u32,
    }
    /// elementwise.cu: the same with dropout.
    SwigluMasked, 80 {
        gated: Swiglu,
        other: Address,
        mask: Mask,
        other_stride: u32,
        unused: u32,
    }
    /// elementwise.cu: rows of the embedding.
    Embed, 32 {
        table: Address,
        ids: Address,
        out: Address,
        width: u32,
        unused: u32,
    }
    /// elementwise.cu: f32 rows added to rows.
    AddRows, 32 {
        rows: Address,
        values: Address,
        width: u32,
        stride: u32,
        offset: u32,
        values_stride: u32,
    }
    /// lora.cu: B beside the weights.
    LoraUp, 72 {
        b: [Address; 3],
        out: Address,
        ends: [u32; 3],
        columns: [u32; 3],
        r: u32,
        pad: u32,
        stride: u32,
        unused: u32,
    }
    /// lora.cu: A in the products' type.
    LoraDown, 24 {
        a: Address,
        out: Address,
        rows: u32,
        width: u32,
    }
    /// lora.cu: masks drawn, applied, added.
    Dropout, 64 {
        x: Address,
        out: Address,
        mask: Mask,
        width: u32,
        x_stride: u32,
        out_stride: u32,
        unused: u32,
    }
    /// loss.cu.
    CrossEntropy, 48 {
        logits: Address,
        targets: Address,
        weights: Address,
        losses: Address,
        vocab: u32,
        stride: u32,
        backward: u32,
        unused: u32,
    }
    /// adamw.cu: the norm of a gradient.
    GradientNorm, 40 {
        gradient: Address,
        parts: Address,
        norm: Address,
        count: u64,
        chunks: u32,
        unused: u32,
    }
    /// adamw.cu: one step.
    AdamwStep, 80 {
        values: Address,
        gradient: Address,
        first: Address,
        second: Address,
        count: u64,
        factor: f32,
        shrink: f32,
        b1: f32,
        one_minus_b1: f32,
        b2: f32,
        one_minus_b2: f32,
        rate: f32,
        root: f32,
        eps: f32,
        unused: u32,
    }
    /// decode_rows.cu: one of the stacked weights of a product.
    Nf4Part, 40 {
        packed: Address,
        codes: Address,
        absmax: Address,
        map: Address,
        offset: f32,
        end: u32,
    }
    /// decode_rows.cu: a few rows times A.
    LoraRows, 48 {
        a: Address,
        x: Address,
        u: Address,
        inputs: u32,
        x_stride: u32,
        a_rows: u32,
        rows: u32,
        scale: f32,
        unused: u32,
    }
    /// decode_rows.cu: a few rows times four-bit weights.
    Nf4Rows, 208 {
        parts: [Nf4Part; 3],
        lora: LoraRows,
        x: Address,
        sums: Address,
        inputs: u32,
        outputs: u32,
        x_stride: u32,
        rows: u32,
        splits: u32,
        lora_blocks: u32,
    }
    /// decode.cu: what a product left.
    Sums, 88 {
        parts: Address,
        u: Address,
        b: [Address; 3],
        splits: u32,
        rows: u32,
        outputs: u32,
        u_stride: u32,
        ends: [u32; 3],
        columns: [u32; 3],
        r: u32,
        unused: u32,
    }
    /// decode.cu: queries, keys and values of one token a row.
    FinishTurn, 160 {
        sums: Sums,
        bias: Address,
        table: Address,
        lens: Address,
        slots: Address,
        q: Address,
        cache: Address,
        q_stride: u32,
        prefix: u32,
        heads: u32,
        kv_heads: u32,
        head_dim: u32,
        capacity: u32,
    }
    /// decode.cu: the gated activation.
    FinishGate, 104 {
        sums: Sums,
        out: Address,
        stride: u32,
        width: u32,
    }
    /// decode.cu: a product added to the residual.
    FinishAdd, 112 {
        sums: Sums,
        add: Address,
        out: Address,
        add_stride: u32,
        stride: u32,
    }
    /// decode.cu: keys and values of prompts into the cache.
    CacheFill, 32 {
        rows: Address,
        places: Address,
        cache: Address,
        width: u32,
        stride: u32,
    }
    /// decode.cu: the next id of each row.
    ArgMax, 56 {
        logits: Address,
        ids: Address,
        lens: Address,
        slots: Address,
        history: Address,
        vocab: u32,
        stride: u32,
        capacity: u32,
        unused: u32,
    }
    /// decode_attention.cu: scores and values of some keys.
    DecodeAttention, 104 {
        q: Address,
        prefix_keys: Address,
        prefix_values: Address,
        cache: Address,
        lens: Address,
        slots: Address,
        parts: Address,
        q_stride: u32,
        prefix_stride: u32,
        prefix: u32,
        heads: u32,
        kv_heads: u32,
        groups: u32,
        capacity: u32,
        window: u32,
        prefix_splits: u32,
        splits: u32,
        scale: f32,
        unused: u32,
    }
    /// decode_attention.cu: the parts of a row merged.
    DecodeMerge, 48 {
        parts: Address,
        lens: Address,
        out: Address,
        out_stride: u32,
        heads: u32,
        head_dim: u32,
        prefix_splits: u32,
        splits: u32,
        unused: u32,
    }
}
