//! The compiled kernels, loaded once, looked up once, launched by number.
#![expect(unsafe_code, reason = "the driver's C interface")]

use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::fmt;
use std::ptr;

use cudarc::driver::sys;

use crate::attention::{AttentionParams, Door, Launch};
use crate::params::{self, Params};
use crate::tensor_map;

/// The type of the values that a kernel works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Bytes of dynamic shared memory a block.
    pub shared: usize,
}

impl Grid {
    /// Blocks of `threads` in one row.
    pub fn row(blocks: usize, threads: usize) -> Self {
        Self {
            blocks: (blocks, 1),
            threads: (threads, 1),
            shared: 0,
        }
    }

    /// The same blocks with another number of threads.
    pub fn threads(self, threads: usize) -> Self {
        Self {
            threads: (threads, 1),
            ..self
        }
    }

    /// Enough blocks of `threads` to give each of `items` a thread, times `rows`.
    pub fn cover(items: usize, threads: usize, rows: usize) -> Self {
        Self {
            blocks: (items.div_ceil(threads), rows),
            threads: (threads, 1),
            shared: 0,
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
    /// Whether the card has no memory for it.
    pub out_of_memory: bool,
}

impl LaunchError {
    fn new(what: String, result: sys::CUresult) -> Self {
        Self {
            what,
            code: format!("{result:?}"),
            out_of_memory: result == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY,
        }
    }
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
    Err(LaunchError::new(what(), result))
}

/// Where the attention families begin, and the kernels they hold.
const ATTENTION: usize = 9;
/// How many of them serve every card; the rest are [`WARPGROUP_KERNELS`]'.
const GENERAL: usize = 3;
const ATTENTION_KERNELS: &[(usize, &str)] = &[
    (0, "attention_forward_bf16_hd64"),
    (0, "attention_forward_bf16_hd128"),
    (0, "attention_forward_bf16_hd256"),
    (1, "attention_delta_bf16"),
    (1, "attention_prefix_sum"),
    (1, "attention_dq_bf16_hd64"),
    (1, "attention_dq_bf16_hd128"),
    (1, "attention_dq_bf16_hd256"),
    (1, "attention_dkv_bf16_hd64"),
    (1, "attention_dkv_bf16_hd128"),
    (1, "attention_dkv_bf16_hd256"),
    (2, "attention_forward_f32"),
    (2, "attention_dq_f32"),
    (2, "attention_dkv_f32"),
];
/// Those of [`Door::Warpgroup`], whose families hold code for compute capability 9.0 alone.
const WARPGROUP_KERNELS: &[(usize, &str)] = &[
    (3, "attention_forward_sm90_hd128"),
    (4, "attention_dq_sm90_hd128"),
    (4, "attention_dkv_sm90_hd128"),
];

/// Dynamic shared memory that a kernel gets without asking.
const SHARED: u32 = 48 << 10;

/// In the order of `build.rs`; a family that no target asked for is empty.
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
        NormForwardMasked = "norm_forward_masked_bf16", "norm_forward_masked_f32", NormForwardMasked;
        NormBackwardMasked = "norm_backward_masked_bf16", "norm_backward_masked_f32", NormBackwardMasked;
    }
    2 {
        Rope = "rope_bf16", "rope_f32", Rope;
        SwigluForward = "swiglu_forward_bf16", "swiglu_forward_f32", Swiglu;
        SwigluBackward = "swiglu_backward_bf16", "swiglu_backward_f32", Swiglu;
        SwigluForwardMasked = "swiglu_forward_masked_bf16", "swiglu_forward_masked_f32", SwigluMasked;
        SwigluBackwardMasked = "swiglu_backward_masked_bf16", "swiglu_backward_masked_f32", SwigluMasked;
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
        LoraRows = "lora_rows", "lora_rows", LoraRows;
        Nf4Rows1 = "nf4_rows_1", "nf4_rows_1", Nf4Rows;
        Nf4Rows2 = "nf4_rows_2", "nf4_rows_2", Nf4Rows;
        Nf4Rows4 = "nf4_rows_4", "nf4_rows_4", Nf4Rows;
        Nf4Rows8 = "nf4_rows_8", "nf4_rows_8", Nf4Rows;
    }
    7 {
        FinishTurn = "finish_turn_bf16", "finish_turn_f32", FinishTurn;
        FinishGate = "finish_gate_bf16", "finish_gate_f32", FinishGate;
        FinishAdd = "finish_add_bf16", "finish_add_f32", FinishAdd;
        CacheFill = "cache_fill_bf16", "cache_fill_f32", CacheFill;
        ArgMax = "arg_max", "arg_max", ArgMax;
    }
    8 {
        DecodeAttention16 = "decode_attention_f32_hd16", "decode_attention_f32_hd16", DecodeAttention;
        DecodeAttention32 = "decode_attention_f32_hd32", "decode_attention_f32_hd32", DecodeAttention;
        DecodeAttention64 = "decode_attention_bf16_hd64", "decode_attention_f32_hd64", DecodeAttention;
        DecodeAttention128 = "decode_attention_bf16_hd128", "decode_attention_f32_hd128", DecodeAttention;
        DecodeAttention256 = "decode_attention_bf16_hd256", "decode_attention_bf16_hd256", DecodeAttention;
        DecodeMerge = "decode_merge_bf16", "decode_merge_f32", DecodeMerge;
    }
}

