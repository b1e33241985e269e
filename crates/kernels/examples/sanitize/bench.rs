//! What kernels are launched on: a card, or paper that only writes down what would be launched.
//!
//! Promises: every piece of memory is an allocation of its own, as long as asked for, so that a read or write past it
//! is seen; inputs are filled and outputs are not; a launch has ended before the next begins, and after the first
//! fault nothing is launched. It must not know what a kernel does.
#![expect(unsafe_code, reason = "the driver's C interface")]

use std::collections::BTreeSet;
use std::fmt;
use std::ptr;

use cudarc::driver::sys;
use kernels::attention::{AttentionParams, Launch};
use kernels::params::{Address, Params};
use kernels::{Element, Grid, Kernel, Kernels, LaunchError};

/// Both element types, where a kernel serves them.
pub(crate) const BOTH: [Element; 2] = [Element::Bf16, Element::F32];

/// Why a group's kernels did not all run.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The card or the build has no such kernel.
    Absent(&'static str),
    /// A call of the driver failed.
    Failed(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(kernel) => write!(f, "{kernel} is not in this build or not for this card"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl From<LaunchError> for Fault {
    fn from(error: LaunchError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A card, or paper.
pub(crate) struct Bench {
    kernels: Option<Kernels>,
    launched: BTreeSet<&'static str>,
    launches: usize,
    drawn: u32,
    fault: Option<Fault>,
}

fn check(result: sys::CUresult, what: &str) -> Result<(), Fault> {
    if result == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    Err(Fault::Failed(format!("{what}: {result:?}")))
}

impl Bench {
    /// Paper.
    #[cfg(test)]
    pub(crate) fn paper() -> Self {
        Self::over(None)
    }

    /// The first card.
    pub(crate) fn open() -> Result<Self, Fault> {
        // SAFETY: only tries to load a library.
        if !unsafe { sys::is_culib_present() } {
            return Err(Fault::Failed("there is no NVIDIA driver".to_owned()));
        }
        let (mut device, mut context) = (0, ptr::null_mut());
        // SAFETY: out-pointers are valid; order as the driver asks for it.
        unsafe {
            check(sys::cuInit(0), "starting the driver")?;
            check(sys::cuDeviceGet(&raw mut device, 0), "finding a card")?;
            let opened = sys::cuDevicePrimaryCtxRetain(&raw mut context, device);
            check(opened, "opening the card")?;
            check(sys::cuCtxSetCurrent(context), "using the card")?;
        }
        Ok(Self::over(Some(Kernels::load()?)))
    }

    fn over(kernels: Option<Kernels>) -> Self {
        Self {
            kernels,
            launched: BTreeSet::new(),
            launches: 0,
            drawn: 1,
            fault: None,
        }
    }

    /// The kernels that were launched.
    #[cfg(test)]
    pub(crate) fn launched(&self) -> &BTreeSet<&'static str> {
        &self.launched
    }

    /// How many launches ended well, or the first fault.
    pub(crate) fn end(self) -> Result<usize, Fault> {
        self.fault.map_or(Ok(self.launches), Err)
    }

    /// Memory that a kernel writes before it is read; null on paper.
    pub(crate) fn room(&mut self, bytes: usize) -> Address {
        let mut at = 0;
        self.go(|_| {
            // SAFETY: the out-pointer is valid.
            let got = unsafe { sys::cuMemAlloc_v2(&raw mut at, bytes.max(4)) };
            check(got, "taking memory")
        });
        at
    }

    /// Memory that holds these values.
    pub(crate) fn holding<T: Copy>(&mut self, values: &[T]) -> Address {
        let bytes = size_of_val(values);
        let at = self.room(bytes);
        self.go(|_| {
            // SAFETY: source and target are `bytes` long; the call waits for pageable memory to be read.
            let copied = unsafe { sys::cuMemcpyHtoD_v2(at, values.as_ptr().cast(), bytes) };
            check(copied, "copying to the card")
        });
        at
    }

    /// `count` values between -1 and 1.
    pub(crate) fn values(&mut self, element: Element, count: usize) -> Address {
        let values: Vec<f32> = (0..count)
            .map(|_| (self.draw() as f32 / u32::MAX as f32).mul_add(2.0, -1.0))
            .collect();
        match element {
            Element::F32 => self.holding(&values),
            Element::Bf16 => {
                let halves: Vec<u16> = values.iter().map(|v| (v.to_bits() >> 16) as u16).collect();
                self.holding(&halves)
            }
        }
    }

    /// `count` f32 values between -1 and 1.
    pub(crate) fn floats(&mut self, count: usize) -> Address {
        self.values(Element::F32, count)
    }

    /// `count` bytes of any value.
    pub(crate) fn bytes(&mut self, count: usize) -> Address {
        let bytes: Vec<u8> = (0..count).map(|_| (self.draw() >> 24) as u8).collect();
        self.holding(&bytes)
    }

    /// The generator of Numerical Recipes: any values do.
    fn draw(&mut self) -> u32 {
        self.drawn = self
            .drawn
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        self.drawn
    }

    pub(crate) fn launch<P: Params>(
        &mut self,
        kernel: Kernel,
        element: Element,
        grid: Grid,
        params: &P,
    ) {
        self.note(kernel.symbol(element), |kernels| {
            // SAFETY: the caller's addresses are allocations as long as these sizes ask for.
            Ok(unsafe { kernels.launch(kernel, element, grid, params, ptr::null_mut()) }?)
        });
    }

    pub(crate) fn launch_attention(&mut self, launch: &Launch, params: &AttentionParams) {
        self.note(launch.kernel, |kernels| {
            if !kernels.knows(launch) {
                return Err(Fault::Absent(launch.kernel));
            }
            // SAFETY: as in `launch`.
            Ok(unsafe { kernels.launch_attention(launch, params, ptr::null_mut()) }?)
        });
    }

    fn note(&mut self, symbol: &'static str, launch: impl FnOnce(&Kernels) -> Result<(), Fault>) {
        self.launched.insert(symbol);
        self.go(|kernels| {
            launch(kernels)?;
            // SAFETY: waits for the launch, and tells what it did wrong.
            check(unsafe { sys::cuCtxSynchronize() }, symbol)
        });
        self.launches += 1;
    }

    /// Does it on the card, if there is one and nothing has failed.
    fn go(&mut self, work: impl FnOnce(&Kernels) -> Result<(), Fault>) {
        if let (Some(kernels), None) = (&self.kernels, &self.fault) {
            self.fault = work(kernels).err();
        }
    }
}
