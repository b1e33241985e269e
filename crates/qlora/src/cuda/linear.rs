//! One site of one layer: frozen weights and adapter as one product, `y = [x | u] . [W | B]^T`, and its
//! backward (the formulas stand in nn/linear.rs).
//!
//! Weights are decoded into one scratch buffer just before they are used; `B` is written into its last
//! columns. Adapter columns are padded with zeros to whole tiles.

use kernels::{Grid, Kernel, params};

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
    /// Tokens by inputs, with dropout only.
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
        let masked = dropout.then(|| exec.arena.take(size * tokens * most(&|s| s.inputs)));
        Self {
            weight,
            down,
            masked,
        }
    }
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

/// Decodes a site. `values` are the adapter's.
pub(super) fn ready<'a>(
    exec: &mut Exec<'_>,
    plan: &'a SitePlan,
    weight: &Weight,
    values: Region,
    scratch: Scratch,
) -> Ready<'a> {
    let element = exec.element;
    let rows = match weight {
        Weight::Dense(rows) => rows.columns(0, plan.width()),
        Weight::Nf4(parts) => {
            let rows = Rows::shaped(scratch.weight, plan.outputs, plan.width(), element);
            let mut from = 0;
            for part in parts {
                part.decode(exec, rows.slice(from, part.outputs));
                from += part.outputs;
            }
            rows
        }
    };
    let down = plan.pairs.as_ref().map(|pairs| {
        pairs.write_up(exec, plan, rows.columns(plan.inputs, plan.pad), values);
        let down = Rows::shaped(scratch.down, plan.pad, plan.inputs, element);
        let p = params::LoraDown {
            a: values.at + 4 * pairs.a as u64,
            out: down.at,
            rows: pairs.a_rows as u32,
            width: plan.inputs as u32,
        };
        exec.launch(
            Kernel::LoraDown,
            Grid::cover(plan.inputs / 8, 256, plan.pad),
            &p,
        );
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
        let grid = Grid {
            blocks: (plan.outputs.div_ceil(4), 1),
            threads: (64, 4),
            shared: 0,
        };
        exec.launch(Kernel::LoraUp, grid, &p);
    }
}

impl Ready<'_> {
    fn dropout(
        &self,
        exec: &mut Exec<'_>,
        kernel: Kernel,
        x: Rows,
        out: Rows,
        bits: Region,
        masks: Masks,
    ) {
        let p = params::Dropout {
            x: x.at,
            out: out.at,
            bits: bits.at,
            keys: masks.keys.at,
            place: crate::ops::dropout::mix(self.plan.place),
            width: self.plan.inputs as u32,
            x_stride: x.stride as u32,
            out_stride: out.stride as u32,
            threshold: (f64::from(masks.rate) * 4_294_967_296.0) as u32,
            keep: 1.0 / (1.0 - masks.rate),
            unused: 0,
        };
        exec.launch(kernel, Grid::cover(self.plan.inputs / 8, 256, x.rows), &p);
    }

    /// `x` as the adapter sees it; masks are drawn once and then reread from `bits`.
    fn seen(
        &self,
        exec: &mut Exec<'_>,
        x: Rows,
        bits: Region,
        masks: Option<Masks>,
        draw: bool,
    ) -> Rows {
        let (Some(masks), Some(masked)) = (masks, self.masked) else {
            return x;
        };
        let out = Rows::shaped(masked, x.rows, x.cols, exec.element);
        let kernel = if draw {
            Kernel::DropoutDraw
        } else {
            Kernel::DropoutApply
        };
        self.dropout(exec, kernel, x, out, bits, masks);
        out
    }

    /// Fills the adapter columns of `x`, whose first columns hold the inputs.
    pub(super) fn down(&self, exec: &mut Exec<'_>, x: Rows, bits: Region, masks: Option<Masks>) {
        let (Some(pairs), Some(a)) = (&self.plan.pairs, self.down) else {
            return;
        };
        let source = self.seen(exec, x.columns(0, self.plan.inputs), bits, masks, true);
        exec.product(&Product {
            a: source,
            a_t: false,
            b: a,
            b_t: true,
            out: x.columns(self.plan.inputs, self.plan.pad),
            alpha: pairs.scale,
            add: None,
        });
    }

    /// `y = x W^T + adapter (+ add)`; `x` has been through [`Ready::down`].
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
    /// columns are left alone.
    pub(super) fn input_back(
        &self,
        exec: &mut Exec<'_>,
        dy: Rows,
        dx: Rows,
        bits: Region,
        masks: Option<Masks>,
        want_input: bool,
    ) {
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
            return;
        };
        let du = dx.columns(inputs, pad);
        let into = dx.columns(0, inputs);
        let mut product = Product {
            a: du,
            a_t: false,
            b: a,
            b_t: false,
            out: into,
            alpha: pairs.scale,
            add: Some(into),
        };
        let (Some(masks), Some(masked)) = (masks, self.masked) else {
            exec.product(&product);
            return;
        };
        let through = Rows::shaped(masked, dx.rows, inputs, exec.element);
        product.out = through;
        product.add = None;
        exec.product(&product);
        self.dropout(exec, Kernel::DropoutAdd, through, into, bits, masks);
    }

    /// Adds the pairs' gradients. `x` are the site's inputs, `u` its adapter columns, `du` their gradient.
    pub(super) fn adapter_back(
        &self,
        exec: &mut Exec<'_>,
        x: Rows,
        u: Rows,
        dy: Rows,
        du: Rows,
        grads: Region,
        bits: Region,
        masks: Option<Masks>,
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
        let source = self.seen(exec, x, bits, masks, false);
        let a = float(pairs.a, pairs.a_rows, self.plan.inputs);
        exec.product(&Product {
            a: du.columns(0, pairs.a_rows),
            a_t: true,
            b: source,
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
