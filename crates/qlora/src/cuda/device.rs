//! One GPU: its context, its two streams (work and copies), its kernels and its memory.
//!
//! Everything is loaded at run time: [`Device::open`] says what is missing instead of failing to start. One
//! stream orders all work; the copy stream moves layer inputs to and from the host beside it.
#![expect(unsafe_code, reason = "the driver's C interface")]

use std::ptr;

use cudarc::driver::sys;
use kernels::attention::{AttentionParams, Card, Door, Launch};
use kernels::{Element, Grid, Kernel, Kernels, LaunchError, params::Params};

use super::blas::Blas;
use super::memory::{ALIGNMENT, Region};
use super::profile::Profile;
use crate::error::{Error, Result};

/// Oldest driver that runs CUDA 13 programs, as `cuDriverGetVersion` counts.
const DRIVER: i32 = 13000;

/// The attention kernels of cards that have both: the one line to change when one door has to be closed.
const PREFERRED: Door = Door::Warpgroup;

/// Overrides [`PREFERRED`]: `warp` or `warpgroup`.
const DOOR_VARIABLE: &str = "TUNESMITH_ATTENTION";

/// What a card is and what it runs: recorded beside results, because bits depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    pub name: String,
    /// Compute capability, `(9, 0)` for Hopper.
    pub capability: (i32, i32),
    pub processors: i32,
    /// Bytes.
    pub memory: usize,
    /// Bytes of shared memory that a block may take.
    pub shared: usize,
    /// As the driver and cuBLASLt number themselves.
    pub driver: i32,
    pub blas: usize,
    /// Which attention kernels run: with the others sums are rounded elsewhere.
    pub attention: Door,
}

impl DeviceInfo {
    /// One line that names all that the bits of a run depend on.
    pub fn numerics(&self) -> String {
        let attention = match self.attention {
            Door::Warp => "",
            Door::Warpgroup => ", warpgroup attention",
        };
        format!(
            "{} sm_{}{} {} SMs, driver {}, cuBLASLt {}{attention}",
            self.name,
            self.capability.0,
            self.capability.1,
            self.processors,
            self.driver,
            self.blas
        )
    }

    /// What plans have to know of it.
    pub(super) fn card(&self) -> Card {
        Card {
            multiprocessors: self.processors as u32,
            door: self.attention,
        }
    }
}

/// The door that `asked` names, or the preferred one of those there are.
fn choose_door(asked: Option<&str>, kernels: &Kernels) -> Result<Door> {
    let there = kernels.has(Door::Warpgroup);
    match asked {
        None | Some("") if there => Ok(PREFERRED),
        None | Some("" | "warp") => Ok(Door::Warp),
        Some("warpgroup") if there => Ok(Door::Warpgroup),
        Some(other) => Err(Error::device(
            format!("{DOOR_VARIABLE} is `{other}`, which this card or build does not have"),
            "unset it, or set `warp` (any card) or `warpgroup` (compute capability 9.0)",
        )),
    }
}

/// An opened GPU.
pub struct Device {
    pub(super) stream: sys::CUstream,
    pub(super) copies: sys::CUstream,
    kernels: Kernels,
    pub(super) blas: Blas,
    info: DeviceInfo,
    pub(super) profile: Profile,
    /// There is no card: what is asked of it is counted elsewhere, and nothing is done.
    paper: bool,
}

// SAFETY: handles of the driver may be used from any thread; the context is made current by `open` and by
// `bind` in the thread that works.
unsafe impl Send for Device {}

pub(super) fn check(result: sys::CUresult, what: &str) -> Result<()> {
    if result == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    if result == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        return Err(full(what));
    }
    let mend =
        "look at `nvidia-smi`; if the card is well, report this with the command that led here";
    Err(Error::device(format!("{what}: {result:?}"), mend))
}

/// The card has no memory for `what`.
pub(super) fn full(what: &str) -> Error {
    Error::OutOfMemory {
        what: what.to_owned(),
        mend: "end other programs on the card, shorten the rows, or use a card with more memory"
            .to_owned(),
    }
}

/// What a kernel that was not loaded or launched comes to; `mend` where it is not for memory: code and stacks of
/// kernels take some of the card's, too, and most of it at their first launch.
fn refused(error: &LaunchError, mend: &str) -> Error {
    if error.out_of_memory {
        return full(&error.what);
    }
    Error::device(error.to_string(), mend)
}

/// A point in a stream.
#[derive(Clone, Copy)]
pub(super) struct Event(pub(super) sys::CUevent);

impl Device {
    /// Whether a driver and a card are there at all.
    pub fn present() -> bool {
        Self::count() > 0
    }

