//! Attention backward on Hopper, head size 128, no soft cap: the two passes of attention_backward.cu
//! with warpgroup products and bulk tensor copies. Same promises. Compiled for sm_90a alone.
//!
//! A block keeps a tile of 128 rows (queries and dO, or keys and values), 64 a computing warpgroup;
//! tiles of 64 rows of the other two stream past, four in flight. Scores and their gradients have the
//! kept rows as rows, so both go from accumulators through registers into the next product. The
//! product that uses a tile's score gradients stays in flight while the next tile's scores start.
//!
//! Launch (after attention_delta_bf16; maps as in attention_forward_sm90.cu, with the box's rows given):
//!   attention_dq_sm90_hd128(Params, TensorMap qkv128, d_out128, qkv64, prefix_k64, prefix_v64)
//!     grid heads * ceil(tokens/128), block 384, dynamic shared 197888
//!   attention_dkv_sm90_hd128(Params, TensorMap qkv64, d_out64, qkv128, prefix_k128, prefix_v128)
//!     grid kv_heads * (ceil(prefix/128)*splits + ceil(tokens/128)), block 384, dynamic shared 200960
//!   d_out's map: {heads*128, tokens} by d_out_stride. Then attention_prefix_sum where prefix > 0.
#include "attention.cuh"
#include "attention_mma.cuh"
#include "attention_sm90.cuh"

using attention::Params;
using attention::TensorMap;

namespace attention {
#if ATTENTION_SM90
constexpr int kKept = 128, kMoving = 64, kStages = 4;
constexpr int kKeptBytes = kKept * 256, kMovingBytes = kMoving * 256;
// Shared memory: kept[2] | stages of moving[2] | barriers | statistics (dkv).
constexpr int kRing = 2 * kKeptBytes, kBarriers = kRing + kStages * 2 * kMovingBytes, kStats = kBarriers + 256;

/// Barriers: kept, full[stages], empty[stages].
struct Ring {
  uint32_t base;
  __device__ uint32_t kept() const { return base + kBarriers; }
  __device__ uint32_t full(int n) const { return base + kBarriers + 8 + 8 * (n % kStages); }
  __device__ uint32_t empty(int n) const { return base + kBarriers + 8 + 8 * kStages + 8 * (n % kStages); }
  __device__ uint32_t tile(int n) const { return base + kRing + (n % kStages) * 2 * kMovingBytes; }
  __device__ static uint32_t parity(int n) { return (n / kStages) & 1; }

  __device__ void init(int full_arrivals) const {
    barrier_init(kept(), 1);
    for (int i = 0; i < kStages; ++i) {
      barrier_init(full(i), full_arrivals);
      barrier_init(empty(i), 8);  // one arrival a computing warp
    }
    barriers_ready();
  }
  __device__ void wait_empty(int n) const {
    if (n >= kStages) barrier_wait(empty(n), parity(n) ^ 1);
  }
};

__device__ inline void store_tile(bf16* dst, int64_t stride, const float (&acc)[64], const int (&row)[2], int limit, float scale,
                                  const float* add, int64_t add_stride) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (row[r] >= limit) continue;
#pragma unroll
    for (int t = 0; t < 16; ++t) {
      const int col = t * 8 + (lane & 3) * 2;
      float x = acc[4 * t + 2 * r] * scale, y = acc[4 * t + 2 * r + 1] * scale;
      if (add != nullptr) {
        const float2 a = *reinterpret_cast<const float2*>(add + row[r] * add_stride + col);
        x += a.x;
        y += a.y;
      }
      *reinterpret_cast<uint32_t*>(dst + row[r] * stride + col) = pack(x, y);
    }
  }
}

__device__ inline void pack_half(uint32_t (&w)[16], const float (&s)[32]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) w[i] = pack(s[2 * i], s[2 * i + 1]);
}

// ---- dQ ----

