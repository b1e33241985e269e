//! Causal attention of a pass: which kernels run for which shapes.

use kernels::{Grid, Kernel, params};

use super::exec::Exec;
use super::memory::{Region, Rows};
use super::pass::{Context, Span};
use crate::config::ModelConfig;

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
    /// Prefix by `[keys | values]`, f32, added to.
    pub(super) context: Option<Region>,
}

impl Call<'_> {
    fn params(&self) -> params::PlainAttention {
        let config = self.config;
        params::PlainAttention {
            qkv: self.qkv.at,
            starts: self.span.starts.at,
            prefix_k: self.context.map_or(0, |c| c.keys.at),
            prefix_v: self.context.map_or(0, |c| c.values.at),
            out: self.out.at,
            lse: self.lse.at,
            rows: self.span.rows as u32,
            tokens: self.span.tokens as u32,
            prefix: self.context.map_or(0, |c| c.keys.rows as u32),
            heads: config.heads as u32,
            kv_heads: config.kv_heads as u32,
            dim: config.head_dim as u32,
            stride: self.qkv.stride as u32,
            prefix_stride: self.context.map_or(0, |c| c.keys.stride as u32),
            out_stride: self.out.stride as u32,
            window: config.sliding_window.unwrap_or(0) as u32,
            scale: 1.0 / (config.head_dim as f32).sqrt(),
            ..Default::default()
        }
    }

    pub(super) fn forward(&self, exec: &mut Exec<'_>) {
        let warps = self.span.tokens * self.config.heads;
        exec.launch(Kernel::PlainForward, Grid::cover(warps, 8, 1).threads(256), &self.params());
    }

    pub(super) fn backward(&self, exec: &mut Exec<'_>, gradients: &Gradients) {
        let p = params::PlainAttention {
            d_out: gradients.d_out.at,
            d_out_stride: gradients.d_out.stride as u32,
            delta: gradients.delta.at,
            d_qkv: gradients.d_qkv.at,
            d_prefix: gradients.context.map_or(0, |c| c.at),
            ..self.params()
        };
        let warps = |count: usize| Grid::cover(count, 8, 1).threads(256);
        exec.launch(Kernel::PlainQuery, warps(self.span.tokens * self.config.heads), &p);
        exec.launch(Kernel::PlainKeys, warps(self.span.tokens * self.config.kv_heads), &p);
        if p.prefix > 0 {
            exec.launch(Kernel::PlainPrefix, warps(p.prefix as usize * self.config.kv_heads), &p);
        }
    }
}
