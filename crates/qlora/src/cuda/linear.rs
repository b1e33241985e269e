//! One site of one layer: frozen weights and adapter as one product, `y = [x | u] . [W | B]^T`, and its
//! backward (the formulas stand in nn/linear.rs).
//!
//! Weights are decoded into one scratch buffer just before they are used, unless they stay decoded; `B` is written
//! into the last columns. Adapter columns are padded with zeros to whole tiles.
//!
//! With dropout the adapter sees masked inputs. Whoever makes the inputs masks them as well, and whoever takes their
//! gradient brings the adapter's part of it through the mask, so that no pass over them is made for dropout; only
//! the output projection, whose neighbours are the attention, masks by itself ([`Ready::mask_input`],
//! [`Ready::mask_back`]).

use std::cell::Cell;

use kernels::params::{self, Mask};
use kernels::{Grid, Kernel};

use super::base::{Base, PAD, Weight, site_shape};
use super::blas::Product;
use super::exec::Exec;
use super::memory::{Region, Rows};
use crate::nn::adapter::{Adapter, Site, Slot};

/// Where the pairs of a site stand in the adapter's values.
pub(super) struct Pairs {
    /// First value of A; all A of the site are one matrix.
    pub(super) a: usize,
    /// Rows of that matrix.
    pub(super) a_rows: usize,
    /// Per stacked map: first value of B and first adapter column.
    pub(super) b: [Option<(usize, usize)>; 3],
    pub(super) r: usize,
    pub(super) scale: f32,
}

/// The shape of a site.
pub(super) struct SitePlan {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    /// Adapter columns with their padding.
    pub(super) pad: usize,
    /// Row after the last of each stacked map.
    pub(super) ends: [usize; 3],
    pub(super) pairs: Option<Pairs>,
    /// Numbers layer and site, for dropout.
    place: u64,
}

impl SitePlan {
    /// Every site of every layer; without an adapter they are the base's alone.
    pub(super) fn all(base: &Base, adapter: Option<&Adapter>) -> Vec<Self> {
        (0..base.config.layers)
            .flat_map(|layer| Site::ALL.map(|site| Self::new(base, adapter, layer, site)))
            .collect()
    }

    fn new(base: &Base, adapter: Option<&Adapter>, layer: usize, site: Site) -> Self {
        let (outputs, inputs) = site_shape(&base.config, site);
        let mut ends = [outputs; 3];
        let mut row = 0;
        for (end, target) in ends.iter_mut().zip(site.targets()) {
            row += target.shape(&base.config).0;
            *end = row;
        }
        let pairs = adapter.and_then(|adapter| {
            let slots = adapter.site(layer, site);
            let first = slots.first()?;
            Some(pairs(site, slots, first))
        });
        let pad = pairs.as_ref().map_or(0, |p| p.a_rows.next_multiple_of(PAD));
        let place = (layer * Site::ALL.len() + site as usize) as u64;
        Self {
            outputs,
            inputs,
            pad,
            ends,
            pairs,
            place,
        }
    }

    /// Columns of the site's input: the inputs, then `u`.
    pub(super) fn width(&self) -> usize {
        self.inputs + self.pad
    }

    /// Columns that hold the input of this site in every layer: an adapter may leave some layers out.
    pub(super) fn widest(plans: &[Self], site: Site) -> usize {
        let layers = plans.iter().skip(site as usize).step_by(Site::ALL.len());
        layers.map(Self::width).max().unwrap_or(0)
    }
}

/// All pairs of a site have the rank and scale of the first (see refuse.rs).
fn pairs(site: Site, slots: &[Slot], first: &Slot) -> Pairs {
    let r = first.r;
    let mut b = [None; 3];
    for (index, target) in site.targets().iter().enumerate() {
        if let Some(place) = slots.iter().position(|s| s.target == *target) {
            b[index] = Some((slots[place].b.start, place * r));
        }
    }
    Pairs {
        a: first.a.start,
        a_rows: slots.len() * r,
        b,
        r,
        scale: first.scale,
    }
}

/// The masks of one pass.
#[derive(Clone, Copy)]
pub(super) struct Masks {
    /// One u64 a token.
    pub(super) keys: Region,
    pub(super) rate: f32,
}

/// Buffers that every site uses in turn.
#[derive(Clone, Copy)]
pub(super) struct Scratch {
    weight: Region,
    down: Region,
    /// Tokens by the widest input with its adapter columns, with dropout only.
    masked: Option<Region>,
}

