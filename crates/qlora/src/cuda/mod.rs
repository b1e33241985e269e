//! Training and generation on an NVIDIA GPU: the same loop, batches and numbers as on the CPU, on own device
//! buffers.
//!
//! Promises: nothing of CUDA is needed to start the program; the same inputs on the same card give the same
//! bits, whatever is kept or computed again; no memory is asked for inside a step. It knows token ids and
//! frozen weights; not schedules, checkpoints or files of data. How and why: docs/cuda.md.

mod attention;
mod base;
mod blas;
mod cards;
mod decoded;
mod decoder;
mod decoders;
mod device;
mod engine;
mod exec;
mod generate;
mod graph;
mod head;
mod layer;
mod linear;
mod memory;
mod nccl;
mod pass;
mod peers;
mod portion;
mod profile;
mod reduce;
mod refuse;
mod step;
mod train;

pub mod bench;

pub use base::{Base, Direct, Precision};
pub use cards::{CARDS, CONTEXT, CardModel};
pub use decoder::Keep;
pub use device::{Device, DeviceInfo};
pub use engine::{CudaEngine, Options};
pub use generate::{Generator, How};
pub use kernels::Element;
pub use kernels::attention::Door;
pub use refuse::refusals;
pub use train::available;