__device__ inline void dq_compute(const Params& p, const KeyTiles& tiles, const Ring& ring, int q0, int head, int team) {
  const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3, first_row = q0 + team * 64;
  const int row[2] = {first_row + warp * 16 + lane / 4, first_row + warp * 16 + lane / 4 + 8};
  const Bounds pre[2] = {prefix_keys(p, row[0]), prefix_keys(p, row[1])};
  const Bounds own[2] = {own_keys(p, row[0]), own_keys(p, row[1])};
  const int all_from = p.seq_start[min(q0 + kKept, p.tokens) - 1], count = tiles.count();
  const float scale2 = p.scale * kLog2E;
  const uint32_t q = ring.base + team * 64 * 128, d_out = q + kKeptBytes;
  float lse2[2], delta[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int64_t at = head * static_cast<int64_t>(p.tokens) + min(row[r], p.tokens - 1);
    lse2[r] = p.lse[at] * kLog2E;
    delta[r] = p.delta[at];
  }

  barrier_wait(ring.kept(), 0);
  uint32_t d_out_held[32];
  hold_rows<kKept>(d_out_held, d_out);
  uint32_t q_held[32];
  hold_rows<kKept>(q_held, q);
  auto probabilities = [&](float (&s)[32], int n) {
    const bool in_prefix = n < tiles.prefix_tiles;
    const int col0 = in_prefix ? tiles.prefix_lo + n * kMoving : tiles.own_lo + (n - tiles.prefix_tiles) * kMoving;
    const bool whole = p.window == 0 && q0 + kKept <= p.tokens &&
                       (in_prefix ? col0 + kMoving <= p.prefix : col0 >= all_from && col0 + kMoving - 1 <= first_row);
#pragma unroll
    for (int e = 0; e < 32; ++e) s[e] = exp2_fast(fmaf(s[e], scale2, -lse2[(e >> 1) & 1]));
    if (whole) return;
    const Bounds b[2] = {in_prefix ? pre[0] : own[0], in_prefix ? pre[1] : own[1]};
#pragma unroll
    for (int e = 0; e < 32; ++e) {
      const int col = col0 + (e >> 2) * 8 + (lane & 3) * 2 + (e & 1);
      if (!b[(e >> 1) & 1].has(col)) s[e] = 0.f;
    }
  };
  auto start = [&](float (&s)[32], float (&dp)[32], int n) {
    const uint32_t k = ring.tile(n);
    barrier_wait(ring.full(n), Ring::parity(n));
    product_fence();
    product_rows_rs<kMoving>(s, q_held, k);
    product_commit();
    product_rows_rs<kMoving>(dp, d_out_held, k + kMovingBytes);
    product_commit();
  };
  auto gradients = [&](float (&s)[32], const float (&dp)[32]) {
#pragma unroll
    for (int e = 0; e < 32; ++e) s[e] *= dp[e] - delta[(e >> 1) & 1];
  };

  float acc[64], s[32], dp[32];
  uint32_t w[16];
#pragma unroll
  for (int i = 0; i < 64; ++i) acc[i] = 0.f;
  start(s, dp, 0);
  product_wait<0>();
  pin(s);
  pin(dp);
  probabilities(s, 0);
  gradients(s, dp);
  pack_half(w, s);
  for (int n = 1; n < count; ++n) {
    start(s, dp, n);
    pin(acc);
    product_fence();
    product_columns_rs<kMoving>(acc, w, ring.tile(n - 1));
    product_commit();
    product_wait<2>();
    pin(s);
    probabilities(s, n);
    product_wait<1>();
    pin(dp);
    gradients(s, dp);
    product_wait<0>();
    pin(acc);
    if (lane == 0) barrier_arrive(ring.empty(n - 1));
    pack_half(w, s);
  }
  pin(acc);
  product_fence();
  product_columns_rs<kMoving>(acc, w, ring.tile(count - 1));
  product_commit();
  product_wait<0>();
  pin(acc);
  store_tile(static_cast<bf16*>(p.d_qkv) + head * 128, p.d_qkv_stride, acc, row, p.tokens, p.scale, nullptr, 0);
}

// ---- dK and dV ----

/// What one block of dK and dV owns: a tile of keys and its part of the (head, query tile) list.
struct KeyWork {
  int kv, k0, split, from, per_head, first, last;
  bool in_prefix;

