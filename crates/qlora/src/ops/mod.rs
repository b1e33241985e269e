//! The operations of the engine on f32 slices: each with its formula, its explicit backward, and a
//! plain reference in its tests. A later device door stands beside the one here.
//!
//! Promise: the bits of a result do not depend on the number of threads. Every reduction has a fixed
//! order, and work is cut by shape, never by the number of workers. Nothing here knows of models.

pub(crate) mod attended;
pub(crate) mod attention;
mod attention_block;
pub(crate) mod cross_entropy;
pub(crate) mod dropout;
pub(crate) mod gemm;
pub(crate) mod glu;
pub(crate) mod head_norm;
pub(crate) mod rmsnorm;
pub(crate) mod rope;
pub(crate) mod simd;
mod skinny;
pub(crate) mod softcap;
pub(crate) mod view;

/// Rows handed to one worker at a time by the elementwise operations.
pub(crate) const ROWS_PER_TASK: usize = 16;
