//! The CUDA kernels of the `qlora` engine: their sources, compiled into fat binaries, what their launches look
//! like, and their launch through the driver.
//!
//! Promises: nothing of CUDA is needed to start a program that holds this crate; without the feature `cuda`
//! there are no kernels in it ([`BUILT`]), and loading them fails. It must not know of models, training or memory plans.

pub mod attention;
pub mod decode;
mod module;
pub mod params;
mod tensor_map;

/// Whether this program holds kernels.
pub const BUILT: bool = cfg!(feature = "cuda");

pub use module::{Element, Grid, Kernel, Kernels, LaunchError, symbols};
