//! One token a row through all layers, from the ids on the card to the next ids on the card.
//!
//! Four-bit weights are decoded on their way into the products; where they are laid out otherwise, or the
//! engine works in f32, they are decoded first and cuBLASLt multiplies. Both leave f32 sums, and the same
//! kernels go on from there. Nothing here depends on the step: ids, lengths and slots lie on the card.

use kernels::{Element, Grid, Kernel, decode, params};

use super::decoder::Contexts;
use super::decoders;
use super::exec::Exec;
use super::generate::Tuned;
use super::head;
use super::linear::{Pairs, Scratch, SitePlan, ready};
use super::memory::{Region, Rows};
use crate::nn::adapter::Site;

/// What rows are made of between steps: the ids to read, how far each has come, and its keys and values.
pub(super) struct State {
    /// Per row: the id to read next.
    pub(super) ids: Region,
    /// Per row: tokens behind the prefix whose keys and values are cached.
    pub(super) lens: Region,
    /// Per row: where its cache lies.
    pub(super) slots: Region,
    /// Per slot and token: the id chosen after it.
    pub(super) history: Region,
    /// Per layer: slots by capacity rows of keys, then values.
    pub(super) caches: Vec<Rows>,
    /// Tokens a slot holds.
    pub(super) capacity: usize,
}

impl State {
    pub(super) fn take(
        exec: &mut Exec<'_>,
        tuned: &Tuned<'_>,
        rows: usize,
        capacity: usize,
    ) -> Self {
        let config = &tuned.base.config;
        let mut words = |count: usize| exec.arena.take(4 * count);
        let [ids, lens, slots] = [words(rows), words(rows), words(rows)];
        let history = words(rows * capacity);
        let caches = (0..config.layers)
            .map(|_| exec.rows(rows * capacity, 2 * config.kv_width()))
            .collect();
        Self {
            ids,
            lens,
            slots,
            history,
            caches,
            capacity,
        }
    }

    /// Chooses each row's next id from its logits; every row is then one token longer.
    pub(super) fn pick(&self, exec: &mut Exec<'_>, logits: Rows) {
        let p = params::ArgMax {
            logits: logits.at,
            ids: self.ids.at,
            lens: self.lens.at,
            slots: self.slots.at,
            history: self.history.at,
            vocab: logits.cols as u32,
            stride: logits.stride as u32,
            capacity: self.capacity as u32,
            unused: 0,
        };
        exec.launch(Kernel::ArgMax, Grid::row(logits.rows, 512), &p);
    }
}

/// Scratch of a step, for a batch of at most so many rows.
pub(super) struct Step<'a> {
    tuned: &'a Tuned<'a>,
    contexts: Option<&'a Contexts>,
    prefix: usize,
    x: Rows,
    middle: Rows,
    normed: Region,
    inv: Region,
    q: Rows,
    attended: Rows,
    active: Rows,
    /// Sums of a product, by part of its inner length.
    sums: Region,
    u: Region,
    /// Scores and values of chunks of keys.
    chunks: Region,
    final_normed: Rows,
    pub(super) logits: Rows,
    /// For weights that are decoded before the product.
    scratch: Option<Scratch>,
}

impl<'a> Step<'a> {
    pub(super) fn take(
        exec: &mut Exec<'_>,
        tuned: &'a Tuned<'a>,
        contexts: Option<&'a Contexts>,
        prefix: usize,
        state: &State,
        rows: usize,
    ) -> Self {
        let config = &tuned.base.config;
        let size = exec.element.size();
        let processors = exec.card.multiprocessors as usize;
        let most = |f: &dyn Fn(&SitePlan) -> usize| tuned.sites.iter().map(f).max().unwrap_or(0);
        let sums = most(&|s| {
            let cut = |rows| rows * decode::splits(rows, s.outputs, s.inputs, processors);
            s.outputs * cut(rows).max(cut(rows.min(2 * decode::GROUP)))
        });
        let chunks = decode::chunks(prefix) + decode::chunks(state.capacity);
        let wide = most(&SitePlan::width);
        let width = |site| SitePlan::widest(tuned.sites, site);
        let decoded = (0..config.layers).any(|layer| {
            Site::ALL
                .iter()
                .any(|site| !tuned.narrow(layer, *site, rows))
        });
        Self {
            tuned,
            contexts,
            prefix,
            x: exec.rows(rows, config.hidden),
            middle: exec.rows(rows, config.hidden),
            normed: exec.arena.take(size * rows * wide),
            inv: exec.floats(rows),
            q: exec.rows(rows, config.query_width()),
            attended: exec.rows(rows, width(Site::Output)),
            active: exec.rows(rows, width(Site::Down)),
            sums: exec.floats(sums),
            u: exec.floats(rows * most(&|s| s.pairs.as_ref().map_or(0, |p| p.a_rows))),
            chunks: exec.floats(rows * config.heads * chunks * (config.head_dim + 2)),
            final_normed: exec.rows(rows, config.hidden),
            logits: exec.arena.rows(rows, config.vocab, Element::F32),
            scratch: decoded.then(|| Scratch::take(exec, tuned.sites, rows, false)),
        }
    }