impl Scratch {
    pub(super) fn take(
        exec: &mut Exec<'_>,
        sites: &[SitePlan],
        tokens: usize,
        dropout: bool,
    ) -> Self {
        let size = exec.element.size();
        let most = |f: &dyn Fn(&SitePlan) -> usize| sites.iter().map(f).max().unwrap_or(0);
        let weight = exec.arena.take(size * most(&|s| s.outputs * s.width()));
        let down = exec.arena.take(size * most(&|s| s.pad * s.inputs));
        let masked = dropout.then(|| exec.arena.take(size * tokens * most(&|s| s.width())));
        Self {
            weight,
            down,
            masked,
        }
    }
}

/// A site that stays decoded.
pub(super) struct Held {
    /// Weights, and the adapter's B in the last columns.
    pub(super) weight: Rows,
    /// The adapter's A, padded.
    pub(super) down: Rows,
    /// B and A are those of this step.
    pub(super) current: Cell<bool>,
}

/// A site with its weights decoded, until the next one is.
pub(super) struct Ready<'a> {
    plan: &'a SitePlan,
    /// Outputs by width.
    weight: Rows,
    /// A, padded: `pad x inputs`.
    down: Option<Rows>,
    masked: Option<Region>,
}

/// Decodes a site, if it is not `held` decoded. `values` are the adapter's.
pub(super) fn ready<'a>(
    exec: &mut Exec<'_>,
    plan: &'a SitePlan,
    weight: &Weight,
    held: Option<&Held>,
    values: Region,
    scratch: Scratch,
) -> Ready<'a> {
    let element = exec.element;
    let rows = match (weight, held) {
        (Weight::Dense(rows), _) => rows.columns(0, plan.width()),
        (_, Some(held)) => held.weight,
        (weight, None) => {
            let rows = Rows::shaped(scratch.weight, plan.outputs, plan.width(), element);
            weight.decode(exec, rows);
            rows
        }
    };
    let down = plan.pairs.as_ref().map(|pairs| {
        let down = held.map_or_else(
            || Rows::shaped(scratch.down, plan.pad, plan.inputs, element),
            |held| held.down,
        );
        // A step that is only counted writes nothing.
        let runs = exec.device.is_some();
        if !held.is_some_and(|held| runs && held.current.replace(true)) {
            pairs.write_up(exec, plan, rows.columns(plan.inputs, plan.pad), values);
            pairs.write_down(exec, down, values);
        }
        down
    });
    Ready {
        plan,
        weight: rows,
        down,
        masked: scratch.masked,
    }
}

impl Pairs {
    fn write_down(&self, exec: &mut Exec<'_>, out: Rows, values: Region) {
        let p = params::LoraDown {
            a: values.at + 4 * self.a as u64,
            out: out.at,
            rows: self.a_rows as u32,
            width: out.cols as u32,
        };
        let grid = Grid::cover(out.cols / 8, 256, out.rows);
        exec.launch(Kernel::LoraDown, grid, &p);
    }

    fn write_up(&self, exec: &mut Exec<'_>, plan: &SitePlan, out: Rows, values: Region) {
        let p = params::LoraUp {
            b: self
                .b
                .map(|b| b.map_or(0, |(at, _)| values.at + 4 * at as u64)),
            out: out.at,
            ends: plan.ends.map(|e| e as u32),
            columns: self.b.map(|b| b.map_or(0, |(_, column)| column as u32)),
            r: self.r as u32,
            pad: plan.pad as u32,
            stride: out.stride as u32,
            unused: 0,
        };
        // One thread eight columns.
        let vectors = plan.pad / 8;
        let rows = (256 / vectors).max(1);
        let grid = Grid {
            blocks: (plan.outputs.div_ceil(rows), 1),
            threads: (vectors, rows),
            shared: 0,
        };
        exec.launch(Kernel::LoraUp, grid, &p);
    }
}

impl SitePlan {
    /// This site's masks; none without dropout, or where no adapter looks.
    pub(super) fn mask(&self, bits: Region, masks: Option<Masks>) -> Option<Mask> {
        let masks = masks.filter(|_| self.pairs.is_some())?;
        let (threshold, keep) = crate::ops::dropout::draws(masks.rate);
        Some(Mask {
            bits: bits.at,
            keys: masks.keys.at,
            place: crate::ops::dropout::mix(self.place),
            threshold,
            keep,
        })
    }
}

