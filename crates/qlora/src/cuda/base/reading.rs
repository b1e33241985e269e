//! Stretches of files onto the card: several threads read pieces into pinned buffers of their own, the copy stream
//! empties them.
//!
//! Promises: a few megabytes of host memory a thread, whatever the model; when it returns everything is there.
#![expect(unsafe_code, reason = "the driver's C interface")]

use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use cudarc::driver::sys;

use super::super::device::{Device, check};
use super::super::memory::Region;
use crate::error::Result;
use crate::weights::Stretch;

/// Bytes of one buffer; a thread has two, one that it fills and one that is being emptied.
const PIECE: usize = 4 << 20;
/// Copying out of the page cache takes one core about a millisecond for eight megabytes, the bus a fifth of that.
const THREADS: usize = 8;

/// A stretch and where it goes.
pub(super) struct Wanted {
    pub(super) stretch: Stretch,
    pub(super) to: Region,
}

/// Part of a stretch.
struct Piece<'a> {
    stretch: &'a Stretch,
    offset: usize,
    bytes: usize,
    to: u64,
}

/// Brings everything onto the card.
pub(super) fn read(device: &Device, wanted: &[Wanted]) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let pieces: Vec<Piece<'_>> = wanted.iter().flat_map(pieces).collect();
    let bus = Bus::of(device)?;
    let next = AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = THREADS.min(cores).min(pieces.len());
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let end = |_: &_| next.store(pieces.len(), Ordering::Relaxed);
                    carry(&bus, &pieces, &next).inspect_err(end)
                })
            })
            .collect();
        started
            .into_iter()
            .try_for_each(|thread| thread.join().expect("reading does not panic"))
    })
}

fn pieces(wanted: &Wanted) -> impl Iterator<Item = Piece<'_>> {
    let Wanted { stretch, to } = wanted;
    assert!(stretch.bytes <= to.bytes, "a stretch longer than its place");
    (0..stretch.bytes).step_by(PIECE).map(move |offset| Piece {
        stretch,
        offset,
        bytes: PIECE.min(stretch.bytes - offset),
        to: to.at + offset as u64,
    })
}

/// Carries pieces until there are no more.
fn carry(bus: &Bus, pieces: &[Piece<'_>], next: &AtomicUsize) -> Result<()> {
    let mut buffers = [bus.buffer()?, bus.buffer()?];
    let mut turn = 0;
    while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
        let buffer = &mut buffers[turn];
        turn = 1 - turn;
        let bytes = buffer.emptied()?;
        piece
            .stretch
            .read(piece.offset, &mut bytes[..piece.bytes])?;
        buffer.send(piece.to, piece.bytes, bus)?;
    }
    buffers.iter_mut().try_for_each(|b| b.emptied().map(|_| ()))
}

/// The context and the stream that copies go through.
struct Bus {
    context: sys::CUcontext,
    stream: sys::CUstream,
}

// SAFETY: handles that the driver allows in any thread; copies are put into the stream one by one.
unsafe impl Sync for Bus {}

impl Bus {
    fn of(device: &Device) -> Result<Self> {
        let mut context = ptr::null_mut();
        device.bind()?;
        // SAFETY: the out-pointer is valid.
        let asked = unsafe { sys::cuCtxGetCurrent(&raw mut context) };
        check(asked, "asking for the card")?;
        Ok(Self {
            context,
            stream: device.copies,
        })
    }

    /// A pinned buffer of the calling thread.
    fn buffer(&self) -> Result<Buffer> {
        let (mut at, mut event) = (ptr::null_mut(), ptr::null_mut());
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32
            | sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC as u32;
        // SAFETY: the out-pointers are valid, the context is made current first.
        unsafe {
            check(sys::cuCtxSetCurrent(self.context), "using the card")?;
            check(sys::cuEventCreate(&raw mut event, flags), "making an event")?;
            check(
                sys::cuMemHostAlloc(&raw mut at, PIECE, 0),
                "pinning a buffer to read weights into",
            )?;
        }
        Ok(Buffer {
            at: at.cast(),
            event,
            sent: false,
        })
    }
}

/// Pinned memory, and when the card has taken what was in it.
struct Buffer {
    at: *mut u8,
    event: sys::CUevent,
    sent: bool,
}

impl Buffer {
    /// The buffer's bytes, once the card has taken what it was sent.
    fn emptied(&mut self) -> Result<&mut [u8]> {
        if std::mem::take(&mut self.sent) {
            // SAFETY: the event was recorded by `send`.
            let waited = unsafe { sys::cuEventSynchronize(self.event) };
            check(waited, "copying weights to the card")?;
        }
        // SAFETY: `PIECE` bytes of our own; nothing copies from them now.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.at, PIECE) })
    }

    fn send(&mut self, to: u64, bytes: usize, bus: &Bus) -> Result<()> {
        // SAFETY: the buffer is not touched before the event that follows the copy; the target is a region of
        // the store.
        unsafe {
            check(
                sys::cuMemcpyHtoDAsync_v2(to, self.at.cast(), bytes, bus.stream),
                "copying weights to the card",
            )?;
            check(
                sys::cuEventRecord(self.event, bus.stream),
                "recording an event",
            )?;
        }
        self.sent = true;
        Ok(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated by `Bus::buffer`; after a failure the card may still be reading it.
        unsafe {
            if self.sent {
                let _ = sys::cuEventSynchronize(self.event);
            }
            let _ = sys::cuEventDestroy_v2(self.event);
            let _ = sys::cuMemFreeHost(self.at.cast());
        }
    }
}
