//! One decoder layer on the card, forward and backward, op by op as nn/layer.rs has it.
//!
//! The gradient of the layer's output becomes that of its input, in place. A recompute runs the same ops on
//! the same shapes, so it gives the same bits; it stops before the down projection.

use super::attention::{self, Call, ContextGradient, Gradients};
use super::base::{Base, Layer};
use super::decoded::Decoded;
use super::exec::Exec;
use super::linear::{Ready, Scratch, SitePlan, ready};
use super::memory::{Region, Rows};
use super::pass::{Context, Pass, Span};
use crate::nn::adapter::Site;

mod divided;

/// What never changes while a pass runs.
pub(super) struct Run<'a> {
    pub(super) base: &'a Base,
    /// Per layer, in the order of [`Site::ALL`].
    pub(super) sites: &'a [SitePlan],
    pub(super) decoded: Option<&'a Decoded>,
    pub(super) values: Region,
    pub(super) grads: Region,
    pub(super) scratch: Scratch,
    pub(super) pass: &'a Pass,
}

/// All that the backward of one layer needs but its input.
///
/// `normed` and `mlp_normed` hold what the adapter saw (the frozen weights need them in the forward alone), then its
/// columns.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    normed: Rows,
    inv: Region,
    pub(super) qkv: Rows,
    attended: Rows,
    lse: Region,
    middle: Rows,
    mlp_normed: Rows,
    mlp_inv: Region,
    gate_up: Rows,
    /// Adapter columns of the down projection's input.
    down_u: Rows,
    bits: [Region; 4],
}

/// Scratch of a backward.
#[derive(Clone, Copy)]
pub(super) struct Backward {
    d_active: Rows,
    d_attended: Rows,
    d_qkv: Rows,
    d_normed: Rows,
    delta: Region,
    partial: Region,
    /// Gradient of the joint prefix's keys and values.
    joint: Region,
    /// What each other rank sends to those of this rank's part of the prefix.
    received: Region,
}

