//! Sums the adapter's gradient over the ranks while the backward still runs.
//!
//! The gradient of a layer is complete when the last backward of a step has passed it. A few layers make a
//! bucket; as soon as one is complete its sum sets out on a stream of its own, and the layers below go on.
//! Buckets depend on the adapter alone, so every rank asks for the same sums in the same order, whatever
//! rows and passes it has.
#![expect(unsafe_code, reason = "the driver's C interface")]

use std::cell::Cell;
use std::ptr;

use cudarc::driver::sys;

use super::device::{Device, Event, check};
use super::memory::Region;
use super::nccl::Ring;
use super::peers::Peers;
use crate::error::Result;
use crate::nn::adapter::{Adapter, Slot};
use crate::ranks::Collective;

/// Bytes from which a bucket is full. Small: the last one is not hidden behind anything.
const BUCKET: usize = 16 << 20;

/// A part of the gradient that is summed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    /// Complete when the backward has passed this layer.
    layer: usize,
    from: usize,
    to: usize,
}

pub(super) struct Reducer {
    ring: Ring,
    /// Those with whom prefixes may be divided.
    pub(super) peers: Option<Peers>,
    stream: sys::CUstream,
    buckets: Vec<Bucket>,
    /// Per bucket: its gradient is complete.
    complete: Vec<Event>,
    /// All sums are there.
    summed: Event,
    grads: Region,
    /// Buckets that have set out in this step.
    sent: Cell<usize>,
}

// SAFETY: handles of the driver may be used from any thread.
unsafe impl Send for Reducer {}

impl Reducer {
    /// Meets the other ranks; `grads` is the gradient of `adapter`.
    pub(super) fn join(
        device: &Device,
        adapter: &Adapter,
        grads: Region,
        ranks: &dyn Collective,
    ) -> Result<Self> {
        device.bind()?;
        let ring = Ring::join(ranks)?;
        let buckets = buckets(adapter.slots(), adapter.values().len());
        let complete = buckets.iter().map(|_| device.event());
        Ok(Self {
            ring,
            peers: Peers::join(device, grads, ranks)?,
            stream: urgent_stream()?,
            complete: complete.collect::<Result<_>>()?,
            summed: device.event()?,
            buckets,
            grads,
            sent: Cell::new(0),
        })
    }

    pub(super) fn numerics(&self) -> String {
        let whole = if self.peers.is_some() {
            ""
        } else {
            ", prefixes whole"
        };
        format!("{}, buckets of {BUCKET}{whole}", self.ring.numerics())
    }

    /// Before the first backward of a step.
    pub(super) fn begin(&self) {
        self.sent.set(0);
    }

    /// The last backward of the step has passed `layer`: whatever is complete sets out.
    pub(super) fn passed(&self, device: &Device, layer: usize) -> Result<()> {
        while let Some(bucket) = self.buckets.get(self.sent.get()) {
            if bucket.layer < layer {
                break;
            }
            self.send(device, self.sent.get(), *bucket)?;
            self.sent.set(self.sent.get() + 1);
        }
        Ok(())
    }

    /// The step's backward is over: the rest sets out, and the working stream waits for the sums.
    pub(super) fn finish(&self, device: &Device) -> Result<()> {
        self.passed(device, 0)?;
        // SAFETY: events and streams are ours.
        unsafe {
            check(
                sys::cuEventRecord(self.summed.0, self.stream),
                "recording an event",
            )?;
            check(
                sys::cuStreamWaitEvent(device.stream, self.summed.0, 0),
                "waiting for an event",
            )
        }
    }

    fn send(&self, device: &Device, at: usize, bucket: Bucket) -> Result<()> {
        let complete = self.complete[at];
        device.record(complete, false)?;
        // SAFETY: event and stream are ours.
        let waits = unsafe { sys::cuStreamWaitEvent(self.stream, complete.0, 0) };
        check(waits, "waiting for an event")?;
        let part = self
            .grads
            .part(4 * bucket.from, 4 * (bucket.to - bucket.from));
        self.ring.sum(part, self.stream)
    }