    /// Reads one id a row and picks the next, for the first `rows` rows.
    pub(super) fn run(&self, exec: &mut Exec<'_>, state: &State, rows: usize) {
        let base = self.tuned.base;
        exec.embed(base.embedding, state.ids, self.x.slice(0, rows));
        for layer in 0..base.config.layers {
            self.attend(exec, state, layer, rows);
            self.think(exec, layer, rows);
        }
        let logits = self.logits.slice(0, rows);
        let normed = (self.final_normed.slice(0, rows), self.inv);
        head::logits(exec, base, self.x.slice(0, rows), None, normed, logits);
        state.pick(exec, logits);
    }

    /// From `x` to `middle`: norm, projections, attention, output.
    fn attend(&self, exec: &mut Exec<'_>, state: &State, layer: usize, rows: usize) {
        let (base, config) = (self.tuned.base, &self.tuned.base.config);
        let (x, middle) = (self.x.slice(0, rows), self.middle.slice(0, rows));
        let attended = self.attended.slice(0, rows);
        let normed = self.normed(layer, Site::Qkv, rows, exec.element);
        let weight = base.layers[layer].attention_norm;
        exec.norm(x, weight, config.rms_eps, normed, self.inv, None, None);
        let sums = self.product(exec, layer, Site::Qkv, normed);
        let p = params::FinishTurn {
            sums,
            bias: base.layers[layer].qkv_bias.map_or(0, |b| b.at),
            table: base.rope.at,
            lens: state.lens.at,
            slots: state.slots.at,
            q: self.q.at,
            cache: state.caches[layer].at,
            q_stride: self.q.stride as u32,
            prefix: self.prefix as u32,
            heads: config.heads as u32,
            kv_heads: config.kv_heads as u32,
            head_dim: config.head_dim as u32,
            capacity: state.capacity as u32,
        };
        // Two fours of a head a thread: the lower half and the upper.
        let columns = (config.heads + 2 * config.kv_heads) * config.head_dim / 2;
        exec.launch(Kernel::FinishTurn, decode::finish_grid(columns, rows), &p);
        self.attention(exec, state, layer, attended);
        let sums = self.product(exec, layer, Site::Output, attended);
        add(exec, sums, x, middle);
    }

    fn attention(&self, exec: &mut Exec<'_>, state: &State, layer: usize, out: Rows) {
        let config = &self.tuned.base.config;
        let context = self.contexts.map(|c| c.context(layer));
        let behind = decode::chunks(self.prefix);
        let chunks = behind + decode::chunks(state.capacity);
        let p = params::DecodeAttention {
            q: self.q.at,
            prefix_keys: context.map_or(0, |c| c.keys.at),
            prefix_values: context.map_or(0, |c| c.values.at),
            cache: state.caches[layer].at,
            lens: state.lens.at,
            slots: state.slots.at,
            parts: self.chunks.at,
            q_stride: self.q.stride as u32,
            prefix_stride: context.map_or(0, |c| c.keys.stride as u32),
            prefix: self.prefix as u32,
            heads: config.heads as u32,
            kv_heads: config.kv_heads as u32,
            groups: decode::query_groups(config.heads, config.kv_heads) as u32,
            capacity: state.capacity as u32,
            window: decoders::first(config).window.unwrap_or(0) as u32,
            prefix_splits: behind as u32,
            splits: chunks as u32,
            scale: config.attention_scale,
            unused: 0,
        };
        let kernel = decode::attention(config.head_dim, exec.element)
            .expect("the head width was checked when the prompts came");
        let grid = decode::attention_grid(chunks, out.rows, config.heads, config.kv_heads);
        exec.launch(kernel, grid, &p);
        let p = params::DecodeMerge {
            parts: self.chunks.at,
            lens: state.lens.at,
            out: out.at,
            out_stride: out.stride as u32,
            heads: config.heads as u32,
            head_dim: config.head_dim as u32,
            prefix_splits: behind as u32,
            splits: chunks as u32,
            unused: 0,
        };
        let grid = decode::merge_grid(out.rows, config.heads, config.head_dim);
        exec.launch(Kernel::DecodeMerge, grid, &p);
    }

