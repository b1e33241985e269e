//! Attention backward: dQ, dK, dV of packed causal sequences and dK, dV of their shared prefix.
//! It promises the same bits for the same inputs and splits: no atomics, every sum in a fixed
//! order. It must not know how it is scheduled.
//!
//! Two passes recompute the scores (7 tile products where one pass with a shared dQ needs 5), each
//! with its outputs in registers and nothing exchanged between blocks: dQ by tiles of queries,
//! dK and dV by tiles of keys. Both compute scores with the rows they own as rows, so that
//! probabilities and score gradients go from the accumulators straight into the next product.
//! Formulas: FlashAttention-2 (arXiv 2307.08691, algorithm 2).
//!
//! Launch, in this order (src/attention.rs computes all of it; one attention::Params by value):
//!   attention_delta_bf16        grid (ceil(tokens/8), heads), block 256, no shared; head_dim set
//!   attention_dq_bf16_hd64      grid (ceil(tokens/64), heads), block 128, dynamic shared 49152
//!   attention_dq_bf16_hd128     the same,                                dynamic shared 65536
//!   attention_dq_bf16_hd256     the same,                                dynamic shared 98304
//!   attention_dkv_bf16_hd64     grid (ceil(prefix/64)*splits + ceil(tokens/64), kv_heads, 1), block 128,
//!                               dynamic shared 49152 + 1536
//!   attention_dkv_bf16_hd128    the same,                              65536 +  768
//!   attention_dkv_bf16_hd256    the same with grid.z = 2,              98304 +  384
//!   attention_prefix_sum        grid ceil(prefix*kv_heads*head_dim/1024), block 256; only if prefix > 0
#include "attention.cuh"
#include "attention_mma.cuh"

namespace attention {

/// Probability and derivative of the capped score at one raw product q.k.
struct Score { float probability, slope; };
__device__ inline Score score(const Params& p, float raw, float lse2) {
  if (p.soft_cap > 0.f) {
    const float t = tanhf(raw * p.scale / p.soft_cap);
    return {exp2f(p.soft_cap * kLog2E * t - lse2), 1.f - t * t};
  }
  return {exp2f(raw * (p.scale * kLog2E) - lse2), 1.f};
}

template <int HD>
__device__ inline void store_rows(bf16* dst, int64_t stride, const float (&acc)[HD / 8][4], const int (&row)[2], int limit,
                                  float scale, const float* add, int64_t add_stride) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (row[r] >= limit) continue;
#pragma unroll
    for (int t = 0; t < HD / 8; ++t) {
      const int col = t * 8 + (lane & 3) * 2;
      float x = acc[t][2 * r] * scale, y = acc[t][2 * r + 1] * scale;
      if (add != nullptr) {
        const float2 a = *reinterpret_cast<const float2*>(add + row[r] * add_stride + col);
        x += a.x;
        y += a.y;
      }
      *reinterpret_cast<uint32_t*>(dst + row[r] * stride + col) = pack(x, y);
    }
  }
}