  __device__ KeyWork(const Params& p, int tiles, int block) {
    const BlockPlace at = place(block, p.kv_heads, tiles);
    const int prefix_tiles = ceil_div(p.prefix, kKept) * p.splits, group = p.heads / p.kv_heads;
    kv = at.head;
    in_prefix = at.tile < prefix_tiles;
    split = in_prefix ? at.tile % p.splits : 0;
    k0 = (in_prefix ? at.tile / p.splits : at.tile - prefix_tiles) * kKept;
    from = in_prefix ? 0 : k0;
    const int to = in_prefix ? p.tokens : own_queries(p, min(k0 + kKept, p.tokens) - 1).hi + 1;
    per_head = ceil_div(to - from, kMoving);
    const int all = per_head * group;
    first = in_prefix ? static_cast<int>(static_cast<int64_t>(all) * split / p.splits) : 0;
    last = in_prefix ? static_cast<int>(static_cast<int64_t>(all) * (split + 1) / p.splits) : all;
  }
  __device__ int head(const Params& p, int n) const { return kv * (p.heads / p.kv_heads) + n / per_head; }
  __device__ int query(int n) const { return from + n % per_head * kMoving; }
};

/// Statistics of a stage: lse in powers of two, delta, seq_start, 64 of each.
///
/// Unlike the tiles they are written and read by plain stores and loads, so each hand-over goes through two
/// meetings. Filled: the lanes of the producer store, meet in a __syncwarp, which orders memory among them, and lane 0
/// arrives at `full`; an arrival releases (.release.cta is its default) all that happens before it, the other lanes'
/// stores included, and readers acquire by waiting for that phase. Emptied: the lanes of a computing warp load, meet in
/// a __syncwarp, and lane 0 arrives at `empty`, which every lane of the producer waits for. (PTX ISA, "Memory
/// consistency model": causality order goes through both.) racecheck calls the middle thread an indirect barrier
/// dependency and follows it by default from Compute Sanitizer 2024.4; docs/performance.md names the later fixes.
__device__ inline float* stats_of(char* smem, int n) { return reinterpret_cast<float*>(smem + kStats) + (n % kStages) * 3 * kMoving; }

__device__ inline void dkv_copy_stats(const Params& p, const KeyWork& work, float* stats, int n) {
  const int lane = threadIdx.x & 31;
  const int64_t row = work.head(p, n) * static_cast<int64_t>(p.tokens);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int c = lane + 32 * i, t = work.query(n) + c;
    const bool ok = t < p.tokens;
    stats[c] = ok ? p.lse[row + t] * kLog2E : INFINITY;  // probability 0
    stats[kMoving + c] = ok ? p.delta[row + t] : 0.f;
    reinterpret_cast<int*>(stats)[2 * kMoving + c] = ok ? p.seq_start[t] : 0;
  }
}

