// Cross entropy of logits against target ids; the gradient is written over the logits.
//
// One block a row, sums in f32 in a fixed order. A row with NaN or infinity gets a loss that is not finite.
#include "common.cuh"

constexpr int LOSS_THREADS = 512;

struct CrossEntropy {
    void* logits;
    const uint32_t* targets;
    const float* weights;  // of each row's gradient
    float* losses;
    uint32_t vocab;
    uint32_t stride;
    uint32_t backward;  // 0: losses alone
    uint32_t unused;
};
static_assert(sizeof(CrossEntropy) == 48, "params.rs");

__device__ __forceinline__ void merge(float& most, float& sum, float other_most, float other_sum) {
    const float top = fmaxf(most, other_most);
    sum = sum * expf(most - top) + other_sum * expf(other_most - top);
    most = top;
}

template <typename T>
__device__ void cross_entropy(const CrossEntropy& p) {
    T* row = static_cast<T*>(p.logits) + size_t(blockIdx.x) * p.stride;
    const float picked = to_float(row[p.targets[blockIdx.x]]);
    float most = -1e30f, sum = 0.0f, spoiled = 0.0f;
    for (uint32_t at = threadIdx.x * 8; at < p.vocab; at += LOSS_THREADS * 8) {
        const Eight x = load8(row + at);
        float top = most;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            top = fmaxf(top, x.v[i]);
            spoiled += x.v[i] * 0.0f;  // NaN if the value is not finite
        }
        sum *= expf(most - top);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += expf(x.v[i] - top);
        most = top;
    }
    for (int step = 16; step > 0; step >>= 1)
        merge(most, sum, __shfl_xor_sync(0xffffffffu, most, step), __shfl_xor_sync(0xffffffffu, sum, step));
    __shared__ float mosts[LOSS_THREADS / 32], sums[LOSS_THREADS / 32];
    if ((threadIdx.x & 31) == 0) {
        mosts[threadIdx.x / 32] = most;
        sums[threadIdx.x / 32] = sum;
    }
    spoiled = block_sum(spoiled);
    most = mosts[0];
    sum = sums[0];
    for (int i = 1; i < LOSS_THREADS / 32; i++) merge(most, sum, mosts[i], sums[i]);
    if (threadIdx.x == 0) p.losses[blockIdx.x] = most + logf(sum) - picked + spoiled;
    if (!p.backward) return;
    const float weight = p.weights[blockIdx.x], scale = weight / sum;
    const uint32_t target = p.targets[blockIdx.x];
    for (uint32_t at = threadIdx.x * 8; at < p.vocab; at += LOSS_THREADS * 8) {
        Eight x = load8(row + at);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            x.v[i] = scale * expf(x.v[i] - most);
            if (at + i == target) x.v[i] -= weight;
        }
        store8(row + at, x);
    }
}
extern "C" __global__ void __launch_bounds__(LOSS_THREADS) cross_entropy_bf16(const CrossEntropy p) { cross_entropy<bf16>(p); }
extern "C" __global__ void __launch_bounds__(LOSS_THREADS) cross_entropy_f32(const CrossEntropy p) { cross_entropy<float>(p); }
