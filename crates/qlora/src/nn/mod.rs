//! The decoder: frozen weights, the LoRA adapter beside them, and an explicit forward and backward,
//! layer by layer. It knows ids, positions and gradients; not text, files of data, or optimizers.

pub mod adapter;
pub(crate) mod decoder;
pub(crate) mod head;
pub(crate) mod layer;
pub(crate) mod linear;
mod load;
pub mod lora;
pub mod model;
pub(crate) mod pass;
pub(crate) mod pool;
pub mod quantize;
mod residual;
pub(crate) mod ropes;
pub mod target;