__device__ inline void dkv_compute(const Params& p, const KeyWork& work, const Ring& ring, char* smem, int team) {
  const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3, first_row = work.k0 + team * 64;
  const int row[2] = {first_row + warp * 16 + lane / 4, first_row + warp * 16 + lane / 4 + 8};
  const int limit = work.in_prefix ? p.prefix : p.tokens;
  Bounds seen[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) seen[r] = work.in_prefix ? Bounds{0, p.tokens - 1} : own_queries(p, row[r]);
  const bool by_position = work.in_prefix && p.window > 0;
  // Queries from whole_from up to whole_to are seen by every row of this team.
  const int whole_from = work.in_prefix ? 0 : first_row + 63;
  const int whole_to = p.window > 0 ? 0 : work.in_prefix ? p.tokens : p.seq_end[work.k0];
  const float scale2 = p.scale * kLog2E;
  const uint32_t k = ring.base + team * 64 * 128, v = k + kKeptBytes;

  float d_k[64], d_v[64], s[32], dp[32];
  uint32_t w[16], x[16];
#pragma unroll
  for (int i = 0; i < 64; ++i) d_k[i] = d_v[i] = 0.f;
  auto start = [&](int n) {
    const uint32_t q = ring.tile(n);
    barrier_wait(ring.full(n), Ring::parity(n));
    product_fence();
    product_rows_ss<kKept, kMoving>(s, k, q);
    product_commit();
    product_rows_ss<kKept, kMoving>(dp, v, q + kMovingBytes);
    product_commit();
  };
  barrier_wait(ring.kept(), 0);
  for (int m = work.first; m < work.last; ++m) {
    const int n = m - work.first, i0 = work.query(m);
    const uint32_t q = ring.tile(n), d_out = q + kMovingBytes;
    const float* stats = stats_of(smem, n);
    start(n);
    product_wait<1>();
    pin(d_k);
    __syncwarp();  // every lane has read the last stage's statistics
    if (n > 0 && lane == 0) barrier_arrive(ring.empty(n - 1));
    pin(s);

#pragma unroll
    for (int t = 0; t < 8; ++t) {
      const float2 lse2 = *reinterpret_cast<const float2*>(stats + t * 8 + (lane & 3) * 2);
      s[4 * t] = exp2_fast(fmaf(s[4 * t], scale2, -lse2.x));
      s[4 * t + 1] = exp2_fast(fmaf(s[4 * t + 1], scale2, -lse2.y));
      s[4 * t + 2] = exp2_fast(fmaf(s[4 * t + 2], scale2, -lse2.x));
      s[4 * t + 3] = exp2_fast(fmaf(s[4 * t + 3], scale2, -lse2.y));
    }
    if (i0 < whole_from || i0 + kMoving > whole_to) {
#pragma unroll
      for (int e = 0; e < 32; ++e) {
        const int c = (e >> 2) * 8 + (lane & 3) * 2 + (e & 1), r = (e >> 1) & 1, i = i0 + c;
        bool valid = seen[r].has(i);
        if (by_position) valid = valid && p.prefix + (i - reinterpret_cast<const int*>(stats)[2 * kMoving + c]) - row[r] < p.window;
        if (!valid) s[e] = 0.f;
      }
    }
    pack_half(w, s);
    product_fence();
    product_columns_rs<kMoving>(d_v, w, d_out);
    product_commit();
    product_wait<1>();
    pin(dp);
#pragma unroll
    for (int t = 0; t < 8; ++t) {
      const float2 delta = *reinterpret_cast<const float2*>(stats + kMoving + t * 8 + (lane & 3) * 2);
      s[4 * t] *= dp[4 * t] - delta.x;
      s[4 * t + 1] *= dp[4 * t + 1] - delta.y;
      s[4 * t + 2] *= dp[4 * t + 2] - delta.x;
      s[4 * t + 3] *= dp[4 * t + 3] - delta.y;
    }
    pack_half(x, s);
    product_fence();
    product_columns_rs<kMoving>(d_k, x, q);
    product_commit();
    product_wait<1>();  // dV: its probabilities' registers are free again
    pin(d_v);
  }
  product_wait<0>();
  pin(d_k);

  const int64_t width = static_cast<int64_t>(p.kv_heads) * 128;
  if (!work.in_prefix) {
    bf16* out = static_cast<bf16*>(p.d_qkv) + (p.heads + work.kv) * 128;
    const float* add_k = p.add_d_k == nullptr ? nullptr : p.add_d_k + work.kv * 128;
    const float* add_v = p.add_d_v == nullptr ? nullptr : p.add_d_v + work.kv * 128;
    store_tile(out, p.d_qkv_stride, d_k, row, limit, p.scale, add_k, width);
    store_tile(out + width, p.d_qkv_stride, d_v, row, limit, 1.f, add_v, width);
    return;
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (row[r] >= limit) continue;
    float* out = p.partial + (static_cast<int64_t>(work.split) * 2 * p.prefix + row[r]) * width + work.kv * 128;
#pragma unroll
    for (int t = 0; t < 16; ++t) {
      const int c = t * 8 + (lane & 3) * 2;
      *reinterpret_cast<float2*>(out + c) = make_float2(d_k[4 * t + 2 * r] * p.scale, d_k[4 * t + 2 * r + 1] * p.scale);
      *reinterpret_cast<float2*>(out + p.prefix * width + c) = make_float2(d_v[4 * t + 2 * r], d_v[4 * t + 2 * r + 1]);
    }
  }
}
#endif
}  // namespace attention