impl Run<'_> {
    fn plan(&self, layer: usize, site: Site) -> &SitePlan {
        &self.sites[layer * Site::ALL.len() + site as usize]
    }

    fn ready(&self, exec: &mut Exec<'_>, layer: usize, site: Site) -> Ready<'_> {
        ready(
            exec,
            self.plan(layer, site),
            self.base.weight(layer, site),
            self.decoded.and_then(|d| d.site(layer, site)),
            self.values,
            self.scratch,
        )
    }

    fn layer(&self, layer: usize) -> &Layer {
        &self.base.layers[layer]
    }

    /// Room for what one layer keeps.
    pub(super) fn kept(&self, exec: &mut Exec<'_>) -> Kept {
        let (config, tokens) = (&self.base.config, self.pass.tokens);
        let width = |site| SitePlan::widest(self.sites, site);
        let dropout = self.pass.masks.is_some();
        Kept {
            normed: exec.rows(tokens, width(Site::Qkv)),
            inv: exec.floats(tokens),
            qkv: exec.rows(tokens, config.query_width() + 2 * config.kv_width()),
            attended: exec.rows(tokens, width(Site::Output)),
            lse: exec.floats(tokens * config.heads),
            middle: exec.rows(tokens, config.hidden),
            mlp_normed: exec.rows(tokens, width(Site::GateUp)),
            mlp_inv: exec.floats(tokens),
            gate_up: exec.rows(tokens, 2 * config.intermediate),
            down_u: exec.rows(tokens, width(Site::Down) - config.intermediate),
            bits: Site::ALL.map(|site| {
                let bytes = if dropout {
                    tokens * self.plan(0, site).inputs / 8
                } else {
                    0
                };
                exec.arena.take(bytes)
            }),
        }
    }

    /// Room for the activation with its adapter columns.
    pub(super) fn active(&self, exec: &mut Exec<'_>) -> Rows {
        exec.rows(self.pass.tokens, SitePlan::widest(self.sites, Site::Down))
    }

    /// Scratch of a backward; `active` serves as the activation's gradient.
    pub(super) fn backward_scratch(&self, exec: &mut Exec<'_>, active: Rows) -> Backward {
        let (config, tokens) = (&self.base.config, self.pass.tokens);
        let width = |site| SitePlan::widest(self.sites, site);
        let normed = width(Site::Qkv).max(width(Site::GateUp));
        Backward {
            d_active: active,
            d_attended: exec.rows(tokens, width(Site::Output)),
            d_qkv: exec.rows(tokens, config.query_width() + 2 * config.kv_width()),
            d_normed: exec.rows(tokens, normed),
            delta: exec.floats(tokens * config.heads),
            partial: {
                let bytes = self.partial_bytes(exec);
                exec.arena.take(bytes)
            },
            joint: {
                let joint = if self.pass.joint > 0 {
                    self.pass.joint + self.pass.outside
                } else {
                    0
                };
                exec.floats(joint * 2 * config.kv_width())
            },
            received: {
                let division = self.pass.division.as_ref();
                let ranks = division.map_or(0, |d| d.others().count());
                exec.floats(ranks * self.pass.joint * 2 * config.kv_width())
            },
        }
    }

    /// Bytes of scratch of the attention backward that needs most.
    fn partial_bytes(&self, exec: &Exec<'_>) -> usize {
        let (config, pass) = (&self.base.config, self.pass);
        let rows = pass.own.map_or(0, |s| s.tokens);
        let rows = attention::partial_bytes(config, rows, pass.joint + pass.outside, exec);
        let part = pass.division.as_ref().map_or(0, |division| {
            attention::partial_bytes(config, pass.joint, division.own().start, exec)
        });
        rows.max(part)
    }

    /// Norm and the site that reads it: `y = norm(x) W^T` with the adapter. `kept` is what the backward needs.
    fn norm_and_site(
        &self,
        exec: &mut Exec<'_>,
        (layer, site): (usize, Site),
        (x, weight): (Rows, Region),
        (kept, inv): (Rows, Region),
        bits: Region,
        y: Rows,
    ) {
        let plan = self.plan(layer, site);
        let (inputs, pad) = (plan.inputs, plan.pad);
        let ready = self.ready(exec, layer, site);
        let eps = self.base.config.rms_eps;
        let seen = kept.columns(0, inputs);
        let Some(mask) = plan.mask(bits, self.pass.masks) else {
            exec.norm(x, weight, eps, kept, inv, None, None);
            ready.down(exec, seen, kept.columns(inputs, pad));
            ready.forward(exec, kept, y, None);
            return;
        };
        let whole = ready.spare(exec, kept.rows, inputs + pad);
        exec.norm(x, weight, eps, whole, inv, None, Some((mask, seen)));
        let u = whole.columns(inputs, pad);
        ready.down(exec, seen, u);
        exec.copy(kept.columns(inputs, pad), u);
        ready.forward(exec, whole, y, None);
    }

    /// Norm, projections, rotation.
    fn project(&self, exec: &mut Exec<'_>, layer: usize, x: Rows, kept: &Kept) {
        let config = &self.base.config;
        self.norm_and_site(
            exec,
            (layer, Site::Qkv),
            (x, self.layer(layer).attention_norm),
            (kept.normed, kept.inv),
            kept.bits[Site::Qkv as usize],
            kept.qkv,
        );
        if let Some(bias) = self.layer(layer).qkv_bias {
            exec.add_rows(kept.qkv, 0, bias, kept.qkv.cols, true);
        }
        let turned = config.heads + config.kv_heads;
        exec.rope(
            kept.qkv,
            self.pass.positions,
            self.base.rope,
            turned,
            config.head_dim,
            1.0,
        );
    }

    fn call(&self, span: Span, kept: &Kept, context: Option<Context>) -> Call<'_> {
        let heads = self.base.config.heads;
        Call {
            config: &self.base.config,
            span,
            qkv: kept.qkv.slice(span.from, span.tokens),
            context,
            out: kept
                .attended
                .slice(span.from, span.tokens)
                .columns(0, self.base.config.query_width()),
            lse: kept
                .lse
                .part(4 * heads * span.from, 4 * heads * span.tokens),
        }
    }

    /// What own rows look at: the prefix in this pass, or the one before it, or the one that was gathered.
    fn context(&self, kept: &Kept, outside: Option<Context>) -> Option<Context> {
        if self.pass.joint == 0 || self.pass.division.is_some() {
            return outside;
        }
        Some(context_of(
            &self.base.config,
            kept.qkv.slice(0, self.pass.joint),
        ))
    }

    /// All of a layer but its last product. Where it runs `again`, the prefix's keys and values are still there.
    fn keep(
        &self,
        exec: &mut Exec<'_>,
        layer: usize,
        x: Rows,
        kept: &Kept,
        outside: Option<Context>,
        active: Rows,
        again: bool,
    ) -> Ready<'_> {
        self.project(exec, layer, x, kept);
        if !again {
            self.gather(exec, kept, outside);
        }
        if let Some(span) = self.pass.prefix {
            self.call(span, kept, self.earlier(outside)).forward(exec);
        }
        if let Some(span) = self.pass.own {
            self.call(span, kept, self.context(kept, outside))
                .forward(exec);
        }
        self.attended_to_middle(exec, layer, x, kept);
        self.norm_and_site(
            exec,
            (layer, Site::GateUp),
            (kept.middle, self.layer(layer).mlp_norm),
            (kept.mlp_normed, kept.mlp_inv),
            kept.bits[Site::GateUp as usize],
            kept.gate_up,
        );
        self.activate(exec, layer, kept, active)
    }

    /// Output projection and residual.
    fn attended_to_middle(&self, exec: &mut Exec<'_>, layer: usize, x: Rows, kept: &Kept) {
        let plan = self.plan(layer, Site::Output);
        let output = self.ready(exec, layer, Site::Output);
        let mask = plan.mask(kept.bits[Site::Output as usize], self.pass.masks);
        let seen = output.mask_input(exec, kept.attended.columns(0, plan.inputs), mask, false);
        output.down(exec, seen, kept.attended.columns(plan.inputs, plan.pad));
        output.forward(exec, kept.attended, kept.middle, Some(x));
    }

    /// The gated activation with its adapter columns, ready for the down projection.
    fn activate(&self, exec: &mut Exec<'_>, layer: usize, kept: &Kept, active: Rows) -> Ready<'_> {
        let plan = self.plan(layer, Site::Down);
        let down = self.ready(exec, layer, Site::Down);
        let mask = plan.mask(kept.bits[Site::Down as usize], self.pass.masks);
        let masked = mask.map(|mask| (mask, down.spare(exec, active.rows, plan.inputs)));
        exec.activate(kept.gate_up, active, masked);
        let seen = masked.map_or(active.columns(0, plan.inputs), |(_, seen)| seen);
        let u = active.columns(plan.inputs, plan.pad);
        down.down(exec, seen, u);
        if plan.pad > 0 {
            exec.copy(kept.down_u.columns(0, plan.pad), u);
        }
        down
    }

    /// Writes the layer's output into `y`.
    pub(super) fn forward(
        &self,
        exec: &mut Exec<'_>,
        layer: usize,
        x: Rows,
        y: Rows,
        kept: &Kept,
        outside: Option<Context>,
        active: Rows,
    ) {
        let down = self.keep(exec, layer, x, kept, outside, active, false);
        down.forward(exec, active, y, Some(kept.middle));
    }

    /// Fills `kept` again from the layer's input.
    pub(super) fn again(
        &self,
        exec: &mut Exec<'_>,
        layer: usize,
        x: Rows,
        kept: &Kept,
        outside: Option<Context>,
        active: Rows,
    ) {
        self.keep(exec, layer, x, kept, outside, active, true);
    }

    /// The projections alone: all that the top layer of a prefix needs.
    pub(super) fn project_only(&self, exec: &mut Exec<'_>, layer: usize, x: Rows, kept: &Kept) {
        self.project(exec, layer, x, kept);
    }

    /// Turns `dy` into the gradient of the layer's input (left alone in the lowest layer). `outside` is the
    /// context of an earlier prefix with the gradient to add to; `received` what later rows sent to the
    /// keys and values of these tokens.
    pub(super) fn backward(
        &self,
        exec: &mut Exec<'_>,
        layer: usize,
        x: Rows,
        kept: &Kept,
        dy: Rows,
        s: &Backward,
        outside: Option<(Context, Option<ContextGradient>)>,
        received: Option<ContextGradient>,
    ) {
        self.mlp_back(exec, layer, kept, dy, s);
        self.output_back(exec, layer, kept, dy, s);
        self.attention_back(exec, kept, s, outside, received);
        self.project_back(exec, layer, x, kept, dy, s);
    }

    fn output_back(&self, exec: &mut Exec<'_>, layer: usize, kept: &Kept, dy: Rows, s: &Backward) {
        let plan = self.plan(layer, Site::Output);
        let (inputs, pad) = (plan.inputs, plan.pad);
        let output = self.ready(exec, layer, Site::Output);
        let mask = plan.mask(kept.bits[Site::Output as usize], self.pass.masks);
        let through = output.input_back(exec, dy, s.d_attended, mask, true);
        output.mask_back(exec, through, s.d_attended.columns(0, inputs));
        let seen = output.mask_input(exec, kept.attended.columns(0, inputs), mask, true);
        output.adapter_back(
            exec,
            seen,
            kept.attended.columns(inputs, pad),
            dy,
            s.d_attended.columns(inputs, pad),
            self.grads,
        );
    }

    fn mlp_back(&self, exec: &mut Exec<'_>, layer: usize, kept: &Kept, dy: Rows, s: &Backward) {
        let plan = self.plan(layer, Site::Down);
        let (inputs, pad) = (plan.inputs, plan.pad);
        let mask = plan.mask(kept.bits[Site::Down as usize], self.pass.masks);
        let down = self.ready(exec, layer, Site::Down);
        let through = down.input_back(exec, dy, s.d_active, mask, true);
        exec.activate_back(kept.gate_up, s.d_active.columns(0, inputs), through);
        // From here the first columns hold the activation again, as the adapter saw it.
        down.adapter_back(
            exec,
            s.d_active.columns(0, inputs),
            kept.down_u,
            dy,
            s.d_active.columns(inputs, pad),
            self.grads,
        );
        let plan = self.plan(layer, Site::GateUp);
        let (inputs, pad) = (plan.inputs, plan.pad);
        let mask = plan.mask(kept.bits[Site::GateUp as usize], self.pass.masks);
        let site = self.ready(exec, layer, Site::GateUp);
        let dx = s.d_normed.columns(0, inputs + pad);
        let through = site.input_back(exec, kept.gate_up, dx, mask, true);
        site.adapter_back(
            exec,
            kept.mlp_normed.columns(0, inputs),
            kept.mlp_normed.columns(inputs, pad),
            kept.gate_up,
            dx.columns(inputs, pad),
            self.grads,
        );
        exec.norm_back(
            dx.columns(0, inputs),
            kept.middle,
            self.layer(layer).mlp_norm,
            kept.mlp_inv,
            dy,
            None,
            through,
        );
    }

    fn attention_back(
        &self,
        exec: &mut Exec<'_>,
        kept: &Kept,
        s: &Backward,
        outside: Option<(Context, Option<ContextGradient>)>,
        received: Option<ContextGradient>,
    ) {
        let gathers = self.pass.own.is_some() || self.pass.division.is_some();
        let joint = (self.pass.joint > 0 && gathers).then(|| ContextGradient::over(s.joint));
        if joint.is_some() {
            exec.zero(s.joint);
        }
        let earlier = outside.map(|o| o.0);
        if let Some(span) = self.pass.own {
            let into = joint.or(outside.and_then(|o| o.1));
            let context = self.context(kept, earlier);
            self.call(span, kept, context)
                .backward(exec, &self.gradients(s, span, into, None));
        }
        match self.pass.prefix {
            Some(span) if self.pass.division.is_some() => {
                self.divided_back(exec, span, kept, s, earlier);
            }
            Some(span) => {
                let received = joint.or(received);
                self.call(span, kept, None)
                    .backward(exec, &self.gradients(s, span, None, received));
            }
            None => {}
        }
    }

    /// Where the attention backward of a span reads and writes.
    fn gradients(
        &self,
        s: &Backward,
        span: Span,
        context: Option<ContextGradient>,
        received: Option<ContextGradient>,
    ) -> Gradients {
        let config = &self.base.config;
        let d_attended = s.d_attended.slice(span.from, span.tokens);
        Gradients {
            d_out: d_attended.columns(0, config.query_width()),
            d_qkv: s.d_qkv.slice(span.from, span.tokens),
            delta: s
                .delta
                .part(4 * config.heads * span.from, 4 * config.heads * span.tokens),
            partial: s.partial,
            context,
            received,
        }
    }

    /// The backward of the projections. `s.d_qkv` holds the gradient of queries, keys and values.
    fn project_back(
        &self,
        exec: &mut Exec<'_>,
        layer: usize,
        x: Rows,
        kept: &Kept,
        dy: Rows,
        s: &Backward,
    ) {
        let config = &self.base.config;
        let turned = config.heads + config.kv_heads;
        exec.rope(
            s.d_qkv,
            self.pass.positions,
            self.base.rope,
            turned,
            config.head_dim,
            -1.0,
        );
        let plan = self.plan(layer, Site::Qkv);
        let (inputs, pad) = (plan.inputs, plan.pad);
        let want_input = layer > 0;
        if pad == 0 && !want_input {
            return;
        }
        let mask = plan.mask(kept.bits[Site::Qkv as usize], self.pass.masks);
        let site = self.ready(exec, layer, Site::Qkv);
        let dx = s.d_normed.columns(0, inputs + pad);
        let through = site.input_back(exec, s.d_qkv, dx, mask, want_input);
        site.adapter_back(
            exec,
            kept.normed.columns(0, inputs),
            kept.normed.columns(inputs, pad),
            s.d_qkv,
            dx.columns(inputs, pad),
            self.grads,
        );
        if want_input {
            exec.norm_back(
                dx.columns(0, inputs),
                x,
                self.layer(layer).attention_norm,
                kept.inv,
                dy,
                None,
                through,
            );
        }
    }

    /// The top layer of a prefix: its gradient is what rows sent to its keys and values. Sets `dx`.
    pub(super) fn project_only_back(
        &self,
        exec: &mut Exec<'_>,
        layer: usize,
        x: Rows,
        kept: &Kept,
        dx: Rows,
        s: &Backward,
        received: ContextGradient,
    ) {
        let (query, kv) = (self.base.config.query_width(), self.base.config.kv_width());
        exec.zero(s.d_qkv.region());
        exec.zero(dx.region());
        exec.add_rows(s.d_qkv, query, received.keys, kv, false);
        exec.add_rows(s.d_qkv, query + kv, received.values, kv, false);
        self.project_back(exec, layer, x, kept, dx, s);
    }
}

/// Keys and values among the columns of `qkv`.
pub(super) fn context_of(config: &crate::config::ModelConfig, qkv: Rows) -> Context {
    let (query, kv) = (config.query_width(), config.kv_width());
    Context {
        keys: qkv.columns(query, kv),
        values: qkv.columns(query + kv, kv),
    }
}
