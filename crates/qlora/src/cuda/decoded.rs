//! Layers whose four-bit weights stay decoded, and where they lie.
//!
//! Promises: the values are those that are decoded before each product otherwise; what the adapter adds to them is
//! written again after it has changed. It must not know when there is memory for them.

use std::cell::Cell;

use super::base::{Base, Weight};
use super::linear::{Held, SitePlan};
use super::memory::{ALIGNMENT, Region, Rows};
use crate::nn::adapter::Site;

/// The first layers, decoded.
pub(super) struct Decoded {
    block: Region,
    /// Layer by layer, in the order of [`Site::ALL`]; none where a weight lies dense.
    sites: Vec<Option<Held>>,
}

impl Decoded {
    pub(super) fn over(block: Region, sites: Vec<Option<Held>>) -> Self {
        Self { block, sites }
    }

    pub(super) fn block(&self) -> Region {
        self.block
    }

    pub(super) fn site(&self, layer: usize, site: Site) -> Option<&Held> {
        self.sites
            .get(layer * Site::ALL.len() + site as usize)?
            .as_ref()
    }

    /// The adapter has changed.
    pub(super) fn outdate(&self) {
        for held in self.sites.iter().flatten() {
            held.current.set(false);
        }
    }
}

/// Where the sites of the first `layers` would lie in a block from `at` on, and the block's bytes.
pub(super) fn places(
    base: &Base,
    sites: &[SitePlan],
    layers: usize,
    at: u64,
) -> (Vec<Option<Held>>, usize) {
    let element = base.element;
    let mut bytes = 0;
    let mut take = |rows: usize, cols: usize| {
        let size = rows * cols * element.size();
        let region = Region {
            at: at + bytes as u64,
            bytes: size,
        };
        bytes += size.next_multiple_of(ALIGNMENT);
        Rows::shaped(region, rows, cols, element)
    };
    let mut places = Vec::new();
    for layer in 0..layers {
        for site in Site::ALL {
            let plan = &sites[layer * Site::ALL.len() + site as usize];
            let four_bits = matches!(base.weight(layer, site), Weight::Nf4(_));
            places.push(four_bits.then(|| Held {
                weight: take(plan.outputs, plan.width()),
                down: take(plan.pad, plan.inputs),
                current: Cell::new(false),
            }));
        }
    }
    (places, bytes)
}
