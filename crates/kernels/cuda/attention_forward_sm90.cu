//! Attention forward on Hopper, head size 128, no soft cap: what attention_forward.cu computes, with
//! warpgroup products and bulk tensor copies. Same promises. Compiled for sm_90a alone.
//!
//! A block takes 128 queries of one head: one warpgroup copies tiles of 128 keys and values, two
//! compute 64 rows each. The product of the next scores is issued before that of the last
//! probabilities with the values, so that exponentials run under the latter; the two warpgroups take
//! turns, so that one's exponentials run under the other's products (FlashAttention-3, arXiv 2407.08608).
//!
//! Launch: attention_forward_sm90_hd128(Params, TensorMap qkv, TensorMap prefix_k, TensorMap prefix_v)
//!   grid heads * ceil(tokens/128), block 384, dynamic shared 164992.
//!   Maps: bf16, 2 dimensions {columns, rows}, box {64, 128}, 128-byte swizzle, out of range = 0:
//!     qkv {(heads + 2*kv_heads)*128, tokens} by qkv_stride; prefix_k, prefix_v {kv_heads*128, prefix} by
//!     prefix_stride (any valid map where prefix = 0).
#include "attention.cuh"
#include "attention_mma.cuh"
#include "attention_sm90.cuh"

#ifndef ATTENTION_TURNS
#define ATTENTION_TURNS 1
#endif
// Whether the queries stay in registers.
#ifndef ATTENTION_Q_HELD
#define ATTENTION_Q_HELD 1
#endif

using attention::Params;
using attention::TensorMap;

namespace attention {
#if ATTENTION_SM90
constexpr int kRows = 128, kKeys = 128, kTileBytes = 128 * 128 * 2;
// Shared memory: q | k[2] | v[2] | barriers.
constexpr int kK = kTileBytes, kV = 3 * kTileBytes, kBarriers = 5 * kTileBytes;

/// Online softmax state of the two rows of a thread.
struct Softmax {
  float top[2], sum[2];

  /// Turns raw scores into probabilities; `keep` is the factor on what was summed before.
  __device__ void step(float (&s)[64], float scale2, float (&keep)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float m = top[r];
#pragma unroll
      for (int t = 0; t < 16; ++t) m = fmaxf(m, fmaxf(s[4 * t + 2 * r], s[4 * t + 2 * r + 1]));
      m = row_max(m);
      const float base = m == -INFINITY ? 0.f : m * scale2;  // a row of another sequence so far
      keep[r] = exp2_fast(top[r] * scale2 - base);
      top[r] = m;
      float part = 0.f;
#pragma unroll
      for (int t = 0; t < 16; ++t) {
        float &x = s[4 * t + 2 * r], &y = s[4 * t + 2 * r + 1];
        x = exp2_fast(fmaf(x, scale2, -base));
        y = exp2_fast(fmaf(y, scale2, -base));
        part += x + y;
      }
      sum[r] = sum[r] * keep[r] + part;
    }
  }
};

__device__ inline void pack_all(uint32_t (&w)[32], const float (&s)[64]) {
#pragma unroll
  for (int i = 0; i < 32; ++i) w[i] = pack(s[2 * i], s[2 * i + 1]);
}