    /// Waits for the step's work; fails where another rank ends meanwhile.
    pub(super) fn wait(&mut self, device: &Device, ranks: &dyn Collective) -> Result<()> {
        let waited = self.ring.wait(device.stream, ranks);
        if waited.is_err() {
            self.give_up();
        }
        waited
    }

    /// Ends sums and exchanges that are under way: the step has failed here, so the others will not come either.
    pub(super) fn give_up(&mut self) {
        // The sums come after the exchanges on the card.
        if let Some(peers) = &mut self.peers {
            peers.give_up();
        }
        self.ring.give_up();
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: the stream and the events are ours and used no more.
        unsafe {
            let _ = sys::cuStreamDestroy_v2(self.stream);
            for event in self.complete.iter().chain([&self.summed]) {
                let _ = sys::cuEventDestroy_v2(event.0);
            }
        }
    }
}

/// Whole layers from the top down, each bucket full; values lie in the order of the layers.
fn buckets(slots: &[Slot], count: usize) -> Vec<Bucket> {
    let mut buckets = Vec::new();
    let mut to = count;
    let mut rest = slots;
    while let Some(last) = rest.last() {
        let layer = last.layer;
        let own = rest.partition_point(|slot| slot.layer < layer);
        let from = rest[own].a.start;
        rest = &rest[..own];
        if 4 * (to - from) >= BUCKET || rest.is_empty() {
            buckets.push(Bucket { layer, from, to });
            to = from;
        }
    }
    buckets
}

/// A stream whose blocks go before the working stream's: a sum is short and others wait for it.
fn urgent_stream() -> Result<sys::CUstream> {
    let (mut least, mut greatest) = (0, 0);
    let mut stream = ptr::null_mut();
    // SAFETY: the out-pointers are valid.
    unsafe {
        check(
            sys::cuCtxGetStreamPriorityRange(&raw mut least, &raw mut greatest),
            "asking for priorities",
        )?;
        check(
            sys::cuStreamCreateWithPriority(
                &raw mut stream,
                sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32,
                greatest,
            ),
            "making a stream",
        )?;
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::lora::LoraConfig;
    use crate::nn::model::tests::tiny_config;

    #[test]
    fn buckets_cover_the_gradient_from_the_top_down_in_whole_layers() {
        for (layers, width, at_least) in [(3, 16, 1), (40, 256, 2)] {
            let mut model = tiny_config();
            model.layers = layers;
            model.attention = vec![model.attention[0]; layers];
            model.intermediate = width * 8;
            let config = LoraConfig {
                r: width,
                layers: (layers > 3).then(|| (2..layers).step_by(3).collect()),
                ..LoraConfig::default()
            };
            let adapter = Adapter::zeros(&model, &config).unwrap();
            let buckets = buckets(adapter.slots(), adapter.values().len());
            assert!(buckets.len() >= at_least, "{buckets:?}");
            let mut to = adapter.values().len();
            for (at, bucket) in buckets.iter().enumerate() {
                assert_eq!(bucket.to, to);
                to = bucket.from;
                let inside = |slot: &&Slot| (bucket.from..bucket.to).contains(&slot.a.start);
                let layers: Vec<usize> = adapter
                    .slots()
                    .iter()
                    .filter(inside)
                    .map(|s| s.layer)
                    .collect();
                assert_eq!(layers.first(), Some(&bucket.layer));
                let whole = adapter
                    .slots()
                    .iter()
                    .filter(|s| layers.contains(&s.layer))
                    .count();
                assert_eq!(whole, layers.len());
                let full = 4 * (bucket.to - bucket.from) >= BUCKET;
                assert!(full || at + 1 == buckets.len());
            }
            assert_eq!(to, 0);
        }
    }
}
