//! Tensor maps: how a matrix is described to the copy engine of Hopper and later cards.
//!
//! It promises maps that the driver has accepted; it must not know which kernel reads them.
#![expect(unsafe_code, reason = "the driver's C interface")]

use cudarc::driver::sys;

use crate::attention::{MatrixPlace, TileMap};

/// Columns of a box: 128 bytes, the width of the swizzle.
const COLUMNS: u32 = 64;

/// The map of a bf16 matrix in boxes of 64 columns; what lies outside reads as zeros.
///
/// # Errors
/// The driver's code where it takes no such matrix (address or stride not on 16 bytes).
pub(crate) fn encode(place: MatrixPlace, tile: TileMap) -> Result<sys::CUtensorMap, sys::CUresult> {
    use sys::{
        CUtensorMapDataType as Type, CUtensorMapFloatOOBfill as Fill,
        CUtensorMapInterleave as Interleave, CUtensorMapL2promotion as Promotion,
        CUtensorMapSwizzle as Swizzle,
    };
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    let sizes = [place.columns, place.rows];
    let strides = [2 * place.stride];
    let (tile, steps) = ([COLUMNS, tile.rows], [1, 1]);
    // SAFETY: every pointer holds as many numbers as two dimensions need; the driver only encodes, it does not
    // read the matrix.
    let result = unsafe {
        sys::cuTensorMapEncodeTiled(
            &raw mut map,
            Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            2,
            place.address as *mut _,
            sizes.as_ptr(),
            strides.as_ptr(),
            tile.as_ptr(),
            steps.as_ptr(),
            Interleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            Promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            Fill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    if result == sys::CUresult::CUDA_SUCCESS {
        Ok(map)
    } else {
        Err(result)
    }
}
