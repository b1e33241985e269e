//! Warp-level pieces for the attention kernels that run on every card from sm_80: asynchronous
//! copies into swizzled tiles, ldmatrix fragments and the bf16 m16n8k16 product. It promises
//! conflict-free fragment loads for rows of 128 bytes or more; it must not know attention.
//!
//! Fragments as in PTX ISA, "Matrix multiply-accumulate operation using mma instruction", m16n8k16.
#pragma once
#include <cuda_bf16.h>
#include <stdint.h>

namespace attention {

using bf16 = __nv_bfloat16;

__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
__device__ inline void copy16(uint32_t dst, const void* src, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(valid ? 16 : 0));
}
__device__ inline void copy4(uint32_t dst, const void* src, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(dst), "l"(src), "r"(valid ? 4 : 0));
}
__device__ inline void copy_commit() { asm volatile("cp.async.commit_group;"); }
__device__ inline void copy_wait_all() { asm volatile("cp.async.wait_group 0;" ::: "memory"); }

/// Address of 16-byte chunk `chunk` of row `row` in a tile of HD bf16 columns: the low three bits
/// of the chunk are xored with the row, so that eight rows of one chunk lie in eight bank groups.
template <int HD>
__device__ inline uint32_t tile_chunk(uint32_t tile, int row, int chunk) {
  return tile + row * (HD * 2) + ((chunk ^ (row & 7)) << 4);
}

/// Starts the copy of ROWS rows into a tile; rows from `valid` on become zeros.
template <int HD, int ROWS, int THREADS>
__device__ inline void load_tile(uint32_t tile, const bf16* src, int64_t stride, int valid) {
  constexpr int kChunks = HD / 8;
#pragma unroll
  for (int c = threadIdx.x; c < ROWS * kChunks; c += THREADS) {
    const int row = c / kChunks, chunk = c % kChunks;
    const bool ok = row < valid;
    copy16(tile_chunk<HD>(tile, row, chunk), src + (ok ? row : 0) * stride + chunk * 8, ok);
  }
}

__device__ inline void ldmatrix(uint32_t (&r)[4], uint32_t addr) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(addr));
}
__device__ inline void ldmatrix_trans(uint32_t (&r)[4], uint32_t addr) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(addr));
}
__device__ inline void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// acc[16 x BN] += A . B^T, both tiles with HD columns; A's 16 rows start at `row`.
template <int HD, int BN>
__device__ inline void product_rows(float (&acc)[BN / 8][4], uint32_t a_tile, int row, uint32_t b_tile) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int k = 0; k < HD / 16; ++k) {
    uint32_t a[4];
    ldmatrix(a, tile_chunk<HD>(a_tile, row + (lane & 15), k * 2 + (lane >> 4)));
#pragma unroll
    for (int n = 0; n < BN / 16; ++n) {
      uint32_t b[4];
      const int b_row = n * 16 + (lane & 7) + ((lane >> 4) << 3);
      ldmatrix(b, tile_chunk<HD>(b_tile, b_row, k * 2 + ((lane >> 3) & 1)));
      mma(acc[2 * n], a, b[0], b[1]);
      mma(acc[2 * n + 1], a, b[2], b[3]);
    }
  }
}

__device__ inline uint32_t pack(float lo, float hi) {
  __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
  return *reinterpret_cast<uint32_t*>(&v);
}

/// acc[16 x OD] += W . B, with W [16 x BN] in accumulator form, rounded to bf16, and B's columns
/// from `col` on; B is a tile of BN rows and HD columns.
template <int HD, int OD, int BN>
__device__ inline void product_columns(float (&acc)[OD / 8][4], const float (&w)[BN / 8][4], uint32_t b_tile, int col) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int k = 0; k < BN / 16; ++k) {
    const uint32_t a[4] = {pack(w[2 * k][0], w[2 * k][1]), pack(w[2 * k][2], w[2 * k][3]),
                           pack(w[2 * k + 1][0], w[2 * k + 1][1]), pack(w[2 * k + 1][2], w[2 * k + 1][3])};
#pragma unroll
    for (int n = 0; n < OD / 16; ++n) {
      uint32_t b[4];
      ldmatrix_trans(b, tile_chunk<HD>(b_tile, k * 16 + (lane & 15), col / 8 + n * 2 + (lane >> 4)));
      mma(acc[2 * n], a, b[0], b[1]);
      mma(acc[2 * n + 1], a, b[2], b[3]);
    }
  }
}

/// Maximum and sum over the four lanes that hold one row of an accumulator.
__device__ inline float row_max(float v) {
  v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
  return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}
__device__ inline float row_sum(float v) {
  v += __shfl_xor_sync(0xffffffffu, v, 1);
  return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

}  // namespace attention