impl Kernel {
    /// Its name in the families, for an element type.
    pub fn symbol(self, element: Element) -> &'static str {
        let (_, names, _) = TABLE[self as usize];
        names[element as usize]
    }
}

/// The name of every kernel that can be launched from here; some stand for both element types.
pub fn symbols() -> impl Iterator<Item = &'static str> {
    let of_elements = TABLE.iter().flat_map(|(_, names, _)| *names);
    let attention = ATTENTION_KERNELS.iter().chain(WARPGROUP_KERNELS);
    of_elements.chain(attention.map(|(_, name)| *name))
}

/// All kernels, ready in the current context.
pub struct Kernels {
    functions: Vec<[sys::CUfunction; 2]>,
    attention: BTreeMap<&'static str, sys::CUfunction>,
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
        if !crate::BUILT {
            return Err(LaunchError {
                what: "loading the kernels".to_owned(),
                code: "this program was built without them".to_owned(),
                out_of_memory: false,
            });
        }
        let modules = FATBINS[..ATTENTION + GENERAL]
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
        let mut attention = ATTENTION_KERNELS
            .iter()
            .map(|(family, name)| Ok((*name, find(modules[ATTENTION + family], name)?)))
            .collect::<Result<BTreeMap<_, _>, _>>()?;
        let warpgroup =
            capability()? == (9, 0) && FATBINS[ATTENTION + GENERAL..].iter().all(|f| !f.is_empty());
        if warpgroup {
            for (family, name) in WARPGROUP_KERNELS {
                let module = load_module(FATBINS[ATTENTION + family])?;
                attention.insert(name, find(module, name)?);
            }
        }
        Ok(Self {
            functions,
            attention,
        })
    }

    /// None at all: for a card that is not there.
    pub fn none() -> Self {
        Self {
            functions: Vec::new(),
            attention: BTreeMap::new(),
        }
    }

    /// Whether this card and this build have the kernels of a door.
    pub fn has(&self, door: Door) -> bool {
        match door {
            Door::Warp => true,
            Door::Warpgroup => WARPGROUP_KERNELS
                .iter()
                .all(|(_, name)| self.attention.contains_key(name)),
        }
    }

    /// Whether this card and this build have the kernel of a launch.
    pub fn knows(&self, launch: &Launch) -> bool {
        self.attention.contains_key(launch.kernel)
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
        let blocks = [grid.blocks.0, grid.blocks.1, 1].map(|n| n as u32);
        let threads = [grid.threads.0, grid.threads.1].map(|n| n as u32);
        let shared = grid.shared as u32;
        allow_shared(function, shared, names[element as usize])?;
        let mut arguments = [ptr::from_ref(params).cast_mut().cast::<c_void>()];
        // SAFETY: the function takes one struct of this size.
        unsafe { raw_launch(function, blocks, threads, shared, &mut arguments, stream) }
            .map_err(|code| failed(names[element as usize], &grid, code))
    }

    /// Puts one launch of an attention plan into `stream`.
    ///
    /// # Safety
    /// As [`Kernels::launch`].
    ///
    /// # Errors
    /// [`LaunchError`] when the driver refuses it.
    pub unsafe fn launch_attention(
        &self,
        launch: &Launch,
        params: &AttentionParams,
        stream: sys::CUstream,
    ) -> Result<(), LaunchError> {
        let function = *self
            .attention
            .get(launch.kernel)
            .unwrap_or_else(|| panic!("{} is listed in module.rs", launch.kernel));
        allow_shared(function, launch.shared, launch.kernel)?;
        let mut maps = launch
            .maps
            .iter()
            .map(|map| tensor_map::encode(params.place(map.matrix), *map))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|code| failed(launch.kernel, launch, code))?;
        let mut arguments = vec![ptr::from_ref(params).cast_mut().cast::<c_void>()];
        arguments.extend(
            maps.iter_mut()
                .map(|map| ptr::from_mut(map).cast::<c_void>()),
        );
        // SAFETY: attention kernels take one `AttentionParams` and the maps of their launch.
        unsafe {
            raw_launch(
                function,
                launch.grid,
                [launch.block, 1],
                launch.shared,
                &mut arguments,
                stream,
            )
        }
        .map_err(|code| failed(launch.kernel, launch, code))
    }
}