impl Ready<'_> {
    /// Scratch for a masked input, or for the adapter's part of its gradient: `tokens` rows of `cols`.
    pub(super) fn spare(&self, exec: &Exec<'_>, tokens: usize, cols: usize) -> Rows {
        let region = self.masked.expect("taken with dropout");
        Rows::shaped(region, tokens, cols, exec.element)
    }

    fn dropout(&self, exec: &mut Exec<'_>, kernel: Kernel, x: Rows, out: Rows, mask: Mask) {
        let p = params::Dropout {
            x: x.at,
            out: out.at,
            mask,
            width: self.plan.inputs as u32,
            x_stride: x.stride as u32,
            out_stride: out.stride as u32,
            unused: 0,
        };
        exec.launch(kernel, Grid::cover(self.plan.inputs / 8, 256, x.rows), &p);
    }

    /// `x` as the adapter sees it, in scratch; the mask is drawn, or `again` read from its bits.
    pub(super) fn mask_input(
        &self,
        exec: &mut Exec<'_>,
        x: Rows,
        mask: Option<Mask>,
        again: bool,
    ) -> Rows {
        let Some(mask) = mask else { return x };
        let out = self.spare(exec, x.rows, x.cols);
        let kernel = if again {
            Kernel::DropoutApply
        } else {
            Kernel::DropoutDraw
        };
        self.dropout(exec, kernel, x, out, mask);
        out
    }

    /// Adds the adapter's part of a gradient to it, through the mask.
    pub(super) fn mask_back(&self, exec: &mut Exec<'_>, through: Option<(Mask, Rows)>, dx: Rows) {
        if let Some((mask, part)) = through {
            self.dropout(exec, Kernel::DropoutAdd, part, dx, mask);
        }
    }

    /// Fills the adapter columns `u` from what the adapter sees of the inputs.
    pub(super) fn down(&self, exec: &mut Exec<'_>, seen: Rows, u: Rows) {
        let (Some(pairs), Some(a)) = (&self.plan.pairs, self.down) else {
            return;
        };
        exec.product(&Product {
            a: seen,
            a_t: false,
            b: a,
            b_t: true,
            out: u,
            alpha: pairs.scale,
            add: None,
        });
    }

    /// `y = x W^T + adapter (+ add)`; the adapter columns of `x` are filled.
    pub(super) fn forward(&self, exec: &mut Exec<'_>, x: Rows, y: Rows, add: Option<Rows>) {
        exec.product(&Product {
            a: x.columns(0, self.plan.width()),
            a_t: false,
            b: self.weight,
            b_t: true,
            out: y,
            alpha: 1.0,
            add,
        });
    }

    /// The input's gradient in the first columns of `dx`, `du` in the rest. Without `want_input` the first
    /// columns are left alone. With a mask, the adapter's part of the gradient is given back: it has yet to go through.
    pub(super) fn input_back(
        &self,
        exec: &mut Exec<'_>,
        dy: Rows,
        dx: Rows,
        mask: Option<Mask>,
        want_input: bool,
    ) -> Option<(Mask, Rows)> {
        let (inputs, pad) = (self.plan.inputs, self.plan.pad);
        let (from, cols) = if want_input {
            (0, self.plan.width())
        } else {
            (inputs, pad)
        };
        exec.product(&Product {
            a: dy,
            a_t: false,
            b: self.weight.columns(from, cols),
            b_t: false,
            out: dx.columns(from, cols),
            alpha: 1.0,
            add: None,
        });
        let (Some(pairs), Some(a), true) = (&self.plan.pairs, self.down, want_input) else {
            return None;
        };
        let whole = dx.columns(0, inputs);
        let out = mask.map_or(whole, |_| self.spare(exec, dx.rows, inputs));
        exec.product(&Product {
            a: dx.columns(inputs, pad),
            a_t: false,
            b: a,
            b_t: false,
            out,
            alpha: pairs.scale,
            add: mask.is_none().then_some(whole),
        });
        Some((mask?, out))
    }

    /// Adds the pairs' gradients. `seen` is what the adapter saw of the inputs, `u` its columns, `du` their gradient.
    pub(super) fn adapter_back(
        &self,
        exec: &mut Exec<'_>,
        seen: Rows,
        u: Rows,
        dy: Rows,
        du: Rows,
        grads: Region,
    ) {
        let Some(pairs) = &self.plan.pairs else {
            return;
        };
        let float = |at: usize, rows: usize, cols: usize| {
            Rows::shaped(
                grads.part(4 * at, 4 * rows * cols),
                rows,
                cols,
                kernels::Element::F32,
            )
        };
        let a = float(pairs.a, pairs.a_rows, self.plan.inputs);
        exec.product(&Product {
            a: du.columns(0, pairs.a_rows),
            a_t: true,
            b: seen,
            b_t: false,
            out: a,
            alpha: pairs.scale,
            add: Some(a),
        });
        let mut start = 0;
        for (b, end) in pairs.b.iter().zip(self.plan.ends) {
            if let Some((at, column)) = *b {
                let out = float(at, end - start, pairs.r);
                exec.product(&Product {
                    a: dy.columns(start, end - start),
                    a_t: true,
                    b: u.columns(column, pairs.r),
                    b_t: false,
                    out,
                    alpha: 1.0,
                    add: Some(out),
                });
            }
            start = end;
        }
    }
}
