//! All layers of a pass, forward and backward, and what is kept in between.
//!
//! Layer inputs may live in host memory: two buffers on the card are filled and emptied by the copy stream
//! while the layers run. A prefix that runs alone keeps keys and values per layer for the rows after it.

use super::attention::ContextGradient;
use super::device::{Event, Pinned};
use super::exec::Exec;
use super::layer::{Kept, Run, context_of};
use super::memory::Rows;
use super::pass::Context;
use crate::config::ModelConfig;
use crate::train::Keeping;

/// How much of the forward stays for the backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Every activation.
    Everything,
    /// The input of each layer; the rest is computed again.
    Inputs,
    /// The same, in pinned host memory.
    Offloaded,
    /// Nothing: there is no backward.
    Nothing,
}

impl From<Keep> for Keeping {
    fn from(keep: Keep) -> Self {
        match keep {
            Keep::Everything | Keep::Nothing => Self::Everything,
            Keep::Inputs => Self::LayerInputs,
            Keep::Offloaded => Self::Host,
        }
    }
}

/// Moves layer inputs between the card and the host.
pub(super) struct Mover {
    pub(super) pinned: Pinned,
    /// Per buffer: written by the work, copied out, no longer read, copied in.
    pub(super) written: [Event; 2],
    pub(super) out: [Event; 2],
    pub(super) free: [Event; 2],
    pub(super) back: [Event; 2],
}

/// What a forward left.
pub(super) struct Tape {
    keep: Keep,
    inputs: Vec<Rows>,
    /// One a layer, or one for all.
    kept: Vec<Kept>,
    active: Rows,
    pub(super) hidden: Rows,
}

/// Keys and values of a prefix with their gradients, per layer.
pub(super) struct Contexts {
    pub(super) held: Vec<Rows>,
    pub(super) grads: Vec<ContextGradient>,
}

impl Contexts {
    /// Room for a prefix of `len` tokens; gradients start at zero.
    pub(super) fn take(exec: &mut Exec<'_>, config: &ModelConfig, len: usize, grads: bool) -> Self {
        let (layers, kv) = (config.layers, config.kv_width());
        let held = (0..layers).map(|_| exec.rows(len, 2 * kv)).collect();
        let count = if grads { layers } else { 0 };
        let grads = (0..count)
            .map(|_| {
                let region = exec.floats(2 * len * kv);
                exec.zero(region);
                ContextGradient::over(region)
            })
            .collect();
        Self { held, grads }
    }

    pub(super) fn context(&self, layer: usize) -> Context {
        let rows = self.held[layer];
        let kv = rows.cols / 2;
        Context {
            keys: rows.columns(0, kv),
            values: rows.columns(kv, kv),
        }
    }
}

impl Tape {
    /// Takes the buffers of a pass.
    fn take(exec: &mut Exec<'_>, run: &Run<'_>, keep: Keep) -> Self {
        let (layers, hidden) = (run.base.config.layers, run.base.config.hidden);
        let buffers = if matches!(keep, Keep::Everything | Keep::Inputs) {
            layers + 1
        } else {
            2
        };
        let inputs: Vec<Rows> = (0..buffers)
            .map(|_| exec.rows(run.pass.tokens, hidden))
            .collect();
        let sets = if keep == Keep::Everything { layers } else { 1 };
        let kept = (0..sets).map(|_| run.kept(exec)).collect();
        let active = run.active(exec);
        let hidden = inputs[layers % buffers];
        Self {
            keep,
            inputs,
            kept,
            active,
            hidden,
        }
    }

    fn input(&self, layer: usize) -> Rows {
        self.inputs[layer % self.inputs.len()]
    }

    fn kept(&self, layer: usize) -> &Kept {
        &self.kept[layer % self.kept.len()]
    }
}

/// Embeds and runs all layers.
pub(super) fn forward(
    exec: &mut Exec<'_>,
    run: &Run<'_>,
    keep: Keep,
    contexts: Option<&Contexts>,
    mover: Option<&Mover>,
) -> Tape {
    let tape = Tape::take(exec, run, keep);
    let layers = run.base.config.layers;
    exec.embed(run.base.embedding, run.pass.ids, tape.input(0));
    tape.move_out(exec, 0, mover);
    for layer in 0..layers {
        tape.wait_out(exec, layer, mover);
        let context = contexts.map(|c| c.context(layer));
        run.forward(
            exec,
            layer,
            tape.input(layer),
            tape.input(layer + 1),
            tape.kept(layer),
            context,
            tape.active,
        );
        if layer + 1 < layers {
            tape.move_out(exec, layer + 1, mover);
        }
    }
    tape
}

