//! Takes memory of the card that no step needs for layers that stay decoded, and gives it back.
//!
//! Promises: the values are those that are decoded before each product otherwise, so no result knows the
//! difference; all of it is given back before a step, or an answer, would want for memory. It must not know what a step
//! does.

use super::CudaEngine;
use crate::cuda::decoded::{Decoded, places};
use crate::cuda::exec::Exec;
use crate::error::{Error, Result};
use crate::nn::adapter::Site;
use crate::train::StepPlan;

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

    /// Takes what that plan says; a card that refuses keeps nothing decoded.
    pub(crate) fn decode_into_spare(&mut self, most: StepPlan) -> Result<StepPlan> {
        self.forget_decoded();
        let plan = self.with_spare(most);
        if plan.decoded_layers == 0 {
            return Ok(plan);
        }
        match self.decode(plan) {
            Ok(()) => Ok(plan),
            Err(Error::OutOfMemory { .. }) => Ok(most),
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
        let decoded = Decoded::over(block, sites);
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
            base.device.free(decoded.block());
        }
        true
    }

    /// Bytes of the card that layers take which stay decoded.
    pub fn decoded_bytes(&self) -> usize {
        self.decoded.as_ref().map_or(0, |d| d.block().bytes)
    }
}
