// Root-mean-square norm, forward and backward, with a frozen weight (see ops/rmsnorm.rs for the formulas).
//
// One block a row; a row stays in registers between its two uses. `index` picks rows of `x` (and of `dx`). The masked
// ones serve the sites whose adapter sees its input through dropout.
#include "dropout.cuh"

constexpr int NORM_THREADS = 512;
constexpr int NORM_MOST = 2;  // vectors a thread may hold: rows up to 8192 wide

struct NormForward {
    const void* x;
    const float* weight;
    void* y;
    float* inv;
    const uint32_t* index;  // null: row i is row i
    uint32_t width;
    uint32_t x_stride;
    uint32_t y_stride;
    float eps;
};
static_assert(sizeof(NormForward) == 56, "params.rs");

// Beside the row itself, what the adapter sees of it.
struct NormForwardMasked {
    NormForward norm;
    void* seen;
    Mask mask;
    uint32_t seen_stride;
    uint32_t unused;
};
static_assert(sizeof(NormForwardMasked) == 104, "params.rs");

// `seen(at, values)` is told what was written from column `at`.
template <typename T, typename Seen>
__device__ void norm_forward(const NormForward& p, Seen seen) {
    const size_t from = p.index ? p.index[blockIdx.x] : blockIdx.x;
    const T* x = static_cast<const T*>(p.x) + from * p.x_stride;
    T* y = static_cast<T*>(p.y) + size_t(blockIdx.x) * p.y_stride;
    Eight held[NORM_MOST];
    float squares = 0.0f;
#pragma unroll
    for (int k = 0; k < NORM_MOST; k++) {
        const uint32_t at = (k * NORM_THREADS + threadIdx.x) * 8;
        if (at >= p.width) continue;
        held[k] = load8(x + at);
#pragma unroll
        for (int i = 0; i < 8; i++) squares += held[k].v[i] * held[k].v[i];
    }
    const float inv = 1.0f / sqrtf(block_sum(squares) / float(p.width) + p.eps);
#pragma unroll
    for (int k = 0; k < NORM_MOST; k++) {
        const uint32_t at = (k * NORM_THREADS + threadIdx.x) * 8;
        if (at >= p.width) continue;
        const Eight w = load8(p.weight + at);
#pragma unroll
        for (int i = 0; i < 8; i++) held[k].v[i] = held[k].v[i] * inv * w.v[i];
        store8(y + at, held[k]);
        seen(at, held[k]);
    }
    if (threadIdx.x == 0) p.inv[blockIdx.x] = inv;
}
template <typename T>
__device__ void norm_forward(const NormForward& p) {
    norm_forward<T>(p, [](uint32_t, const Eight&) {});
}
template <typename T>
__device__ void norm_forward_masked(const NormForwardMasked& p) {
    const uint64_t key = mask_key(p.mask, blockIdx.x);
    T* out = static_cast<T*>(p.seen) + size_t(blockIdx.x) * p.seen_stride;
    norm_forward<T>(p.norm, [&](uint32_t at, const Eight& x) {
        store8(out + at, draw8(p.mask, key, blockIdx.x, p.norm.width, at, x));
    });
}
extern "C" __global__ void __launch_bounds__(NORM_THREADS) norm_forward_bf16(const NormForward p) { norm_forward<bf16>(p); }
extern "C" __global__ void __launch_bounds__(NORM_THREADS) norm_forward_f32(const NormForward p) { norm_forward<float>(p); }
extern "C" __global__ void __launch_bounds__(NORM_THREADS) norm_forward_masked_bf16(const NormForwardMasked p) { norm_forward_masked<bf16>(p); }
extern "C" __global__ void __launch_bounds__(NORM_THREADS) norm_forward_masked_f32(const NormForwardMasked p) { norm_forward_masked<float>(p); }

struct NormBackward {
    const void* dy;
    const void* x;
    const float* weight;
    const float* inv;
    void* dx;
    const uint32_t* index;  // rows of `x` and `dx`
    uint32_t width;
    uint32_t dy_stride;
    uint32_t x_stride;
    uint32_t add;           // 1: add to `dx`; 0: set it
};
static_assert(sizeof(NormBackward) == 64, "params.rs");

// The adapter's part of `dy` has still to go through its mask.
struct NormBackwardMasked {
    NormBackward norm;
    const void* through;
    Mask mask;
    uint32_t through_stride;
    uint32_t unused;
};
static_assert(sizeof(NormBackwardMasked) == 112, "params.rs");

// `more(at)` is added to `dy` from column `at`.
template <typename T, typename More>
__device__ void norm_backward(const NormBackward& p, More more) {
    const size_t from = p.index ? p.index[blockIdx.x] : blockIdx.x;
    const T* x = static_cast<const T*>(p.x) + from * p.x_stride;
    T* dx = static_cast<T*>(p.dx) + from * p.x_stride;
    const T* dy = static_cast<const T*>(p.dy) + size_t(blockIdx.x) * p.dy_stride;
    const float inv = p.inv[blockIdx.x];
    Eight held[NORM_MOST], pulled[NORM_MOST];
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < NORM_MOST; k++) {
        const uint32_t at = (k * NORM_THREADS + threadIdx.x) * 8;
        if (at >= p.width) continue;
        held[k] = load8(x + at);
        pulled[k] = load8(dy + at);
        const Eight w = load8(p.weight + at), also = more(at);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            pulled[k].v[i] = (pulled[k].v[i] + also.v[i]) * w.v[i];
            sum += pulled[k].v[i] * held[k].v[i];
        }
    }
    const float pull = inv * inv * inv * block_sum(sum) / float(p.width);
#pragma unroll
    for (int k = 0; k < NORM_MOST; k++) {
        const uint32_t at = (k * NORM_THREADS + threadIdx.x) * 8;
        if (at >= p.width) continue;
        Eight out = {};
        if (p.add) out = load8(dx + at);
#pragma unroll
        for (int i = 0; i < 8; i++) out.v[i] += inv * pulled[k].v[i] - held[k].v[i] * pull;
        store8(dx + at, out);
    }
}
template <typename T>
__device__ void norm_backward(const NormBackward& p) {
    norm_backward<T>(p, [](uint32_t) { return Eight{}; });
}
template <typename T>
__device__ void norm_backward_masked(const NormBackwardMasked& p) {
    const T* through = static_cast<const T*>(p.through) + size_t(blockIdx.x) * p.through_stride;
    norm_backward<T>(p.norm, [&](uint32_t at) {
        return masked8(p.mask, *mask_byte(p.mask, blockIdx.x, p.norm.width, at), load8(through + at));
    });
}
extern "C" __global__ void __launch_bounds__(NORM_THREADS) norm_backward_bf16(const NormBackward p) { norm_backward<bf16>(p); }
extern "C" __global__ void __launch_bounds__(NORM_THREADS) norm_backward_f32(const NormBackward p) { norm_backward<float>(p); }
extern "C" __global__ void __launch_bounds__(NORM_THREADS) norm_backward_masked_bf16(const NormBackwardMasked p) { norm_backward_masked<bf16>(p); }
extern "C" __global__ void __launch_bounds__(NORM_THREADS) norm_backward_masked_f32(const NormBackwardMasked p) { norm_backward_masked<float>(p); }