    /// How many cards this process sees.
    pub fn count() -> usize {
        // SAFETY: only tries to load a library.
        if !unsafe { sys::is_culib_present() } {
            return 0;
        }
        let mut count = 0;
        // SAFETY: both calls are allowed before any context exists.
        let known = unsafe {
            sys::cuInit(0) == sys::CUresult::CUDA_SUCCESS
                && sys::cuDeviceGetCount(&raw mut count) == sys::CUresult::CUDA_SUCCESS
        };
        if known { count as usize } else { 0 }
    }

    /// Opens the first card that `CUDA_VISIBLE_DEVICES` leaves.
    ///
    /// # Errors
    /// [`Error::Device`] naming what is missing: driver, card, libraries, or an architecture too old.
    pub fn open() -> Result<Self> {
        // SAFETY: only tries to load a library.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::device(
                "there is no NVIDIA driver (libcuda.so.1)",
                "install driver 580 or newer, or train on the CPU",
            ));
        }
        // SAFETY: as above.
        if !unsafe { cudarc::cublaslt::sys::is_culib_present() } {
            return Err(Error::device(
                "there is no cuBLASLt (libcublasLt.so.13)",
                "install CUDA 13's cuBLAS and put its folder on LD_LIBRARY_PATH",
            ));
        }
        let (mut driver, mut device, mut context) = (0, 0, ptr::null_mut());
        // SAFETY: out-pointers are valid; order as the driver asks for it.
        unsafe {
            check(sys::cuInit(0), "starting the driver")?;
            check(
                sys::cuDriverGetVersion(&raw mut driver),
                "asking the driver's version",
            )?;
            if driver < DRIVER {
                return Err(Error::device(
                    format!(
                        "the driver runs CUDA {}.{}",
                        driver / 1000,
                        driver % 1000 / 10
                    ),
                    "install driver 580 or newer",
                ));
            }
            check(sys::cuDeviceGet(&raw mut device, 0), "finding a card")?;
            check(
                sys::cuDevicePrimaryCtxRetain(&raw mut context, device),
                "opening the card",
            )?;
            check(sys::cuCtxSetCurrent(context), "using the card")?;
        }
        let mut info = describe(device)?;
        info.driver = driver;
        if info.capability < (8, 0) {
            return Err(Error::device(
                format!(
                    "{} has no bf16 (compute capability {}.{})",
                    info.name, info.capability.0, info.capability.1
                ),
                "use a card of the Ampere generation or newer",
            ));
        }
        let kernels = Kernels::load().map_err(|e| {
            refused(
                &e,
                "build with this card's architecture in TUNESMITH_CUDA_ARCHS",
            )
        })?;
        let (stream, copies) = (stream()?, stream()?);
        let blas = Blas::new()?;
        info.blas = blas.version();
        info.attention = choose_door(std::env::var(DOOR_VARIABLE).ok().as_deref(), &kernels)?;
        Ok(Self {
            stream,
            copies,
            kernels,
            blas,
            info,
            profile: Profile::default(),
            paper: false,
        })
    }

    /// A card that is not there: it gives every memory and does no work, so a plan can be made for it.
    pub fn on_paper(info: DeviceInfo) -> Self {
        Self {
            stream: ptr::null_mut(),
            copies: ptr::null_mut(),
            kernels: Kernels::none(),
            blas: Blas::none(),
            info,
            profile: Profile::default(),
            paper: true,
        }
    }

    /// What the card is.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    pub(super) fn launch<P: Params>(
        &self,
        kernel: Kernel,
        element: Element,
        grid: Grid,
        params: &P,
    ) -> Result<()> {
        // SAFETY: parameters are built in `exec.rs` from regions of this device's arena or store, which
        // outlive the stream's work; one stream orders all writers.
        unsafe {
            self.kernels
                .launch(kernel, element, grid, params, self.stream)
        }
        .map_err(|e| refused(&e, "report this with the shapes of the run"))
    }

    pub(super) fn launch_attention(&self, launch: &Launch, params: &AttentionParams) -> Result<()> {
        // SAFETY: as in `launch`.
        unsafe { self.kernels.launch_attention(launch, params, self.stream) }
            .map_err(|e| refused(&e, "report this with the shapes of the run"))
    }

    /// A block of device memory that lives as long as the process.
    pub(super) fn allocate(&self, bytes: usize) -> Result<Region> {
        let mut at = ALIGNMENT as u64;
        if self.paper {
            return Ok(Region { at, bytes });
        }
        // SAFETY: the out-pointer is valid.
        let result = unsafe { sys::cuMemAlloc_v2(&raw mut at, bytes.max(256)) };
        check(
            result,
            &format!("reserving {} MiB on the card", bytes >> 20),
        )?;
        Ok(Region { at, bytes })
    }

    pub(super) fn free(&self, region: Region) {
        if self.paper {
            return;
        }
        // SAFETY: regions that are freed came from `allocate` and are dropped with their owner.
        unsafe {
            let _ = sys::cuStreamSynchronize(self.stream);
            let _ = sys::cuMemFree_v2(region.at);
        }
    }

    /// Bytes free and in all.
    pub fn memory(&self) -> Result<(usize, usize)> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: the out-pointers are valid.
        let asked = unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) };
        check(asked, "asking for free memory")?;
        Ok((free, total))
    }

    /// Host bytes to the card; returns when the bytes may change again.
    pub(super) fn upload<T: Copy>(&self, to: Region, values: &[T]) -> Result<()> {
        let bytes = size_of_val(values);
        assert!(bytes <= to.bytes, "upload of {bytes} into {}", to.bytes);
        if self.paper {
            return Ok(());
        }
        // SAFETY: source and target are as long as said; pageable memory has been read on return.
        check(
            unsafe { sys::cuMemcpyHtoDAsync_v2(to.at, values.as_ptr().cast(), bytes, self.stream) },
            "copying to the card",
        )
    }

    /// Card to host; waits.
    pub(super) fn download<T: Copy>(&self, from: Region, values: &mut [T]) -> Result<()> {
        let bytes = size_of_val(values);
        assert!(
            bytes <= from.bytes,
            "download of {bytes} from {}",
            from.bytes
        );
        // SAFETY: source and target are as long as said; the stream is waited for.
        unsafe {
            check(
                sys::cuMemcpyDtoHAsync_v2(values.as_mut_ptr().cast(), from.at, bytes, self.stream),
                "copying from the card",
            )?;
        }
        self.wait()
    }

    /// Rows of `bytes` bytes from one stride to another, on the card.
    pub(super) fn copy_rows(
        &self,
        to: u64,
        to_stride: usize,
        from: u64,
        from_stride: usize,
        bytes: usize,
        rows: usize,
    ) -> Result<()> {
        let copy = sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: ptr::null(),
            srcDevice: from,
            srcArray: ptr::null_mut(),
            srcPitch: from_stride,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstHost: ptr::null_mut(),
            dstDevice: to,
            dstArray: ptr::null_mut(),
            dstPitch: to_stride,
            WidthInBytes: bytes,
            Height: rows,
        };
        // SAFETY: both sides hold `rows` rows of their stride, as in `launch`.
        check(
            unsafe { sys::cuMemcpy2DAsync_v2(&raw const copy, self.stream) },
            "copying rows",
        )
    }

    pub(super) fn zero(&self, region: Region) -> Result<()> {
        // SAFETY: the region is ours.
        check(
            unsafe { sys::cuMemsetD8Async(region.at, 0, region.bytes, self.stream) },
            "clearing memory",
        )
    }

    /// Waits for all work.
    pub(super) fn wait(&self) -> Result<()> {
        // SAFETY: the stream is ours.
        check(
            unsafe { sys::cuStreamSynchronize(self.stream) },
            "waiting for the card",
        )
    }

    /// Makes the card current in this thread.
    pub(super) fn bind(&self) -> Result<()> {
        if self.paper {
            return Ok(());
        }
        let (mut device, mut context) = (0, ptr::null_mut());
        // SAFETY: retaining the primary context again gives the same one.
        unsafe {
            check(sys::cuDeviceGet(&raw mut device, 0), "finding a card")?;
            check(
                sys::cuDevicePrimaryCtxRetain(&raw mut context, device),
                "opening the card",
            )?;
            check(sys::cuCtxSetCurrent(context), "using the card")
        }
    }

    pub(super) fn event(&self) -> Result<Event> {
        let mut event = ptr::null_mut();
        if self.paper {
            return Ok(Event(event));
        }
        // SAFETY: the out-pointer is valid. Flag 0: with timing.
        let made = unsafe { sys::cuEventCreate(&raw mut event, 0) };
        check(made, "making an event")?;
        Ok(Event(event))
    }

    #[expect(
        clippy::unused_self,
        reason = "the driver answers only where a device was opened"
    )]
    pub(super) fn forget(&self, event: Event) {
        // SAFETY: made by `event`, and nobody waits for it.
        unsafe {
            let _ = sys::cuEventDestroy_v2(event.0);
        }
    }

    pub(super) fn record(&self, event: Event, copies: bool) -> Result<()> {
        let stream = if copies { self.copies } else { self.stream };
        // SAFETY: event and stream are ours.
        check(
            unsafe { sys::cuEventRecord(event.0, stream) },
            "recording an event",
        )
    }

    /// `copies`: the copy stream waits; else the working stream.
    pub(super) fn wait_for(&self, event: Event, copies: bool) -> Result<()> {
        let stream = if copies { self.copies } else { self.stream };
        // SAFETY: event and stream are ours.
        check(
            unsafe { sys::cuStreamWaitEvent(stream, event.0, 0) },
            "waiting for an event",
        )
    }

    /// Milliseconds between two recorded events; waits for the second.
    #[expect(
        clippy::unused_self,
        reason = "the driver answers only where a device was opened"
    )]
    pub(super) fn elapsed(&self, from: Event, to: Event) -> Result<f32> {
        let mut ms = 0.0;
        // SAFETY: both events were recorded.
        unsafe {
            check(sys::cuEventSynchronize(to.0), "waiting for an event")?;
            check(
                sys::cuEventElapsedTime_v2(&raw mut ms, from.0, to.0),
                "reading a time",
            )?;
        }
        Ok(ms)
    }
}

