//! Ranks that divide a shared prefix: in every layer each runs its part of the tokens, and they tell each other
//! keys and values, and on the way back the gradients of these.
//!
//! Promises: a rank's gradients are added in the order of the ranks. Made only where all ranks are on one host:
//! an exchange holds up a layer, and a network takes longer than the tokens that are spared. It must not know what a
//! layer is.

use super::device::Device;
use super::memory::Region;
use super::nccl::{Ring, Swap};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::ranks::Collective;
use crate::train::Division;

/// The connections among the ranks' cards. Not those of the sums: the two run at the same time.
pub(super) struct Peers {
    ring: Ring,
}

/// Multiplications and additions that a card could do while a layer's two exchanges hold it up: 60 us at 400
/// TFLOP/s (measured; docs/performance.md).
const HELD_UP: f64 = 24e9;

/// Whether a division spares more than its exchanges cost.
pub(super) fn worth(config: &ModelConfig, division: &Division) -> bool {
    // Forward, and backward to the inputs: two products of two operations a weight.
    let a_token = 4.0 * weights(config) as f64;
    division.spared() as f64 * a_token > HELD_UP
}

/// Weights of a layer.
fn weights(config: &ModelConfig) -> usize {
    let attention = 2 * config.query_width() + 2 * config.kv_width();
    config.hidden * (attention + 3 * config.intermediate)
}

impl Peers {
    /// Meets the other ranks, each of which calls this; None if they are on several hosts. `room` is memory of the
    /// card that may be overwritten.
    pub(super) fn join(
        device: &Device,
        room: Region,
        ranks: &dyn Collective,
    ) -> Result<Option<Self>> {
        let hosts = ranks.gather(host().as_bytes())?;
        if hosts
            .iter()
            .any(|host| host.is_empty() || *host != hosts[0])
        {
            return Ok(None);
        }
        let peers = Self {
            ring: Ring::join(ranks)?,
        };
        // The first exchange connects the cards, which waits on the host.
        let all = (0..ranks.world()).filter(|rank| *rank != ranks.rank());
        let first: Vec<Swap> = all
            .map(|rank| Swap {
                rank,
                send: room.part(0, 4),
                receive: room.part(4 * (1 + rank), 4),
            })
            .collect();
        peers.swap(device, &first)?;
        peers.ring.wait(device.stream, ranks)?;
        Ok(Some(peers))
    }

    /// Exchanges with the other ranks in the order of the working stream.
    pub(super) fn swap(&self, device: &Device, swaps: &[Swap]) -> Result<()> {
        self.ring.swap(swaps, device.stream)
    }

    /// Ends exchanges that wait for ranks that will not come.
    pub(super) fn give_up(&mut self) {
        self.ring.give_up();
    }
}

/// A name for this host that is another one on any other host; empty where there is none.
fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::model::tests::tiny_config;

    #[test]
    fn a_division_is_worth_it_on_a_large_model_alone() {
        let tiny = tiny_config();
        let mut mistral = tiny.clone();
        mistral.hidden = 4096;
        mistral.intermediate = 14_336;
        (mistral.heads, mistral.kv_heads, mistral.head_dim) = (32, 8, 128);
        assert_eq!(weights(&mistral), 218_103_808);
        let half = Division::new(vec![0, 300, 600], 0);
        assert!(worth(&mistral, &half));
        assert!(!worth(&tiny, &half));
        assert!(!worth(&mistral, &Division::new(vec![0, 20, 40], 0)));
    }
}
