//! The CUDA kernels of the `qlora` engine: their sources, compiled into fat binaries, what their launches look
//! like, and their launch through the driver.
//!
//! Promises: nothing of CUDA is needed to start a program that holds this crate; the feature `cuda` compiles the
//! kernels and adds the part that launches. It must not know of models, training or memory plans.

pub mod attention;
#[cfg(feature = "cuda")]
pub mod decode;
#[cfg(feature = "cuda")]
mod module;
#[cfg(feature = "cuda")]
pub mod params;
#[cfg(feature = "cuda")]
mod tensor_map;

#[cfg(feature = "cuda")]
pub use module::{Element, Grid, Kernel, Kernels, LaunchError};
