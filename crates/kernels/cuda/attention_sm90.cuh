//! Hopper pieces for the attention kernels: transaction barriers, bulk tensor copies, warpgroup
//! products on 128-byte swizzled tiles, register hand-over. It promises nothing on other cards (its
//! users are compiled for sm_90a alone); it must not know attention.
//!
//! A tile is [rows][128 columns] of bf16 as two boxes of [rows][64 columns], each row of a box 128
//! bytes, swizzled as the copy engine writes it (CU_TENSOR_MAP_SWIZZLE_128B). Descriptors: PTX ISA,
//! "Asynchronous warpgroup level matrix shared memory layout"; a tile read with its rows along k is
//! "MN-major" there: 64-column boxes lie `leading` bytes apart, groups of 8 rows 1024 bytes.
#pragma once
#include <stdint.h>

namespace attention {

/// CUtensorMap, without the driver's header.
struct alignas(128) TensorMap { uint64_t bytes[16]; };

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define ATTENTION_SM90 1

__device__ inline void barrier_init(uint32_t bar, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(arrivals));
}
/// Makes fresh barriers known to the copy engine; a __syncthreads makes them known to the block.
__device__ inline void barriers_ready() {
  asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
}
__device__ inline void barrier_expect(uint32_t bar, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
__device__ inline void barrier_arrive(uint32_t bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
__device__ inline void barrier_wait(uint32_t bar, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@!done bra again;\n}"
      ::"r"(bar), "r"(parity) : "memory");
}
/// Meeting point of `threads` threads; arriving does not wait.
__device__ inline void named_sync(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
__device__ inline void named_arrive(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

__device__ inline void copy_box(uint32_t dst, const TensorMap* map, uint32_t bar, int column, int row) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
               ::"r"(dst), "l"(map), "r"(column), "r"(row), "r"(bar) : "memory");
}
/// Tile of ROWS rows and 128 columns from (row, column); rows past the matrix read as zero.
template <int ROWS>
__device__ inline void copy_tile(uint32_t dst, const TensorMap* map, uint32_t bar, int column, int row) {
  copy_box(dst, map, bar, column, row);
  copy_box(dst + ROWS * 128, map, bar, column + 64, row);
}

/// 2^x in one instruction; results below 2^-126 are 0.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

template <int N> __device__ inline void registers_up() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> __device__ inline void registers_down() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }

__device__ inline void product_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void product_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ inline void product_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }
/// Keeps the compiler from moving uses of an accumulator across this point.
template <int N> __device__ inline void pin(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

__device__ inline uint64_t descriptor(uint32_t addr, int leading) {
  return static_cast<uint64_t>((addr & 0x3ffff) >> 4) | static_cast<uint64_t>(leading >> 4) << 16 |
         static_cast<uint64_t>(1024 >> 4) << 32 | 1ull << 62;
}

#define ACC8(c, d, i) c(d[i]), c(d[i + 1]), c(d[i + 2]), c(d[i + 3]), c(d[i + 4]), c(d[i + 5]), c(d[i + 6]), c(d[i + 7])
#define ACC32(c, d, i) ACC8(c, d, i), ACC8(c, d, i + 8), ACC8(c, d, i + 16), ACC8(c, d, i + 24)
#define R32 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define R64 R32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

/// d[64 x 64 or 128] = or += A . B^T, both from shared memory, k = 16 columns of each.
template <bool ADD>
__device__ inline void wgmma_ss(float (&d)[32], uint64_t a, uint64_t b) {
  if constexpr (ADD)
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" R32 "}, %32, %33, 1, 1, 1, 0, 0;"
                 : ACC32("+f", d, 0) : "l"(a), "l"(b));
  else
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" R32 "}, %32, %33, 0, 1, 1, 0, 0;"
                 : ACC32("=f", d, 0) : "l"(a), "l"(b));
}
template <bool ADD>
__device__ inline void wgmma_ss(float (&d)[64], uint64_t a, uint64_t b) {
  if constexpr (ADD)
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" R64 "}, %64, %65, 1, 1, 1, 0, 0;"
                 : ACC32("+f", d, 0), ACC32("+f", d, 32) : "l"(a), "l"(b));
  else
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" R64 "}, %64, %65, 0, 1, 1, 0, 0;"
                 : ACC32("=f", d, 0), ACC32("=f", d, 32) : "l"(a), "l"(b));
}
/// d[64 x 128] += A . B, A from registers, B's k = 16 rows from shared memory.
__device__ inline void wgmma_rs(float (&d)[64], const uint32_t* a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" R64 "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"
               : ACC32("+f", d, 0), ACC32("+f", d, 32) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
/// d[64 x 64 or 128] = or += A . B^T, A from registers, k = 16 columns of B's rows from shared memory.
template <bool ADD>
__device__ inline void wgmma_rows_rs(float (&d)[32], const uint32_t* a, uint64_t b) {
  if constexpr (ADD)
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" R32 "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 0;"
                 : ACC32("+f", d, 0) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  else
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" R32 "}, {%32,%33,%34,%35}, %36, 0, 1, 1, 0;"
                 : ACC32("=f", d, 0) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <bool ADD>
__device__ inline void wgmma_rows_rs(float (&d)[64], const uint32_t* a, uint64_t b) {
  if constexpr (ADD)
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" R64 "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 0;"
                 : ACC32("+f", d, 0), ACC32("+f", d, 32) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  else
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" R64 "}, {%64,%65,%66,%67}, %68, 0, 1, 1, 0;"
                 : ACC32("=f", d, 0), ACC32("=f", d, 32) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

/// d = A . B^T over 128 columns: A's 64 rows at `a` in a tile of A_ROWS, B all B_ROWS of its tile.
template <int A_ROWS, int B_ROWS, int N>
__device__ inline void product_rows_ss(float (&d)[N], uint32_t a, uint32_t b) {
  wgmma_ss<false>(d, descriptor(a, 16), descriptor(b, 16));
#pragma unroll
  for (int k = 1; k < 8; ++k)
    wgmma_ss<true>(d, descriptor(a + (k >> 2) * A_ROWS * 128 + (k & 3) * 32, 16), descriptor(b + (k >> 2) * B_ROWS * 128 + (k & 3) * 32, 16));
}
/// A warpgroup's 64 rows at `tile` (in a tile of ROWS) as the registers of an A operand.
template <int ROWS>
__device__ inline void hold_rows(uint32_t (&a)[32], uint32_t tile) {
  const int lane = threadIdx.x & 31, row = ((threadIdx.x >> 5) & 3) * 16 + (lane & 15);
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    uint32_t r[4];
    ldmatrix(r, tile + (k >> 2) * ROWS * 128 + row * 128 + ((((k & 3) * 2 + (lane >> 4)) ^ (row & 7)) << 4));
#pragma unroll
    for (int i = 0; i < 4; ++i) a[4 * k + i] = r[i];
  }
}
/// d = A . B^T over 128 columns, A held, B a tile of B_ROWS.
template <int B_ROWS, int N>
__device__ inline void product_rows_rs(float (&d)[N], const uint32_t (&a)[32], uint32_t b) {
  wgmma_rows_rs<false>(d, a, descriptor(b, 16));
#pragma unroll
  for (int k = 1; k < 8; ++k) wgmma_rows_rs<true>(d, a + 4 * k, descriptor(b + (k >> 2) * B_ROWS * 128 + (k & 3) * 32, 16));
}
/// d += W . B: W [64 x ROWS] packed in registers, B a tile of ROWS rows.
template <int ROWS>
__device__ inline void product_columns_rs(float (&d)[64], const uint32_t (&w)[ROWS / 4], uint32_t b) {
#pragma unroll
  for (int k = 0; k < ROWS / 16; ++k) wgmma_rs(d, w + 4 * k, descriptor(b + k * 2048, ROWS * 128));
}
#endif

}  // namespace attention