/// Asks for more dynamic shared memory than a kernel gets by itself.
fn allow_shared(function: sys::CUfunction, shared: u32, name: &str) -> Result<(), LaunchError> {
    if shared <= SHARED {
        return Ok(());
    }
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: the function is loaded.
    let result = unsafe { sys::cuFuncSetAttribute(function, attribute, shared as i32) };
    check(result, || format!("shared memory of {name}"))
}

fn failed(name: &str, grid: &dyn fmt::Debug, code: sys::CUresult) -> LaunchError {
    LaunchError::new(format!("launch of {name} with {grid:?}"), code)
}

/// # Safety
/// `function` must take what `arguments` point at, by value; see [`Kernels::launch`] for the addresses in it.
unsafe fn raw_launch(
    function: sys::CUfunction,
    blocks: [u32; 3],
    threads: [u32; 2],
    shared: u32,
    arguments: &mut [*mut c_void],
    stream: sys::CUstream,
) -> Result<(), sys::CUresult> {
    // SAFETY: the driver copies the arguments before it returns.
    let result = unsafe {
        sys::cuLaunchKernel(
            function,
            blocks[0],
            blocks[1],
            blocks[2],
            threads[0],
            threads[1],
            1,
            shared,
            stream,
            arguments.as_mut_ptr(),
            ptr::null_mut(),
        )
    };
    if result == sys::CUresult::CUDA_SUCCESS {
        Ok(())
    } else {
        Err(result)
    }
}

/// Compute capability of the current context's card.
fn capability() -> Result<(i32, i32), LaunchError> {
    use sys::CUdevice_attribute as Attribute;
    let (mut device, mut found) = (0, [0; 2]);
    // SAFETY: the out-pointers are valid.
    unsafe {
        check(sys::cuCtxGetDevice(&raw mut device), || {
            "asking for the card".to_owned()
        })?;
        for (value, attribute) in found.iter_mut().zip([
            Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        ]) {
            check(sys::cuDeviceGetAttribute(value, attribute, device), || {
                "asking for the compute capability".to_owned()
            })?;
        }
    }
    Ok((found[0], found[1]))
}

fn load_module(image: &[u8]) -> Result<sys::CUmodule, LaunchError> {
    // The driver wants the image aligned.
    let words = image.chunks(8).map(|c| {
        let mut word = [0; 8];
        word[..c.len()].copy_from_slice(c);
        u64::from_ne_bytes(word)
    });
    let image: Vec<u64> = words.collect();
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
