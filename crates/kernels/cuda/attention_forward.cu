//! Attention forward: out and its log-sum-exp, for packed causal sequences with an optional
//! shared prefix, window and soft cap (attention.cuh says which keys a query sees).
//! It promises the same bits for the same inputs; it must not know how it is scheduled.
//! Online softmax over key tiles as in FlashAttention-2 (arXiv 2307.08691, algorithm 1).
//!
//! Launch (src/attention.rs computes all of it); every kernel takes one attention::Params by value:
//!   attention_bounds            grid ceil(tokens/256), block 256; its own arguments, see below
//!   attention_forward_bf16_hd64   grid (ceil(tokens/64), heads), block 128, dynamic shared  40960
//!   attention_forward_bf16_hd128  the same,                              dynamic shared  81920
//!   attention_forward_bf16_hd256  the same,                              dynamic shared  98304
#include "attention.cuh"
#include "attention_mma.cuh"

namespace attention {

/// A tile of 64 queries, four warps of 16 rows; key tiles of BN rows, two in flight.
template <int HD, int BN>
__device__ void forward(const Params& p) {
  constexpr int kRows = 64, kThreads = 128;
  constexpr int kTile = BN * HD * 2;
  extern __shared__ __align__(128) char smem[];
  const uint32_t q_tile = shared_address(smem);
  const uint32_t stages = q_tile + kRows * HD * 2;

  // Late queries see most keys: they start first.
  const int q0 = (gridDim.x - 1 - blockIdx.x) * kRows, q1 = min(q0 + kRows, p.tokens);
  const int head = blockIdx.y, kv = head / (p.heads / p.kv_heads);
  const bf16* q = static_cast<const bf16*>(p.qkv) + head * HD;
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
  load_keys(0);

  const int lane = threadIdx.x & 31, warp_row = (threadIdx.x >> 5) * 16;
  const int row[2] = {q0 + warp_row + lane / 4, q0 + warp_row + lane / 4 + 8};
  const Bounds pre[2] = {prefix_keys(p, row[0]), prefix_keys(p, row[1])};
  const Bounds own[2] = {own_keys(p, row[0]), own_keys(p, row[1])};
  const int all_from = p.seq_start[q1 - 1];  // from here to q0 every row of the tile sees every own key
  const float scale2 = p.scale * kLog2E;

  float acc[HD / 8][4] = {};
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0.f, 0.f};
  for (int n = 0; n < count; ++n) {
    copy_wait_all();
    __syncthreads();
    if (n + 1 < count) load_keys(n + 1);
    const uint32_t k_tile = stages + (n & 1) * 2 * kTile;
    float s[BN / 8][4] = {};
    product_rows<HD, BN>(s, q_tile, warp_row, k_tile);

    const bool in_prefix = n < tiles.prefix_tiles;
    const int col0 = in_prefix ? tiles.prefix_lo + n * BN : tiles.own_lo + (n - tiles.prefix_tiles) * BN;
    const bool whole = p.window == 0 && q0 + kRows <= p.tokens &&
                       (in_prefix ? col0 + BN <= p.prefix : col0 >= all_from && col0 + BN - 1 <= q0);
#pragma unroll
    for (int t = 0; t < BN / 8; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        s[t][e] = p.soft_cap > 0.f ? p.soft_cap * kLog2E * tanhf(s[t][e] * p.scale / p.soft_cap) : s[t][e] * scale2;
        if (!whole) {
          const int col = col0 + t * 8 + (lane & 3) * 2 + (e & 1);
          const Bounds b = in_prefix ? pre[e >> 1] : own[e >> 1];
          if (!b.has(col)) s[t][e] = -INFINITY;
        }
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float m = top[r];
#pragma unroll
      for (int t = 0; t < BN / 8; ++t) m = fmaxf(m, fmaxf(s[t][2 * r], s[t][2 * r + 1]));
      m = row_max(m);
      const float base = m == -INFINITY ? 0.f : m;  // a row of another sequence so far
      const float keep = exp2f(top[r] - base);
      top[r] = m;
      sum[r] *= keep;
#pragma unroll
      for (int t = 0; t < HD / 8; ++t) { acc[t][2 * r] *= keep; acc[t][2 * r + 1] *= keep; }
#pragma unroll
      for (int t = 0; t < BN / 8; ++t) {
        s[t][2 * r] = exp2f(s[t][2 * r] - base);
        s[t][2 * r + 1] = exp2f(s[t][2 * r + 1] - base);
        sum[r] += s[t][2 * r] + s[t][2 * r + 1];
      }
    }
    product_columns<HD, HD, BN>(acc, s, k_tile + kTile, 0);
  }

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float total = row_sum(sum[r]);
    if (row[r] >= p.tokens) continue;
    const float inverse = 1.f / total;
    uint32_t* out = reinterpret_cast<uint32_t*>(static_cast<bf16*>(p.out) + row[r] * p.out_stride + head * HD);
#pragma unroll
    for (int t = 0; t < HD / 8; ++t)
      out[t * 4 + (lane & 3)] = pack(acc[t][2 * r] * inverse, acc[t][2 * r + 1] * inverse);
    if ((lane & 3) == 0) p.lse[head * static_cast<int64_t>(p.tokens) + row[r]] = (top[r] + log2f(total)) * kLn2;
  }
}

}  // namespace attention

using attention::Params;

/// seq_start and seq_end of every token from cu_seqlens[sequences + 1] (its last entry = tokens).
extern "C" __global__ void attention_bounds(const int* cu_seqlens, int sequences, int tokens, int* seq_start, int* seq_end) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t >= tokens) return;
  int lo = 0, hi = sequences;  // cu_seqlens[lo] <= t < cu_seqlens[hi]
  while (hi - lo > 1) {
    const int mid = (lo + hi) / 2;
    if (cu_seqlens[mid] <= t) lo = mid; else hi = mid;
  }
  seq_start[t] = cu_seqlens[lo];
  seq_end[t] = cu_seqlens[lo + 1];
}

extern "C" __global__ void __launch_bounds__(128) attention_forward_bf16_hd64(const __grid_constant__ Params p) {
  attention::forward<64, 64>(p);
}
extern "C" __global__ void __launch_bounds__(128) attention_forward_bf16_hd128(const __grid_constant__ Params p) {
  attention::forward<128, 64>(p);
}
extern "C" __global__ void __launch_bounds__(128) attention_forward_bf16_hd256(const __grid_constant__ Params p) {
  attention::forward<256, 32>(p);
}
