//! Attention forward and backward in float32, one warp a row, no tiles: the plain statement of what
//! attention_forward.cu and attention_backward.cu compute, for correctness tests and tiny models.
//! It promises fixed summation order and any head size up to 256; it must not care about speed.
//!
//! Launch (one attention::Params by value, every matrix float, head_dim set):
//!   attention_forward_f32   grid (ceil(tokens/4), heads), block 128
//!   attention_dq_f32        the same; also writes delta, so it runs before attention_dkv_f32
//!   attention_dkv_f32       grid (ceil((prefix+tokens)/4), kv_heads), block 128; adds to d_prefix_k, d_prefix_v
#include "attention.cuh"

namespace attention {

constexpr int kParts = 8;  // 32 lanes of 8: head_dim <= 256

__device__ inline float warp_sum(float v) {
#pragma unroll
  for (int m = 16; m > 0; m >>= 1) v += __shfl_xor_sync(0xffffffffu, v, m);
  return v;
}
/// One row spread over the lanes; columns past head_dim are zero.
struct Row {
  float x[kParts];
  __device__ static Row zero() { return Row{}; }
  __device__ static Row load(const float* src, int head_dim) {
    Row r{};
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int i = 0; i < kParts; ++i)
      if (lane + 32 * i < head_dim) r.x[i] = src[lane + 32 * i];
    return r;
  }
  __device__ void store(float* dst, int head_dim, float scale) const {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int i = 0; i < kParts; ++i)
      if (lane + 32 * i < head_dim) dst[lane + 32 * i] = x[i] * scale;
  }
  __device__ float dot(const Row& o) const {
    float s = 0.f;
#pragma unroll
    for (int i = 0; i < kParts; ++i) s += x[i] * o.x[i];
    return warp_sum(s);
  }
  __device__ void add(float w, const Row& o) {
#pragma unroll
    for (int i = 0; i < kParts; ++i) x[i] += w * o.x[i];
  }
  __device__ void multiply(float w) {
#pragma unroll
    for (int i = 0; i < kParts; ++i) x[i] *= w;
  }
};

struct Warp {
  int row, lane;
  __device__ Warp() : row(blockIdx.x * 4 + (threadIdx.x >> 5)), lane(threadIdx.x & 31) {}
};

/// Score of one raw product and its derivative.
__device__ inline float capped(const Params& p, float raw, float* slope) {
  const float s = raw * p.scale;
  if (p.soft_cap <= 0.f) { *slope = 1.f; return s; }
  const float t = tanhf(s / p.soft_cap);
  *slope = 1.f - t * t;
  return p.soft_cap * t;
}

/// Calls f(key row, value row) for every key that query i of key head kv sees, in order of position.
template <class F>
__device__ inline void each_key(const Params& p, int i, int kv, F f) {
  const int hd = p.head_dim;
  const Bounds pre = prefix_keys(p, i), own = own_keys(p, i);
  const float* pk = static_cast<const float*>(p.prefix_k) + kv * hd;
  const float* pv = static_cast<const float*>(p.prefix_v) + kv * hd;
  for (int c = pre.lo; c <= pre.hi; ++c)
    f(Row::load(pk + c * p.prefix_stride, hd), Row::load(pv + c * p.prefix_stride, hd));
  const float* k = static_cast<const float*>(p.qkv) + (p.heads + kv) * hd;
  for (int j = own.lo; j <= own.hi; ++j)
    f(Row::load(k + j * p.qkv_stride, hd), Row::load(k + j * p.qkv_stride + p.kv_heads * hd, hd));
}

}  // namespace attention

using attention::Params;
using attention::Row;

extern "C" __global__ void __launch_bounds__(128) attention_forward_f32(const __grid_constant__ Params p) {
  const attention::Warp w;
  if (w.row >= p.tokens) return;
  const int head = blockIdx.y, kv = head / (p.heads / p.kv_heads), hd = p.head_dim;
  const Row q = Row::load(static_cast<const float*>(p.qkv) + w.row * p.qkv_stride + head * hd, hd);
  Row acc = Row::zero();
  float top = -INFINITY, sum = 0.f;
  attention::each_key(p, w.row, kv, [&](const Row& k, const Row& v) {
    float slope;
    const float s = attention::capped(p, q.dot(k), &slope), m = fmaxf(top, s);
    const float keep = expf(top - m), e = expf(s - m);
    acc.multiply(keep);
    acc.add(e, v);
    sum = sum * keep + e;
    top = m;
  });
  acc.store(static_cast<float*>(p.out) + w.row * p.out_stride + head * hd, hd, 1.f / sum);
  if (w.lane == 0) p.lse[head * static_cast<int64_t>(p.tokens) + w.row] = top + logf(sum);
}

