//! Work of the stream recorded once and repeated with one call: a step of generation is some four hundred short
//! launches, and asking for each would take longer than they do.
#![expect(unsafe_code, reason = "the driver's C interface")]

use std::ptr;

use cudarc::driver::sys;

use super::device::{Device, check};
use crate::error::Result;

/// A recording. It repeats the launches with the addresses that they had; what lies there may change.
pub(super) struct Graph(sys::CUgraphExec);

impl Graph {
    /// Records what `work` puts into the working stream; nothing of it runs.
    pub(super) fn capture(device: &Device, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        // SAFETY: the stream is ours, and only `work` uses it until the recording ends. Relaxed: libraries may
        // load code meanwhile.
        let begun = unsafe {
            sys::cuStreamBeginCapture_v2(
                device.stream,
                sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED,
            )
        };
        check(begun, "recording a step")?;
        let worked = work();
        let mut graph = ptr::null_mut();
        // SAFETY: the recording was begun above; the out-pointer is valid.
        let ended = unsafe { sys::cuStreamEndCapture(device.stream, &raw mut graph) };
        worked?;
        check(ended, "ending the record of a step")?;
        let mut ready = ptr::null_mut();
        // SAFETY: the graph was just made and is not needed once it is instantiated.
        let made = unsafe {
            let made = sys::cuGraphInstantiateWithFlags(&raw mut ready, graph, 0);
            let _ = sys::cuGraphDestroy(graph);
            made
        };
        check(made, "making the record of a step ready")?;
        Ok(Self(ready))
    }

    /// Puts the recorded work into the working stream.
    pub(super) fn launch(&self, device: &Device) -> Result<()> {
        // SAFETY: the recorded addresses belong to the block of the one who recorded, who outlives this.
        check(
            unsafe { sys::cuGraphLaunch(self.0, device.stream) },
            "repeating a step",
        )
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by `capture`; launches in flight keep what they need.
        unsafe {
            let _ = sys::cuGraphExecDestroy(self.0);
        }
    }
}
