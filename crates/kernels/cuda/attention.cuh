//! What the attention kernels share: the parameter block, which keys a tile of queries sees, and
//! which elements of a tile count. It promises one definition of the mask for forward and
//! backward; it must not know tile shapes, matrix instructions or who launches.
//!
//! Layout. Sequences are packed token by token: row t of `qkv` is
//! [q: heads*hd | k: kv_heads*hd | v: kv_heads*hd]. Query head h reads key head h/(heads/kv_heads).
//! A shared prefix of `prefix` tokens, where there is one, precedes every sequence: it holds
//! positions 0..prefix, a sequence's own tokens hold prefix, prefix+1, ... Query i sees
//!   * own key j       if seq_start[i] <= j <= i       and i - j < window,
//!   * prefix key c    always,                         and prefix + (i - seq_start[i]) - c < window,
//! the window parts only where window > 0. Tiles of queries run over the packed tokens and may
//! hold the end of one sequence and the whole of others: the mask goes by token, so short rows
//! fill whole tiles against the prefix.
#pragma once
#include <cuda_bf16.h>
#include <stdint.h>

namespace attention {

/// One parameter block for every kernel of this family (`AttentionParams` in src/attention.rs).
/// Strides are in elements; pointers and strides of bf16 rows are multiples of 16 bytes.
struct Params {
  const void* qkv;         // [tokens, qkv_stride]
  const void* prefix_k;    // [prefix, prefix_stride], kv_heads*hd wide
  const void* prefix_v;    // [prefix, prefix_stride]
  void* out;               // [tokens, out_stride], heads*hd wide
  float* lse;              // [heads, tokens]: ln of the sum of exp(score)
  const int* seq_start;    // [tokens]: first token of the sequence that holds token t
  const int* seq_end;      // [tokens]: one past its last token
  const void* d_out;       // [tokens, d_out_stride]
  float* delta;            // [heads, tokens]: sum over hd of out * d_out
  void* d_qkv;             // [tokens, d_qkv_stride], laid out as qkv
  const float* add_d_k;    // null, or [tokens, kv_heads*hd]: added to dK before it is rounded
  const float* add_d_v;    // null, or the same for dV
  float* partial;          // [splits, 2, prefix, kv_heads*hd]: scratch of the prefix's dK and dV
  float* d_prefix_k;       // [prefix, kv_heads*hd]: added to
  float* d_prefix_v;       // [prefix, kv_heads*hd]: added to
  int64_t qkv_stride, prefix_stride, out_stride, d_out_stride, d_qkv_stride;
  int tokens, prefix, heads, kv_heads;
  int window;              // 0: no window
  int splits;              // parts the prefix's queries are summed in (dK/dV), >= 1
  float scale;             // of the scores, usually 1/sqrt(hd)
  float soft_cap;          // 0: none; else score = soft_cap * tanh(score / soft_cap)
  int head_dim;            // read by the f32 kernels alone
  int reserved;
};
static_assert(sizeof(Params) == 200, "AttentionParams in src/attention.rs has the same size");

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

/// The key tiles of BN rows that queries [q0, q1) need: first those of the prefix, then own ones.
struct KeyTiles {
  int prefix_lo, prefix_tiles, own_lo, own_tiles;
  __device__ int count() const { return prefix_tiles + own_tiles; }
};

template <int BN>
__device__ KeyTiles key_tiles(const Params& p, int q0, int q1) {
  const int start = p.seq_start[q0];
  KeyTiles t{0, 0, start, 0};
  if (p.window > 0) {
    t.own_lo = max(start, q0 - p.window + 1);
    const int lowest = p.seq_start[q1 - 1] > q0 ? 0 : q0 - start;  // own position in the tile
    t.prefix_lo = max(0, p.prefix + lowest - p.window + 1) / BN * BN;
  }
  t.prefix_tiles = t.prefix_lo < p.prefix ? ceil_div(p.prefix - t.prefix_lo, BN) : 0;
  t.own_tiles = ceil_div(q1 - t.own_lo, BN);
  return t;
}

/// Which head and tile a block of a one-dimensional grid takes: heads in groups of eight (their keys
/// stay in the L2 cache together), in a group tile after tile, so that the order of tiles is the
/// order of starting.
struct BlockPlace { int head, tile; };
__device__ inline BlockPlace place(int block, int heads, int tiles) {
  const int first = block / (8 * tiles) * 8, group = min(8, heads - first), rest = block - first * tiles;
  return {first + rest % group, rest / group};
}

/// Inclusive range of columns that count for one row of a tile.
struct Bounds {
  int lo, hi;
  __device__ bool has(int col) const { return col >= lo && col <= hi; }
};
constexpr int kNever = 0x7fffffff;

/// Keys of the prefix that query i sees.
__device__ inline Bounds prefix_keys(const Params& p, int i) {
  if (i >= p.tokens) return {kNever, -1};
  const int first = p.prefix + (i - p.seq_start[i]) - p.window + 1;
  return {p.window > 0 ? max(0, first) : 0, p.prefix - 1};
}
/// Own keys that query i sees.
__device__ inline Bounds own_keys(const Params& p, int i) {
  if (i >= p.tokens) return {kNever, -1};
  const int start = p.seq_start[i];
  return {p.window > 0 ? max(start, i - p.window + 1) : start, i};
}
/// Queries that see own key j.
__device__ inline Bounds own_queries(const Params& p, int j) {
  if (j >= p.tokens) return {kNever, -1};
  const int last = p.seq_end[j] - 1;
  return {j, p.window > 0 ? min(last, j + p.window - 1) : last};
}

}  // namespace attention
