//! CUDA kernels of the qlora engine and what their launches look like.

pub mod attention;