extern "C" __global__ void __launch_bounds__(128) attention_dq_f32(const __grid_constant__ Params p) {
  const attention::Warp w;
  if (w.row >= p.tokens) return;
  const int head = blockIdx.y, kv = head / (p.heads / p.kv_heads), hd = p.head_dim;
  const int64_t at = head * static_cast<int64_t>(p.tokens) + w.row;
  const Row q = Row::load(static_cast<const float*>(p.qkv) + w.row * p.qkv_stride + head * hd, hd);
  const Row d = Row::load(static_cast<const float*>(p.d_out) + w.row * p.d_out_stride + head * hd, hd);
  const Row o = Row::load(static_cast<const float*>(p.out) + w.row * p.out_stride + head * hd, hd);
  const float delta = d.dot(o), lse = p.lse[at];
  if (w.lane == 0) p.delta[at] = delta;
  Row acc = Row::zero();
  attention::each_key(p, w.row, kv, [&](const Row& k, const Row& v) {
    float slope;
    const float s = attention::capped(p, q.dot(k), &slope);
    acc.add(expf(s - lse) * (d.dot(v) - delta) * slope, k);
  });
  acc.store(static_cast<float*>(p.d_qkv) + w.row * p.d_qkv_stride + head * hd, hd, p.scale);
}

extern "C" __global__ void __launch_bounds__(128) attention_dkv_f32(const __grid_constant__ Params p) {
  const attention::Warp w;
  if (w.row >= p.prefix + p.tokens) return;
  const int kv = blockIdx.y, group = p.heads / p.kv_heads, hd = p.head_dim;
  const bool in_prefix = w.row < p.prefix;
  const int j = in_prefix ? w.row : w.row - p.prefix;
  const float* own = static_cast<const float*>(p.qkv) + j * p.qkv_stride + (p.heads + kv) * hd;
  const Row k = Row::load(in_prefix ? static_cast<const float*>(p.prefix_k) + j * p.prefix_stride + kv * hd : own, hd);
  const Row v = Row::load(in_prefix ? static_cast<const float*>(p.prefix_v) + j * p.prefix_stride + kv * hd : own + p.kv_heads * hd, hd);
  const attention::Bounds seen = in_prefix ? attention::Bounds{0, p.tokens - 1} : attention::own_queries(p, j);
  Row d_k = Row::zero(), d_v = Row::zero();
  for (int head = kv * group; head < (kv + 1) * group; ++head) {
    for (int i = seen.lo; i <= seen.hi; ++i) {
      if (in_prefix && !attention::prefix_keys(p, i).has(j)) continue;
      const int64_t at = head * static_cast<int64_t>(p.tokens) + i;
      const Row q = Row::load(static_cast<const float*>(p.qkv) + i * p.qkv_stride + head * hd, hd);
      const Row d = Row::load(static_cast<const float*>(p.d_out) + i * p.d_out_stride + head * hd, hd);
      float slope;
      const float e = expf(attention::capped(p, q.dot(k), &slope) - p.lse[at]);
      d_v.add(e, d);
      d_k.add(e * (d.dot(v) - p.delta[at]) * slope, q);
    }
  }
  const int64_t width = static_cast<int64_t>(p.kv_heads) * hd, narrow = j * width + kv * hd;
  d_k.multiply(p.scale);
  const float* add_k = in_prefix ? p.d_prefix_k : p.add_d_k;
  const float* add_v = in_prefix ? p.d_prefix_v : p.add_d_v;
  if (add_k != nullptr) d_k.add(1.f, Row::load(add_k + narrow, hd));
  if (add_v != nullptr) d_v.add(1.f, Row::load(add_v + narrow, hd));
  float* out = static_cast<float*>(p.d_qkv) + j * p.d_qkv_stride + (p.heads + kv) * hd;
  d_k.store(in_prefix ? p.d_prefix_k + narrow : out, hd, 1.f);
  d_v.store(in_prefix ? p.d_prefix_v + narrow : out + width, hd, 1.f);
}