__device__ inline void copy_in(const Params& p, const KeyTiles& tiles, const TensorMap* qkv, const TensorMap* prefix_k,
                               const TensorMap* prefix_v, uint32_t base, int q0, int head, int kv) {
  const uint32_t bar = base + kBarriers;  // q | k full[2] | k empty[2] | v full[2] | v empty[2]
  barrier_expect(bar, kTileBytes);
  copy_tile<kRows>(base, qkv, bar, head * 128, q0);
  const int count = tiles.count();
  auto load = [&](int n, uint32_t tile, uint32_t full, const TensorMap* prefix, int own_column) {
    const int stage = n & 1;
    if (n >= 2) barrier_wait(full + 16 + 8 * stage, ((n >> 1) + 1) & 1);
    barrier_expect(full + 8 * stage, kTileBytes);
    const bool own = n >= tiles.prefix_tiles;
    const int row = own ? tiles.own_lo + (n - tiles.prefix_tiles) * kKeys : tiles.prefix_lo + n * kKeys;
    copy_tile<kKeys>(tile + stage * kTileBytes, own ? qkv : prefix, full + 8 * stage, own ? own_column : kv * 128, row);
  };
  for (int n = 0; n <= count; ++n) {
    if (n < count) load(n, base + kK, bar + 8, prefix_k, (p.heads + kv) * 128);
    if (n > 0) load(n - 1, base + kV, bar + 40, prefix_v, (p.heads + p.kv_heads + kv) * 128);
  }
}

__device__ inline void compute(const Params& p, const KeyTiles& tiles, uint32_t base, int q0, int head, int team) {
  const uint32_t bar = base + kBarriers, k_full = bar + 8, k_empty = bar + 24, v_full = bar + 40, v_empty = bar + 56;
  const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3;
  const int row[2] = {q0 + team * 64 + warp * 16 + lane / 4, q0 + team * 64 + warp * 16 + lane / 4 + 8};
  const Bounds pre[2] = {prefix_keys(p, row[0]), prefix_keys(p, row[1])};
  const Bounds own[2] = {own_keys(p, row[0]), own_keys(p, row[1])};
  const int all_from = p.seq_start[min(q0 + kRows, p.tokens) - 1];
  const int count = tiles.count();
  const float scale2 = p.scale * kLog2E;
  const uint32_t q = base + team * 64 * 128;

  auto mask = [&](float (&s)[64], int n) {
    const bool in_prefix = n < tiles.prefix_tiles;
    const int col0 = in_prefix ? tiles.prefix_lo + n * kKeys : tiles.own_lo + (n - tiles.prefix_tiles) * kKeys;
    const bool whole = p.window == 0 && q0 + kRows <= p.tokens &&
                       (in_prefix ? col0 + kKeys <= p.prefix : col0 >= all_from && col0 + kKeys - 1 <= q0 + team * 64);
    if (whole) return;
    const Bounds b[2] = {in_prefix ? pre[0] : own[0], in_prefix ? pre[1] : own[1]};
#pragma unroll
    for (int e = 0; e < 64; ++e) {
      const int col = col0 + (e >> 2) * 8 + (lane & 3) * 2 + (e & 1);
      if (!b[(e >> 1) & 1].has(col)) s[e] = -INFINITY;
    }
  };

  float acc[64], s[64], keep[2];
  uint32_t w[32];
#pragma unroll
  for (int i = 0; i < 64; ++i) acc[i] = 0.f;
  Softmax soft{{-INFINITY, -INFINITY}, {0.f, 0.f}};

#if ATTENTION_TURNS
  if (team == 1) named_arrive(1, 256);  // the first turn is team 0's
#endif
  barrier_wait(bar, 0);
#if ATTENTION_Q_HELD
  uint32_t held[32];
  hold_rows<kRows>(held, q);
#endif
  auto scores = [&](uint32_t k) {
#if ATTENTION_Q_HELD
    product_rows_rs<kKeys>(s, held, k);
#else
    product_rows_ss<kRows, kKeys>(s, q, k);
#endif
  };
  barrier_wait(k_full, 0);
  product_fence();
  scores(base + kK);
  product_commit();
  product_wait<0>();
  pin(s);
  if (lane == 0) barrier_arrive(k_empty);
  mask(s, 0);
  soft.step(s, scale2, keep);
  pack_all(w, s);

  for (int n = 1; n < count; ++n) {
    const int stage = n & 1, before = stage ^ 1;
    barrier_wait(k_full + 8 * stage, (n >> 1) & 1);
#if ATTENTION_TURNS
    named_sync(1 + team, 256);
#endif
    pin(acc);
    product_fence();
    scores(base + kK + stage * kTileBytes);
    product_commit();
    barrier_wait(v_full + 8 * before, ((n - 1) >> 1) & 1);
    product_fence();
    product_columns_rs<kKeys>(acc, w, base + kV + before * kTileBytes);
    product_commit();
#if ATTENTION_TURNS
    if (team == 0 || n + 1 < count) named_arrive(2 - team, 256);
#endif
    product_wait<1>();
    pin(s);
    if (lane == 0) barrier_arrive(k_empty + 8 * stage);
    mask(s, n);
    soft.step(s, scale2, keep);
    product_wait<0>();
    pin(acc);
    if (lane == 0) barrier_arrive(v_empty + 8 * before);
    pack_all(w, s);
#pragma unroll
    for (int i = 0; i < 64; ++i) acc[i] *= keep[(i >> 1) & 1];
  }
#if ATTENTION_TURNS
  if (team == 0 && count == 1) named_sync(1, 256);  // takes the turn that was offered
#endif
  const int stage = (count - 1) & 1;
  barrier_wait(v_full + 8 * stage, ((count - 1) >> 1) & 1);
  pin(acc);
  product_fence();
  product_columns_rs<kKeys>(acc, w, base + kV + stage * kTileBytes);
  product_commit();
  product_wait<0>();
  pin(acc);

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float total = row_sum(soft.sum[r]);
    if (row[r] >= p.tokens) continue;
    const float inverse = 1.f / total;
    uint32_t* out = reinterpret_cast<uint32_t*>(static_cast<bf16*>(p.out) + row[r] * p.out_stride + head * 128);
#pragma unroll
    for (int t = 0; t < 16; ++t)
      out[t * 4 + (lane & 3)] = pack(acc[4 * t + 2 * r] * inverse, acc[4 * t + 2 * r + 1] * inverse);
    if ((lane & 3) == 0) p.lse[head * static_cast<int64_t>(p.tokens) + row[r]] = soft.top[r] * p.scale + log2f(total) * kLn2;
  }
}
#endif
}  // namespace attention