    /// From `middle` to `x`: norm, gate and up, activation, down.
    fn think(&self, exec: &mut Exec<'_>, layer: usize, rows: usize) {
        let (base, config) = (self.tuned.base, &self.tuned.base.config);
        let (x, middle) = (self.x.slice(0, rows), self.middle.slice(0, rows));
        let active = self.active.slice(0, rows);
        let normed = self.normed(layer, Site::GateUp, rows, exec.element);
        let weight = base.layers[layer].mlp_norm;
        exec.norm(middle, weight, config.rms_eps, normed, self.inv, None, None);
        let sums = self.product(exec, layer, Site::GateUp, normed);
        let p = params::FinishGate {
            sums,
            out: active.at,
            stride: active.stride as u32,
            width: config.intermediate as u32,
        };
        let grid = decode::finish_grid(config.intermediate, rows);
        exec.launch(Kernel::FinishGate, grid, &p);
        let sums = self.product(exec, layer, Site::Down, active);
        add(exec, sums, middle, x);
    }

    fn normed(&self, layer: usize, site: Site, rows: usize, element: Element) -> Rows {
        let width = self.tuned.plan(layer, site).width();
        Rows::shaped(self.normed, rows, width, element)
    }

    /// `x` times a site's weights and adapter, as sums that the next kernel adds up.
    fn product(&self, exec: &mut Exec<'_>, layer: usize, site: Site, x: Rows) -> params::Sums {
        let plan = self.tuned.plan(layer, site);
        let x = x.columns(0, plan.width());
        let weight = self.tuned.base.weight(layer, site);
        let processors = exec.card.multiprocessors as usize;
        if let (Some(parts), true) = (weight.narrow(), self.tuned.narrow(layer, site, x.rows)) {
            let splits = decode::splits(x.rows, plan.outputs, plan.inputs, processors);
            let lora = plan.pairs.as_ref().map(|pairs| self.down(plan, pairs, x));
            let blocks = lora.map_or(0, |l| decode::lora_blocks(x.rows, l.a_rows as usize));
            let beside = if decode::beside(x.rows) { blocks } else { 0 };
            if let (Some(lora), 0) = (&lora, beside) {
                exec.launch(Kernel::LoraRows, Grid::row(blocks, 256), lora);
            }
            let p = params::Nf4Rows {
                parts,
                lora: lora.unwrap_or_default(),
                x: x.at,
                sums: self.sums.at,
                inputs: plan.inputs as u32,
                outputs: plan.outputs as u32,
                x_stride: x.stride as u32,
                rows: x.rows as u32,
                splits: splits as u32,
                lora_blocks: beside as u32,
            };
            let (kernel, grid) = decode::rows(x.rows, plan.outputs, splits, beside);
            exec.launch(kernel, grid, &p);
            return self.sums_of(plan, splits, x.rows, plan.pairs.as_ref());
        }
        let scratch = self.scratch.expect("taken where a weight is decoded first");
        let site = ready(exec, plan, weight, None, self.tuned.values, scratch);
        let sums = Rows::shaped(self.sums, x.rows, plan.outputs, Element::F32);
        let u = x.columns(plan.inputs, plan.pad);
        site.down(exec, x.columns(0, plan.inputs), u);
        site.forward(exec, x, sums, None);
        self.sums_of(plan, 1, x.rows, None)
    }

    fn down(&self, plan: &SitePlan, pairs: &Pairs, x: Rows) -> params::LoraRows {
        params::LoraRows {
            a: self.tuned.values.at + 4 * pairs.a as u64,
            x: x.at,
            u: self.u.at,
            inputs: plan.inputs as u32,
            x_stride: x.stride as u32,
            a_rows: pairs.a_rows as u32,
            rows: x.rows as u32,
            scale: pairs.scale,
            unused: 0,
        }
    }

    /// `pairs`: those whose second half is still to be added.
    fn sums_of(
        &self,
        plan: &SitePlan,
        splits: usize,
        rows: usize,
        pairs: Option<&Pairs>,
    ) -> params::Sums {
        let values = self.tuned.values.at;
        let b = pairs.map_or([None; 3], |p| p.b);
        params::Sums {
            parts: self.sums.at,
            u: self.u.at,
            b: b.map(|b| b.map_or(0, |(at, _)| values + 4 * at as u64)),
            splits: splits as u32,
            rows: rows as u32,
            outputs: plan.outputs as u32,
            u_stride: pairs.map_or(0, |p| p.a_rows as u32),
            ends: plan.ends.map(|e| e as u32),
            columns: b.map(|b| b.map_or(0, |(_, column)| column as u32)),
            r: pairs.map_or(0, |p| p.r as u32),
            unused: 0,
        }
    }
}

/// `out = sums + to`.
fn add(exec: &mut Exec<'_>, sums: params::Sums, to: Rows, out: Rows) {
    let p = params::FinishAdd {
        sums,
        add: to.at,
        out: out.at,
        add_stride: to.stride as u32,
        stride: out.stride as u32,
    };
    exec.launch(
        Kernel::FinishAdd,
        decode::finish_grid(out.cols, out.rows),
        &p,
    );
}
