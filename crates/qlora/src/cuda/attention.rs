//! Causal attention of a pass: the plan of the attention kernels for each span, and their launches.

use kernels::attention::{self, AttentionParams, AttentionShape, Card, Door, Plan};

use super::decoders;
use super::exec::Exec;
use super::memory::{Region, Rows};
use super::pass::{Context, Span};
use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// One span's attention: rows of `qkv`, and what stands before them.
pub(super) struct Call<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) span: Span,
    /// Of the span's tokens.
    pub(super) qkv: Rows,
    pub(super) context: Option<Context>,
    pub(super) out: Rows,
    /// Heads by tokens.
    pub(super) lse: Region,
}

/// What the backward takes and gives besides.
pub(super) struct Gradients {
    pub(super) d_out: Rows,
    pub(super) d_qkv: Rows,
    /// Heads by tokens, scratch.
    pub(super) delta: Region,
    /// Sums of parts, scratch.
    pub(super) partial: Region,
    /// The context's gradient, added to.
    pub(super) context: Option<ContextGradient>,
    /// What later rows sent to the keys and values of this span.
    pub(super) received: Option<ContextGradient>,
}

/// Gradients of a prefix's keys and of its values, f32, one after the other.
#[derive(Clone, Copy)]
pub(super) struct ContextGradient {
    pub(super) keys: Region,
    pub(super) values: Region,
}

impl ContextGradient {
    /// Over `2 * prefix * kv_width` floats.
    pub(super) fn over(region: Region) -> Self {
        let half = region.bytes / 2;
        Self {
            keys: region.part(0, half),
            values: region.part(half, half),
        }
    }
}

fn shape(
    config: &ModelConfig,
    tokens: usize,
    prefix: usize,
    element: kernels::Element,
) -> AttentionShape {
    AttentionShape {
        tokens: tokens as u32,
        prefix: prefix as u32,
        heads: config.heads as u32,
        kv_heads: config.kv_heads as u32,
        head_dim: config.head_dim as u32,
        element: match element {
            kernels::Element::Bf16 => attention::Element::Bf16,
            kernels::Element::F32 => attention::Element::F32,
        },
    }
}

/// Refuses a head width that no kernel serves.
pub(super) fn check(config: &ModelConfig, element: kernels::Element) -> Result<()> {
    let any = Card {
        multiprocessors: 1,
        door: Door::Warp,
    };
    attention::plan(shape(config, 1, 0, element), any)
        .map(drop)
        .map_err(|_| {
            Error::unsupported(
                "head_dim",
                config.head_dim,
                "on a GPU, heads are 64, 128 or 256 wide; train on the CPU",
            )
        })
}

/// Bytes of scratch that a backward needs for a span behind a prefix.
pub(super) fn partial_bytes(
    config: &ModelConfig,
    tokens: usize,
    prefix: usize,
    exec: &Exec<'_>,
) -> usize {
    if tokens == 0 {
        return 0;
    }
    4 * plan(config, tokens, prefix, exec).partial_floats
}

fn plan(config: &ModelConfig, tokens: usize, prefix: usize, exec: &Exec<'_>) -> Plan {
    attention::plan(shape(config, tokens, prefix, exec.element), exec.card)
        .expect("the head width was checked when the model was loaded")
}

impl Call<'_> {
    fn plan(&self, exec: &Exec<'_>) -> Plan {
        plan(
            self.config,
            self.span.tokens,
            self.context.map_or(0, |c| c.keys.rows),
            exec,
        )
    }

    fn params(&self, plan: &Plan) -> AttentionParams {
        let config = self.config;
        AttentionParams {
            qkv: self.qkv.at,
            prefix_k: self.context.map_or(0, |c| c.keys.at),
            prefix_v: self.context.map_or(0, |c| c.values.at),
            out: self.out.at,
            lse: self.lse.at,
            seq_start: self.span.row_start.at,
            seq_end: self.span.row_end.at,
            qkv_stride: self.qkv.stride as i64,
            prefix_stride: self.context.map_or(0, |c| c.keys.stride as i64),
            out_stride: self.out.stride as i64,
            tokens: self.span.tokens as i32,
            prefix: self.context.map_or(0, |c| c.keys.rows as i32),
            heads: config.heads as i32,
            kv_heads: config.kv_heads as i32,
            window: decoders::first(config).window.unwrap_or(0) as i32,
            splits: plan.splits as i32,
            scale: config.attention_scale,
            head_dim: config.head_dim as i32,
            ..AttentionParams::default()
        }
    }

    pub(super) fn forward(&self, exec: &mut Exec<'_>) {
        let plan = self.plan(exec);
        exec.attention(&plan.forward, &self.params(&plan));
    }

    pub(super) fn backward(&self, exec: &mut Exec<'_>, gradients: &Gradients) {
        let plan = self.plan(exec);
        assert!(
            4 * plan.partial_floats <= gradients.partial.bytes,
            "scratch of the attention backward"
        );
        let p = AttentionParams {
            d_out: gradients.d_out.at,
            d_out_stride: gradients.d_out.stride as i64,
            delta: gradients.delta.at,
            d_qkv: gradients.d_qkv.at,
            d_qkv_stride: gradients.d_qkv.stride as i64,
            partial: gradients.partial.at,
            d_prefix_k: gradients.context.map_or(0, |c| c.keys.at),
            d_prefix_v: gradients.context.map_or(0, |c| c.values.at),
            add_d_k: gradients.received.map_or(0, |c| c.keys.at),
            add_d_v: gradients.received.map_or(0, |c| c.values.at),
            ..self.params(&plan)
        };
        for launch in &plan.backward {
            exec.attention(launch, &p);
        }
    }
}