/// dQ of a tile of 64 queries, four warps of 16 rows; key tiles of BN rows, two in flight.
template <int HD, int BN>
__device__ void d_query(const Params& p) {
  constexpr int kRows = 64, kThreads = 128, kTile = BN * HD * 2;
  extern __shared__ __align__(128) char smem[];
  const uint32_t q_tile = shared_address(smem), do_tile = q_tile + kRows * HD * 2;
  const uint32_t stages = do_tile + kRows * HD * 2;
  const int q0 = (gridDim.x - 1 - blockIdx.x) * kRows, q1 = min(q0 + kRows, p.tokens);
  const int head = blockIdx.y, kv = head / (p.heads / p.kv_heads);
  const bf16* q = static_cast<const bf16*>(p.qkv) + head * HD;
  const bf16* d_out = static_cast<const bf16*>(p.d_out) + head * HD;
  const bf16* own_k = static_cast<const bf16*>(p.qkv) + (p.heads + kv) * HD;
  const bf16* own_v = own_k + p.kv_heads * HD;
  const bf16* pre_k = static_cast<const bf16*>(p.prefix_k) + kv * HD;
  const bf16* pre_v = static_cast<const bf16*>(p.prefix_v) + kv * HD;
  const KeyTiles tiles = key_tiles<BN>(p, q0, q1);
  const int count = tiles.count();

  auto load_keys = [&](int n) {
    const uint32_t k_tile = stages + (n & 1) * 2 * kTile;
    if (n < tiles.prefix_tiles) {
      const int c = tiles.prefix_lo + n * BN;
      load_tile<HD, BN, kThreads>(k_tile, pre_k + c * p.prefix_stride, p.prefix_stride, p.prefix - c);
      load_tile<HD, BN, kThreads>(k_tile + kTile, pre_v + c * p.prefix_stride, p.prefix_stride, p.prefix - c);
    } else {
      const int j = tiles.own_lo + (n - tiles.prefix_tiles) * BN;
      load_tile<HD, BN, kThreads>(k_tile, own_k + j * p.qkv_stride, p.qkv_stride, p.tokens - j);
      load_tile<HD, BN, kThreads>(k_tile + kTile, own_v + j * p.qkv_stride, p.qkv_stride, p.tokens - j);
    }
    copy_commit();
  };
  load_tile<HD, kRows, kThreads>(q_tile, q + q0 * p.qkv_stride, p.qkv_stride, p.tokens - q0);
  load_tile<HD, kRows, kThreads>(do_tile, d_out + q0 * p.d_out_stride, p.d_out_stride, p.tokens - q0);
  load_keys(0);

  const int lane = threadIdx.x & 31, warp_row = (threadIdx.x >> 5) * 16;
  const int row[2] = {q0 + warp_row + lane / 4, q0 + warp_row + lane / 4 + 8};
  const Bounds pre[2] = {prefix_keys(p, row[0]), prefix_keys(p, row[1])};
  const Bounds own[2] = {own_keys(p, row[0]), own_keys(p, row[1])};
  float lse2[2], delta[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int64_t at = head * static_cast<int64_t>(p.tokens) + min(row[r], p.tokens - 1);
    lse2[r] = p.lse[at] * kLog2E;
    delta[r] = p.delta[at];
  }

  float acc[HD / 8][4] = {};
  for (int n = 0; n < count; ++n) {
    copy_wait_all();
    __syncthreads();
    if (n + 1 < count) load_keys(n + 1);
    const uint32_t k_tile = stages + (n & 1) * 2 * kTile;
    float s[BN / 8][4] = {}, dp[BN / 8][4] = {};
    product_rows<HD, BN>(s, q_tile, warp_row, k_tile);
    product_rows<HD, BN>(dp, do_tile, warp_row, k_tile + kTile);
    const bool in_prefix = n < tiles.prefix_tiles;
    const int col0 = in_prefix ? tiles.prefix_lo + n * BN : tiles.own_lo + (n - tiles.prefix_tiles) * BN;
#pragma unroll
    for (int t = 0; t < BN / 8; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int col = col0 + t * 8 + (lane & 3) * 2 + (e & 1), r = e >> 1;
        const Score x = score(p, s[t][e], lse2[r]);
        const bool valid = in_prefix ? pre[r].has(col) : own[r].has(col);
        s[t][e] = valid ? x.probability * (dp[t][e] - delta[r]) * x.slope : 0.f;
      }
    }
    product_columns<HD, HD, BN>(acc, s, k_tile, 0);
  }
  bf16* d_q = static_cast<bf16*>(p.d_qkv) + head * HD;
  store_rows<HD>(d_q, p.d_qkv_stride, acc, row, p.tokens, p.scale, nullptr, 0);
}

