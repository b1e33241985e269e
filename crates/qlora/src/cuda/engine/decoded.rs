//! Layers whose four-bit weights stay decoded, in memory of the card that no step needs.
//!
//! Promises: the values are those that are decoded before each product otherwise, so no result knows the
//! difference; all of it is given back before a step, or an answer, would want for memory. It must not know what a step
//! does.

use std::cell::Cell;

use super::CudaEngine;
use crate::cuda::base::{Base, Weight};
use crate::cuda::exec::Exec;
use crate::cuda::linear::SitePlan;
use crate::cuda::memory::{ALIGNMENT, Region, Rows};
use crate::error::{Error, Result};
use crate::nn::adapter::Site;
use crate::train::StepPlan;

/// The first layers, decoded.
pub(in crate::cuda) struct Decoded {
    block: Region,
    /// Layer by layer, in the order of [`Site::ALL`]; none where a weight lies dense.
    sites: Vec<Option<Held>>,
}

/// A site that stays decoded.
pub(in crate::cuda) struct Held {
    /// Weights, and the adapter's B in the last columns.
    pub(in crate::cuda) weight: Rows,
    /// The adapter's A, padded.
    pub(in crate::cuda) down: Rows,
    /// B and A are those of this step.
    pub(in crate::cuda) current: Cell<bool>,
}

impl Decoded {
    pub(in crate::cuda) fn site(&self, layer: usize, site: Site) -> Option<&Held> {
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
fn places(base: &Base, sites: &[SitePlan], layers: usize, at: u64) -> (Vec<Option<Held>>, usize) {
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

impl CudaEngine {
    /// The plan of a run of which no step takes more than `most`, with the layers that then stay decoded.
    pub(crate) fn with_spare(&self, most: StepPlan) -> StepPlan {
        if self.options.decode_again {
            return most;
        }
        let spare = self.limit().saturating_sub(most.bytes as usize);
        let bytes = |layers| places(self.base(), &self.sites, layers, 0).1;
        let all = 0..=self.base().config.layers;
        let layers = all
            .rev()
            .find(|layers| bytes(*layers) <= spare)
            .unwrap_or(0);
        StepPlan {
            decoded_layers: if bytes(layers) > 0 { layers } else { 0 },
            decoded_bytes: bytes(layers) as u64,
            ..most
        }
    }

    /// Takes what the plan says; a card that refuses keeps nothing decoded.
    pub(crate) fn decode_into_spare(&mut self, plan: StepPlan) -> Result<StepPlan> {
        let without = StepPlan {
            decoded_layers: 0,
            decoded_bytes: 0,
            ..plan
        };
        self.forget_decoded();
        if plan.decoded_layers == 0 {
            return Ok(plan);
        }
        match self.decode(plan) {
            Ok(()) => Ok(plan),
            Err(Error::OutOfMemory { .. }) => Ok(without),
            Err(other) => Err(other),
        }
    }

    fn decode(&mut self, plan: StepPlan) -> Result<()> {
        self.grow(plan.bytes as usize)?;
        let base = self.held.as_ref().expect("given back only by value");
        let block = base.device.allocate(plan.decoded_bytes as usize)?;
        let (sites, _) = places(base, &self.sites, plan.decoded_layers, block.at);
        let step = self.block.expect("grown above");
        let mut exec = Exec::on(&base.device, base.element, step);
        let decoded = Decoded { block, sites };
        for layer in 0..plan.decoded_layers {
            for site in Site::ALL {
                if let Some(held) = decoded.site(layer, site) {
                    base.weight(layer, site).decode(&mut exec, held.weight);
                }
            }
        }
        let done = exec.check();
        self.decoded = Some(decoded);
        done
    }

    /// Gives the memory back.
    pub(super) fn forget_decoded(&mut self) -> bool {
        let Some(decoded) = self.decoded.take() else {
            return false;
        };
        if let Some(base) = &self.held {
            base.device.free(decoded.block);
        }
        true
    }

    /// Bytes of the card that layers take which stay decoded.
    pub fn decoded_bytes(&self) -> usize {
        self.decoded.as_ref().map_or(0, |d| d.block.bytes)
    }
}
