//! The compiled kernels, loaded once, looked up once, launched by number.
#![expect(unsafe_code, reason = "the driver's C interface")]

use std::ffi::{CString, c_void};
use std::fmt;
use std::ptr;

use cudarc::driver::sys;

use crate::params::{self, Params};

/// The type of the values that a kernel works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    Bf16,
    F32,
}

impl Element {
    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }
}

/// How many blocks, and how many threads each.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    pub blocks: (usize, usize),
    pub threads: (usize, usize),
}

impl Grid {
    /// Blocks of `threads` in one row.
    pub fn row(blocks: usize, threads: usize) -> Self {
        Self {
            blocks: (blocks, 1),
            threads: (threads, 1),
        }
    }

    /// Enough blocks of `threads` to give each of `items` a thread, times `rows`.
    pub fn cover(items: usize, threads: usize, rows: usize) -> Self {
        Self {
            blocks: (items.div_ceil(threads), rows),
            threads: (threads, 1),
        }
    }
}

/// A call of the driver that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchError {
    /// What was asked for.
    pub what: String,
    /// The driver's number and name for it.
    pub code: String,
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.code)
    }
}

impl std::error::Error for LaunchError {}

fn check(result: sys::CUresult, what: impl FnOnce() -> String) -> Result<(), LaunchError> {
    if result == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    Err(LaunchError {
        what: what(),
        code: format!("{result:?}"),
    })
}

/// In the order of `build.rs`.
static FATBINS: &[&[u8]] = &include!(concat!(env!("OUT_DIR"), "/fatbins.rs"));

macro_rules! kernels {
    ($($family:literal { $($kernel:ident = $bf16:literal, $f32:literal, $params:ident;)* })*) => {
        /// A kernel, for both element types where it works on elements.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kernel { $($($kernel),*),* }

        /// Family, names for bf16 and f32, bytes of parameters.
        const TABLE: &[(usize, [&str; 2], usize)] = &[
            $($(($family, [$bf16, $f32], size_of::<params::$params>()),)*)*
        ];
    };
}

kernels! {
    0 {
        Nf4Decode = "nf4_decode_bf16", "nf4_decode_f32", Nf4Decode;
        Nf4Encode = "nf4_encode_bf16", "nf4_encode_f32", Nf4Encode;
        Noise = "noise_bf16", "noise_f32", Noise;
    }
    1 {
        NormForward = "norm_forward_bf16", "norm_forward_f32", NormForward;
        NormBackward = "norm_backward_bf16", "norm_backward_f32", NormBackward;
    }
    2 {
        Rope = "rope_bf16", "rope_f32", Rope;
        SwigluForward = "swiglu_forward_bf16", "swiglu_forward_f32", Swiglu;
        SwigluBackward = "swiglu_backward_bf16", "swiglu_backward_f32", Swiglu;
        Embed = "embed_bf16", "embed_f32", Embed;
        AddRows = "add_rows_bf16", "add_rows_f32", AddRows;
    }
    3 {
        LoraUp = "lora_up_bf16", "lora_up_f32", LoraUp;
        LoraDown = "lora_down_bf16", "lora_down_f32", LoraDown;
        DropoutDraw = "dropout_draw_bf16", "dropout_draw_f32", Dropout;
        DropoutApply = "dropout_apply_bf16", "dropout_apply_f32", Dropout;
        DropoutAdd = "dropout_add_bf16", "dropout_add_f32", Dropout;
    }
    4 {
        CrossEntropy = "cross_entropy_bf16", "cross_entropy_f32", CrossEntropy;
    }
    5 {
        GradientSquares = "gradient_squares", "gradient_squares", GradientNorm;
        GradientNorm = "gradient_norm", "gradient_norm", GradientNorm;
        AdamwStep = "adamw_step", "adamw_step", AdamwStep;
    }
    6 {
        PlainForward = "attention_forward_bf16", "attention_forward_f32", PlainAttention;
        PlainQuery = "attention_dq_bf16", "attention_dq_f32", PlainAttention;
        PlainKeys = "attention_dkv_bf16", "attention_dkv_f32", PlainAttention;
        PlainPrefix = "attention_dprefix_bf16", "attention_dprefix_f32", PlainAttention;
    }
}

/// All kernels, ready in the current context.
pub struct Kernels {
    functions: Vec<[sys::CUfunction; 2]>,
}

// SAFETY: a CUfunction is a handle that the driver allows in any thread.
unsafe impl Send for Kernels {}
// SAFETY: as above; launching does not change it.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Loads all families into the current context.
    ///
    /// # Errors
    /// [`LaunchError`] when the driver has no code for this card.
    pub fn load() -> Result<Self, LaunchError> {
        let modules = FATBINS
            .iter()
            .map(|image| load_module(image))
            .collect::<Result<Vec<_>, _>>()?;
        let functions = TABLE
            .iter()
            .map(|(family, names, _)| {
                Ok([
                    find(modules[*family], names[0])?,
                    find(modules[*family], names[1])?,
                ])
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { functions })
    }

    /// Puts one launch into `stream`.
    ///
    /// # Safety
    /// Every address in `params` must be device memory of the current context, as large as the kernel reads
    /// and writes for these sizes, and free of other writers until the launch has ended.
    ///
    /// # Errors
    /// [`LaunchError`] when the driver refuses it.
    pub unsafe fn launch<P: Params>(
        &self,
        kernel: Kernel,
        element: Element,
        grid: Grid,
        params: &P,
        stream: sys::CUstream,
    ) -> Result<(), LaunchError> {
        let (_, names, size) = TABLE[kernel as usize];
        assert_eq!(size_of::<P>(), size, "parameters of {kernel:?}");
        let function = self.functions[kernel as usize][element as usize];
        let mut arguments = [ptr::from_ref(params).cast_mut().cast::<c_void>()];
        // SAFETY: the function takes one struct of this size, which the driver copies before it returns.
        let result = unsafe {
            sys::cuLaunchKernel(
                function,
                grid.blocks.0 as u32,
                grid.blocks.1 as u32,
                1,
                grid.threads.0 as u32,
                grid.threads.1 as u32,
                1,
                0,
                stream,
                arguments.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        check(result, || {
            format!("launch of {} with {grid:?}", names[element as usize])
        })
    }
}

fn load_module(image: &[u8]) -> Result<sys::CUmodule, LaunchError> {
    let mut module = ptr::null_mut();
    // SAFETY: the image is a whole fat binary; the driver reads its length from its header.
    let result = unsafe { sys::cuModuleLoadData(&raw mut module, image.as_ptr().cast()) };
    check(result, || "loading the kernels".to_owned())?;
    Ok(module)
}

fn find(module: sys::CUmodule, name: &str) -> Result<sys::CUfunction, LaunchError> {
    let symbol = CString::new(name).expect("a kernel's name has no zero byte");
    let mut function = ptr::null_mut();
    // SAFETY: the module was loaded and is never unloaded.
    let result =
        unsafe { sys::cuModuleGetFunction(&raw mut function, module, symbol.as_ptr().cast()) };
    check(result, || format!("finding the kernel {name}"))?;
    Ok(function)
}