/// dK and dV of a tile of 64 keys (columns col..col+OD of them), over all heads of the group and
/// tiles of BN queries, two in flight. The first blocks take the prefix in `splits` parts of its
/// (head, query tile) list, each into its own partial sum; the rest take own keys.
template <int HD, int OD, int BN>
__device__ void d_key_value(const Params& p) {
  constexpr int kRows = 64, kThreads = 128, kTile = BN * HD * 2;
  extern __shared__ __align__(128) char smem[];
  const uint32_t k_tile = shared_address(smem), v_tile = k_tile + kRows * HD * 2;
  const uint32_t stages = v_tile + kRows * HD * 2;
  float* stats = reinterpret_cast<float*>(smem + 2 * kRows * HD * 2 + 4 * kTile);  // [2][3][BN]: lse, delta, seq_start

  const int kv = blockIdx.y, group = p.heads / p.kv_heads, col = blockIdx.z * OD;
  const int prefix_blocks = ceil_div(p.prefix, kRows) * p.splits;
  const bool in_prefix = static_cast<int>(blockIdx.x) < prefix_blocks;
  const int split = in_prefix ? blockIdx.x % p.splits : 0;
  const int k0 = (in_prefix ? blockIdx.x / p.splits : blockIdx.x - prefix_blocks) * kRows;
  const int limit = in_prefix ? p.prefix : p.tokens;
  const int k1 = min(k0 + kRows, limit);

  // Query tiles per head, then this block's part of the (head, tile) list.
  int from = 0, to = p.tokens;
  if (!in_prefix) {
    from = k0;
    to = own_queries(p, k1 - 1).hi + 1;
  }
  const int per_head = ceil_div(to - from, BN), all = per_head * group;
  const int first = in_prefix ? static_cast<int>(static_cast<int64_t>(all) * split / p.splits) : 0;
  const int last = in_prefix ? static_cast<int>(static_cast<int64_t>(all) * (split + 1) / p.splits) : all;

  const bf16* qkv = static_cast<const bf16*>(p.qkv);
  auto load_queries = [&](int n) {
    const int head = kv * group + n / per_head, i = from + (n % per_head) * BN, stage = (n - first) & 1;
    const uint32_t q_tile = stages + stage * 2 * kTile;
    load_tile<HD, BN, kThreads>(q_tile, qkv + i * p.qkv_stride + head * HD, p.qkv_stride, p.tokens - i);
    load_tile<HD, BN, kThreads>(q_tile + kTile, static_cast<const bf16*>(p.d_out) + i * p.d_out_stride + head * HD, p.d_out_stride,
                                p.tokens - i);
    if (threadIdx.x < BN) {
      const bool ok = i + static_cast<int>(threadIdx.x) < p.tokens;
      const int t = ok ? i + threadIdx.x : 0;
      const int64_t at = head * static_cast<int64_t>(p.tokens) + t;
      const uint32_t s = shared_address(stats + stage * 3 * BN + threadIdx.x);
      copy4(s, p.lse + at, ok);
      copy4(s + 4 * BN, p.delta + at, ok);
      copy4(s + 8 * BN, p.seq_start + t, ok);
    }
    copy_commit();
  };
  const bf16* k = in_prefix ? static_cast<const bf16*>(p.prefix_k) + kv * HD : qkv + (p.heads + kv) * HD;
  const bf16* v = in_prefix ? static_cast<const bf16*>(p.prefix_v) + kv * HD : qkv + (p.heads + p.kv_heads + kv) * HD;
  const int64_t k_stride = in_prefix ? p.prefix_stride : p.qkv_stride;
  load_tile<HD, kRows, kThreads>(k_tile, k + k0 * k_stride, k_stride, limit - k0);
  load_tile<HD, kRows, kThreads>(v_tile, v + k0 * k_stride, k_stride, limit - k0);
  if (first < last) load_queries(first); else copy_commit();

  const int lane = threadIdx.x & 31, warp_row = (threadIdx.x >> 5) * 16;
  const int row[2] = {k0 + warp_row + lane / 4, k0 + warp_row + lane / 4 + 8};
  Bounds seen[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) seen[r] = in_prefix ? Bounds{0, p.tokens - 1} : own_queries(p, row[r]);
  const bool by_position = in_prefix && p.window > 0;

  float d_k[OD / 8][4] = {}, d_v[OD / 8][4] = {};
  for (int n = first; n < last; ++n) {
    copy_wait_all();
    __syncthreads();
    if (n + 1 < last) load_queries(n + 1);
    const int stage = (n - first) & 1, i0 = from + (n % per_head) * BN;
    const uint32_t q_tile = stages + stage * 2 * kTile;
    const float* lse = stats + stage * 3 * BN;
    const int* start = reinterpret_cast<const int*>(lse + 2 * BN);
    float s[BN / 8][4] = {}, dp[BN / 8][4] = {};
    product_rows<HD, BN>(s, k_tile, warp_row, q_tile);
    product_rows<HD, BN>(dp, v_tile, warp_row, q_tile + kTile);
#pragma unroll
    for (int t = 0; t < BN / 8; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int c = t * 8 + (lane & 3) * 2 + (e & 1), r = e >> 1, i = i0 + c;
        const Score x = score(p, s[t][e], lse[c] * kLog2E);
        bool valid = seen[r].has(i);
        if (by_position) valid = valid && p.prefix + (i - start[c]) - row[r] < p.window;
        s[t][e] = valid ? x.probability : 0.f;
        dp[t][e] = valid ? x.probability * (dp[t][e] - lse[BN + c]) * x.slope : 0.f;
      }
    }
    product_columns<HD, OD, BN>(d_v, s, q_tile + kTile, col);
    product_columns<HD, OD, BN>(d_k, dp, q_tile, col);
  }

  const int64_t width = static_cast<int64_t>(p.kv_heads) * HD;
  if (!in_prefix) {
    bf16* out = static_cast<bf16*>(p.d_qkv) + (p.heads + kv) * HD + col;
    const float* add_k = p.add_d_k == nullptr ? nullptr : p.add_d_k + kv * HD + col;
    const float* add_v = p.add_d_v == nullptr ? nullptr : p.add_d_v + kv * HD + col;
    store_rows<OD>(out, p.d_qkv_stride, d_k, row, p.tokens, p.scale, add_k, width);
    store_rows<OD>(out + width, p.d_qkv_stride, d_v, row, p.tokens, 1.f, add_v, width);
    return;
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (row[r] >= p.prefix) continue;
    float* out = p.partial + (static_cast<int64_t>(split) * 2 * p.prefix + row[r]) * width + kv * HD + col;
#pragma unroll
    for (int t = 0; t < OD / 8; ++t) {
      const int c = t * 8 + (lane & 3) * 2;
      *reinterpret_cast<float2*>(out + c) = make_float2(d_k[t][2 * r] * p.scale, d_k[t][2 * r + 1] * p.scale);
      *reinterpret_cast<float2*>(out + p.prefix * width + c) = make_float2(d_v[t][2 * r], d_v[t][2 * r + 1]);
    }
  }
}

}  // namespace attention

