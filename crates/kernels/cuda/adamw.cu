// The optimizer over one flat vector: the gradient's norm in f64 in a fixed order, and AdamW.
//
// Operations are rounded one by one, in the order of train/adamw.rs: equal gradients give equal bits.
#include "common.cuh"

constexpr int NORM_CHUNK = 1 << 14;

struct GradientNorm {
    const float* gradient;
    double* parts;   // one per chunk
    double* norm;
    uint64_t count;
    uint32_t chunks;
    uint32_t unused;
};
static_assert(sizeof(GradientNorm) == 40, "params.rs");

__device__ double block_sum64(double x) {
    __shared__ double parts[8];
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    __syncthreads();
    if ((threadIdx.x & 31) == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    double sum = 0.0;
    for (int i = 0; i < 8; i++) sum += parts[i];
    return sum;
}

extern "C" __global__ void __launch_bounds__(256) gradient_squares(const GradientNorm p) {
    const uint64_t from = uint64_t(blockIdx.x) * NORM_CHUNK;
    const uint64_t to = min(from + NORM_CHUNK, p.count);
    double sum = 0.0;
    for (uint64_t i = from + threadIdx.x; i < to; i += 256) sum += double(p.gradient[i]) * double(p.gradient[i]);
    sum = block_sum64(sum);
    if (threadIdx.x == 0) p.parts[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(256) gradient_norm(const GradientNorm p) {
    double sum = 0.0;
    for (uint32_t i = threadIdx.x; i < p.chunks; i += 256) sum += p.parts[i];
    sum = block_sum64(sum);
    if (threadIdx.x == 0) *p.norm = sqrt(sum);
}

struct AdamwStep {
    float* values;
    const float* gradient;
    float* first;
    float* second;
    uint64_t count;
    float factor;       // clipping
    float shrink;       // 1 - lr * decay
    float b1;
    float one_minus_b1;
    float b2;
    float one_minus_b2;
    float rate;         // lr / (1 - b1^t)
    float root;         // sqrt(1 - b2^t)
    float eps;
    uint32_t unused;
};
static_assert(sizeof(AdamwStep) == 80, "params.rs");

extern "C" __global__ void __launch_bounds__(256) adamw_step(const AdamwStep p) {
    const uint64_t i = uint64_t(blockIdx.x) * 256 + threadIdx.x;
    if (i >= p.count) return;
    const float g = __fmul_rn(p.gradient[i], p.factor);
    const float m = __fadd_rn(__fmul_rn(p.b1, p.first[i]), __fmul_rn(p.one_minus_b1, g));
    const float v = __fadd_rn(__fmul_rn(p.b2, p.second[i]), __fmul_rn(__fmul_rn(p.one_minus_b2, g), g));
    const float divisor = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), p.root), p.eps);
    const float value = __fmul_rn(p.values[i], p.shrink);
    p.values[i] = __fsub_rn(value, __fmul_rn(p.rate, __fdiv_rn(m, divisor)));
    p.first[i] = m;
    p.second[i] = v;
}