extern "C" __global__ void __launch_bounds__(384, 1)
attention_forward_sm90_hd128(const __grid_constant__ Params p, const __grid_constant__ TensorMap qkv,
                             const __grid_constant__ TensorMap prefix_k, const __grid_constant__ TensorMap prefix_v) {
#if ATTENTION_SM90
  using namespace attention;
  extern __shared__ char smem[];
  const uint32_t base = (shared_address(smem) + 1023) & ~1023u;
  const uint32_t bar = base + kBarriers;
  if (threadIdx.x == 0) {
    barrier_init(bar, 1);
    for (int i = 0; i < 2; ++i) {
      barrier_init(bar + 8 + 8 * i, 1);
      barrier_init(bar + 24 + 8 * i, 8);  // one arrival a computing warp
      barrier_init(bar + 40 + 8 * i, 1);
      barrier_init(bar + 56 + 8 * i, 8);
    }
    barriers_ready();
  }
  __syncthreads();
  const BlockPlace at = place(blockIdx.x, p.heads, gridDim.x / p.heads);
  // Late queries see most keys: they start first.
  const int head = at.head, kv = head / (p.heads / p.kv_heads), q0 = (gridDim.x / p.heads - 1 - at.tile) * kRows;
  const KeyTiles tiles = key_tiles<kKeys>(p, q0, min(q0 + kRows, p.tokens));
  if (threadIdx.x < 128) {
    registers_down<24>();
    if (threadIdx.x == 0) copy_in(p, tiles, &qkv, &prefix_k, &prefix_v, base, q0, head, kv);
  } else {
    registers_up<240>();
    compute(p, tiles, base, q0, head, threadIdx.x / 128 - 1);
  }
#else
  __trap();
#endif
}