extern "C" __global__ void __launch_bounds__(384, 1)
attention_dq_sm90_hd128(const __grid_constant__ Params p, const __grid_constant__ TensorMap qkv128,
                        const __grid_constant__ TensorMap d_out128, const __grid_constant__ TensorMap qkv64,
                        const __grid_constant__ TensorMap prefix_k64, const __grid_constant__ TensorMap prefix_v64) {
#if ATTENTION_SM90
  using namespace attention;
  extern __shared__ char smem[];
  const Ring ring{(shared_address(smem) + 1023) & ~1023u};
  if (threadIdx.x == 0) ring.init(1);
  __syncthreads();
  const BlockPlace at = place(blockIdx.x, p.heads, gridDim.x / p.heads);
  const int head = at.head, kv = head / (p.heads / p.kv_heads), q0 = (gridDim.x / p.heads - 1 - at.tile) * kKept;
  const KeyTiles tiles = key_tiles<kMoving>(p, q0, min(q0 + kKept, p.tokens));
  if (threadIdx.x < 128) {
    registers_down<24>();
    if (threadIdx.x != 0) return;
    barrier_expect(ring.kept(), 2 * kKeptBytes);
    copy_tile<kKept>(ring.base, &qkv128, ring.kept(), head * 128, q0);
    copy_tile<kKept>(ring.base + kKeptBytes, &d_out128, ring.kept(), head * 128, q0);
    for (int n = 0; n < tiles.count(); ++n) {
      ring.wait_empty(n);
      barrier_expect(ring.full(n), 2 * kMovingBytes);
      const bool own = n >= tiles.prefix_tiles;
      const int row = own ? tiles.own_lo + (n - tiles.prefix_tiles) * kMoving : tiles.prefix_lo + n * kMoving;
      const int k = own ? (p.heads + kv) * 128 : kv * 128, v = own ? k + p.kv_heads * 128 : k;
      copy_tile<kMoving>(ring.tile(n), own ? &qkv64 : &prefix_k64, ring.full(n), k, row);
      copy_tile<kMoving>(ring.tile(n) + kMovingBytes, own ? &qkv64 : &prefix_v64, ring.full(n), v, row);
    }
  } else {
    registers_up<240>();
    dq_compute(p, tiles, ring, q0, head, threadIdx.x / 128 - 1);
  }
#else
  __trap();
#endif
}

extern "C" __global__ void __launch_bounds__(384, 1)
attention_dkv_sm90_hd128(const __grid_constant__ Params p, const __grid_constant__ TensorMap qkv64,
                         const __grid_constant__ TensorMap d_out64, const __grid_constant__ TensorMap qkv128,
                         const __grid_constant__ TensorMap prefix_k128, const __grid_constant__ TensorMap prefix_v128) {
#if ATTENTION_SM90
  using namespace attention;
  extern __shared__ char smem[];
  char* aligned = smem + ((1024 - (shared_address(smem) & 1023)) & 1023);
  const Ring ring{shared_address(aligned)};
  if (threadIdx.x == 0) ring.init(2);  // copies expected, statistics written
  __syncthreads();
  const KeyWork work(p, gridDim.x / p.kv_heads, blockIdx.x);
  if (threadIdx.x < 128) {
    registers_down<24>();
    if (threadIdx.x >= 32) return;
    const int lane = threadIdx.x, kv = work.kv;
    if (lane == 0) {
      const bool own = !work.in_prefix;
      const int k = own ? (p.heads + kv) * 128 : kv * 128, v = own ? k + p.kv_heads * 128 : k;
      barrier_expect(ring.kept(), 2 * kKeptBytes);
      copy_tile<kKept>(ring.base, own ? &qkv128 : &prefix_k128, ring.kept(), k, work.k0);
      copy_tile<kKept>(ring.base + kKeptBytes, own ? &qkv128 : &prefix_v128, ring.kept(), v, work.k0);
    }
    for (int m = work.first; m < work.last; ++m) {
      const int n = m - work.first, column = work.head(p, m) * 128;
      ring.wait_empty(n);
      if (lane == 0) {
        barrier_expect(ring.full(n), 2 * kMovingBytes);
        copy_tile<kMoving>(ring.tile(n), &qkv64, ring.full(n), column, work.query(m));
        copy_tile<kMoving>(ring.tile(n) + kMovingBytes, &d_out64, ring.full(n), column, work.query(m));
      }
      dkv_copy_stats(p, work, stats_of(aligned, n), m);
      __syncwarp();
      if (lane == 0) barrier_arrive(ring.full(n));
    }
  } else {
    registers_up<240>();
    dkv_compute(p, work, ring, aligned, threadIdx.x / 128 - 1);
  }
#else
  __trap();
#endif
}