fn stream() -> Result<sys::CUstream> {
    let mut stream = ptr::null_mut();
    // SAFETY: the out-pointer is valid.
    let result = unsafe {
        sys::cuStreamCreate(
            &raw mut stream,
            sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32,
        )
    };
    check(result, "making a stream")?;
    Ok(stream)
}

fn describe(device: sys::CUdevice) -> Result<DeviceInfo> {
    use sys::CUdevice_attribute as Attribute;
    let mut memory = 0;
    let mut name = [0u8; 256];
    // SAFETY: out-pointers are valid and as long as said.
    unsafe {
        check(
            sys::cuDeviceTotalMem_v2(&raw mut memory, device),
            "asking for memory",
        )?;
        check(
            sys::cuDeviceGetName(name.as_mut_ptr().cast(), 255, device),
            "asking for a name",
        )?;
    }
    let ask = |attribute| -> Result<i32> {
        let mut value = 0;
        // SAFETY: the out-pointer is valid.
        let asked = unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, device) };
        check(asked, "asking the card")?;
        Ok(value)
    };
    let end = name.iter().position(|b| *b == 0).unwrap_or(0);
    Ok(DeviceInfo {
        name: String::from_utf8_lossy(&name[..end]).into_owned(),
        capability: (
            ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        processors: ask(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        memory,
        shared: ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize,
        driver: 0,
        blas: 0,
        attention: Door::Warp,
    })
}

/// Host memory that the card copies to and from beside its work.
pub(super) struct Pinned {
    at: *mut u8,
    pub(super) bytes: usize,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for Pinned {}

impl Pinned {
    pub(super) fn new(device: &Device, bytes: usize) -> Result<Self> {
        let mut at = ptr::null_mut::<std::ffi::c_void>();
        if device.paper {
            return Ok(Self {
                at: at.cast(),
                bytes,
            });
        }
        // SAFETY: the out-pointer is valid.
        let pinned = unsafe { sys::cuMemHostAlloc(&raw mut at, bytes.max(1), 0) };
        let what = format!("pinning {} MiB of host memory", bytes >> 20);
        if pinned == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            let mend = "end other programs on this machine, shorten the rows, or use a card with more memory";
            return Err(Error::OutOfMemory {
                what,
                mend: mend.to_owned(),
            });
        }
        check(pinned, &what)?;
        Ok(Self {
            at: at.cast(),
            bytes,
        })
    }

    /// Between `region` and this memory at `offset`, in the copy stream.
    pub(super) fn copy(
        &self,
        device: &Device,
        offset: usize,
        region: Region,
        to_host: bool,
    ) -> Result<()> {
        assert!(offset + region.bytes <= self.bytes, "pinned memory");
        // SAFETY: both sides are in range and live until the copy stream has been waited for.
        let result = unsafe {
            let host = self.at.add(offset);
            if to_host {
                sys::cuMemcpyDtoHAsync_v2(host.cast(), region.at, region.bytes, device.copies)
            } else {
                sys::cuMemcpyHtoDAsync_v2(region.at, host.cast(), region.bytes, device.copies)
            }
        };
        check(result, "moving layer inputs")
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.at.is_null() {
            return;
        }
        // SAFETY: allocated by `new`; the driver waits for copies that still use it.
        unsafe {
            let _ = sys::cuCtxSynchronize();
            let _ = sys::cuMemFreeHost(self.at.cast());
        }
    }
}
