// Vectors of eight values in either element type, block sums in a fixed order, and bit mixing.
//
// Every kernel works on rows whose width is a multiple of eight and whose addresses are 16-byte aligned;
// the host checks that once, when a model is loaded. Arithmetic is in f32, rounded once when stored.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cstddef>
#include <cstdint>

using bf16 = __nv_bfloat16;

struct Eight {
    float v[8];
};

__device__ __forceinline__ Eight load8(const float* p) {
    const float4 a = reinterpret_cast<const float4*>(p)[0], b = reinterpret_cast<const float4*>(p)[1];
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

__device__ __forceinline__ Eight load8(const bf16* p) {
    const uint4 raw = *reinterpret_cast<const uint4*>(p);
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
    Eight out;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out.v[2 * i] = __uint_as_float(words[i] << 16);
        out.v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
    return out;
}

__device__ __forceinline__ void store8(float* p, const Eight& x) {
    reinterpret_cast<float4*>(p)[0] = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
    reinterpret_cast<float4*>(p)[1] = make_float4(x.v[4], x.v[5], x.v[6], x.v[7]);
}

__device__ __forceinline__ uint32_t pack2(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ __forceinline__ void store8(bf16* p, const Eight& x) {
    *reinterpret_cast<uint4*>(p) = make_uint4(pack2(x.v[0], x.v[1]), pack2(x.v[2], x.v[3]),
                                              pack2(x.v[4], x.v[5]), pack2(x.v[6], x.v[7]));
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ void put(float* p, float x) { *p = x; }
__device__ __forceinline__ void put(bf16* p, float x) { *p = __float2bfloat16_rn(x); }

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

// The sum over a block of at most 1024 threads, given to all; the order depends on the block size alone.
__device__ __forceinline__ float block_sum(float x) {
    __shared__ float parts[32];
    x = warp_sum(x);
    const int warps = (blockDim.x + 31) / 32;
    __syncthreads();
    if ((threadIdx.x & 31) == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < warps; i++) sum += parts[i];
    return sum;
}

// SplitMix64's finaliser (Steele et al. 2014), as in ops/dropout.rs.
__host__ __device__ __forceinline__ uint64_t mix64(uint64_t value) {
    uint64_t z = value + 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

// Ettinger's lowbias32, as in ops/dropout.rs.
__host__ __device__ __forceinline__ uint32_t mix32(uint32_t value) {
    uint32_t z = value ^ (value >> 16);
    z *= 0x7feb352du;
    z = (z ^ (z >> 15)) * 0x846ca68bu;
    return z ^ (z >> 16);
}

// One kernel for each element type; the struct is passed by value.
#define FOR_BOTH_TYPES(name, Params)                                                  \
    extern "C" __global__ void name##_bf16(const Params p) { name<bf16>(p); }          \
    extern "C" __global__ void name##_f32(const Params p) { name<float>(p); }