/// The same where nothing is kept: `each` sees the queries, keys and values of each layer before the next one
/// overwrites them. Gives the hidden state.
pub(super) fn forward_each(
    exec: &mut Exec<'_>,
    run: &Run<'_>,
    contexts: Option<&Contexts>,
    each: &mut dyn FnMut(&mut Exec<'_>, usize, Rows),
) -> Rows {
    let tape = Tape::take(exec, run, Keep::Nothing);
    exec.embed(run.base.embedding, run.pass.ids, tape.input(0));
    for layer in 0..run.base.config.layers {
        let (x, y, kept) = (tape.input(layer), tape.input(layer + 1), tape.kept(layer));
        let context = contexts.map(|c| c.context(layer));
        run.forward(exec, layer, x, y, kept, context, tape.active);
        each(exec, layer, kept.qkv);
    }
    tape.hidden
}

/// From the gradient of the hidden state in `dx`, which becomes scratch, to the adapter's gradients.
pub(super) fn backward(
    exec: &mut Exec<'_>,
    run: &Run<'_>,
    tape: &Tape,
    dx: Rows,
    contexts: Option<&Contexts>,
    mover: Option<&Mover>,
) {
    let scratch = run.backward_scratch(exec, tape.active);
    for layer in (0..run.base.config.layers).rev() {
        tape.fetch(exec, layer, run.base.config.layers, mover);
        let context = contexts.map(|c| c.context(layer));
        let kept = tape.kept(layer);
        if tape.keep != Keep::Everything {
            run.again(exec, layer, tape.input(layer), kept, context, tape.active);
        }
        let outside = contexts.map(|c| (c.context(layer), c.grads.get(layer).copied()));
        run.backward(
            exec,
            layer,
            tape.input(layer),
            kept,
            dx,
            &scratch,
            outside,
            None,
        );
        exec.passed(layer);
    }
}

/// Runs a prefix alone; its top layer stops after the projections.
pub(super) fn forward_prefix(
    exec: &mut Exec<'_>,
    run: &Run<'_>,
    keep: Keep,
    contexts: &Contexts,
) -> Tape {
    let tape = Tape::take(exec, run, keep);
    let top = run.base.config.layers - 1;
    exec.embed(run.base.embedding, run.pass.ids, tape.input(0));
    for layer in 0..=top {
        let (x, kept) = (tape.input(layer), tape.kept(layer));
        if layer == top {
            run.project_only(exec, layer, x, kept);
        } else {
            run.forward(
                exec,
                layer,
                x,
                tape.input(layer + 1),
                kept,
                None,
                tape.active,
            );
        }
        let context = context_of(&run.base.config, kept.qkv);
        let held = contexts.held[layer];
        let kv = run.base.config.kv_width();
        exec.copy(held.columns(0, kv), context.keys);
        exec.copy(held.columns(kv, kv), context.values);
    }
    tape
}

/// From the gradients of a prefix's keys and values to the adapter's gradients.
pub(super) fn backward_prefix(
    exec: &mut Exec<'_>,
    run: &Run<'_>,
    tape: &Tape,
    contexts: &Contexts,
) {
    let dx = exec.rows(run.pass.tokens, run.base.config.hidden);
    let scratch = run.backward_scratch(exec, tape.active);
    let top = run.base.config.layers - 1;
    for layer in (0..=top).rev() {
        let (x, kept) = (tape.input(layer), tape.kept(layer));
        let received = contexts.grads[layer];
        if layer == top {
            if tape.keep != Keep::Everything {
                run.project_only(exec, layer, x, kept);
            }
            run.project_only_back(exec, layer, x, kept, dx, &scratch, received);
            exec.passed(layer);
            continue;
        }
        if tape.keep != Keep::Everything {
            run.again(exec, layer, x, kept, None, tape.active);
        }
        run.backward(exec, layer, x, kept, dx, &scratch, None, Some(received));
        exec.passed(layer);
    }
}

impl Tape {
    fn mover<'m>(&self, mover: Option<&'m Mover>) -> Option<&'m Mover> {
        mover.filter(|_| self.keep == Keep::Offloaded)
    }

    /// Starts copying a layer's input to the host.
    fn move_out(&self, exec: &mut Exec<'_>, layer: usize, mover: Option<&Mover>) {
        let Some(mover) = self.mover(mover) else {
            return;
        };
        let (slot, region) = (layer % 2, self.input(layer).region());
        exec.go(|d| {
            d.record(mover.written[slot], false)?;
            d.wait_for(mover.written[slot], true)?;
            mover.pinned.copy(d, layer * region.bytes, region, true)?;
            d.record(mover.out[slot], true)
        });
    }

    /// Before `layer` writes its output: the input that lay there must have left.
    fn wait_out(&self, exec: &mut Exec<'_>, layer: usize, mover: Option<&Mover>) {
        let Some(mover) = self.mover(mover) else {
            return;
        };
        if layer > 0 {
            exec.go(|d| d.wait_for(mover.out[(layer + 1) % 2], false));
        }
    }

    /// Before the backward of `layer`: its input must be there, and the one below sets out.
    fn fetch(&self, exec: &mut Exec<'_>, layer: usize, layers: usize, mover: Option<&Mover>) {
        let Some(mover) = self.mover(mover) else {
            return;
        };
        if layer > 0 {
            let (slot, region) = ((layer - 1) % 2, self.input(layer - 1).region());
            exec.go(|d| {
                d.record(mover.free[slot], false)?;
                d.wait_for(mover.free[slot], true)?;
                mover
                    .pinned
                    .copy(d, (layer - 1) * region.bytes, region, false)?;
                d.record(mover.back[slot], true)
            });
        }
        if layer + 1 < layers {
            exec.go(|d| d.wait_for(mover.back[layer % 2], false));
        }
    }
}