using attention::Params;

/// delta = sum over the head of out * d_out, one warp a (token, head).
extern "C" __global__ void __launch_bounds__(256) attention_delta_bf16(const __grid_constant__ Params p) {
  const int t = blockIdx.x * 8 + (threadIdx.x >> 5), lane = threadIdx.x & 31, head = blockIdx.y;
  if (t >= p.tokens) return;
  const __nv_bfloat162* o = reinterpret_cast<const __nv_bfloat162*>(
      static_cast<const __nv_bfloat16*>(p.out) + t * p.out_stride + head * p.head_dim);
  const __nv_bfloat162* d = reinterpret_cast<const __nv_bfloat162*>(
      static_cast<const __nv_bfloat16*>(p.d_out) + t * p.d_out_stride + head * p.head_dim);
  float sum = 0.f;
  for (int c = lane; c < p.head_dim / 2; c += 32) {
    const float2 a = __bfloat1622float2(o[c]), b = __bfloat1622float2(d[c]);
    sum += a.x * b.x + a.y * b.y;
  }
#pragma unroll
  for (int m = 16; m > 0; m >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, m);
  if (lane == 0) p.delta[head * static_cast<int64_t>(p.tokens) + t] = sum;
}

/// Adds the prefix's partial dK and dV, in order of the split, to what is there.
extern "C" __global__ void __launch_bounds__(256) attention_prefix_sum(const __grid_constant__ Params p) {
  const int64_t count = static_cast<int64_t>(p.prefix) * p.kv_heads * p.head_dim;
  const int64_t e = (static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x) * 4;
  if (e >= count) return;
#pragma unroll
  for (int which = 0; which < 2; ++which) {
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
    for (int s = 0; s < p.splits; ++s) {
      const float4 x = *reinterpret_cast<const float4*>(p.partial + (2 * s + which) * count + e);
      sum.x += x.x; sum.y += x.y; sum.z += x.z; sum.w += x.w;
    }
    float4* total = reinterpret_cast<float4*>((which == 0 ? p.d_prefix_k : p.d_prefix_v) + e);
    const float4 old = *total;
    *total = make_float4(old.x + sum.x, old.y + sum.y, old.z + sum.z, old.w + sum.w);
  }
}

#define ATTENTION_BACKWARD(hd, od, bn)                                                                        \
  extern "C" __global__ void __launch_bounds__(128) attention_dq_bf16_hd##hd(const __grid_constant__ Params p) {  \
    attention::d_query<hd, bn>(p);                                                                            \
  }                                                                                                           \
  extern "C" __global__ void __launch_bounds__(128) attention_dkv_bf16_hd##hd(const __grid_constant__ Params p) { \
    attention::d_key_value<hd, od, bn>(p);                                                                    \
  }
ATTENTION_BACKWARD(64, 64, 64)
ATTENTION_BACKWARD(128, 128, 32)
ATTENTION_BACKWARD(256, 128, 16)
