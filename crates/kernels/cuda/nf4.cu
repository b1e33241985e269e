// NF4, decoded and encoded: bit-equal to bitsandbytes (values `table[code] * scale`, rounded once).
//
// A decoded weight goes into rows wider than its own, so that adapter columns can stand behind it.
#include "common.cuh"

struct Nf4Decode {
    const uint8_t* packed;
    const uint8_t* codes;    // second-level codes of the scales; null if `absmax` holds the scales
    const float* absmax;
    const float* map;        // 256 values; null with plain scales
    void* out;
    uint32_t vectors;        // of eight values
    uint32_t row_vectors;
    uint32_t stride;         // of `out`, in elements
    uint32_t block_shift;    // log2 of values per scale
    uint32_t nested_shift;   // log2 of scales per second-level scale
    uint32_t rounding;       // 0 none, 1 bf16, 2 f16: what the checkpoint decodes to
    float offset;
    uint32_t unused;
};
static_assert(sizeof(Nf4Decode) == 72, "params.rs");

__constant__ float NF4[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
    -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
    0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
    0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};

__device__ __forceinline__ float as_stored(float x, uint32_t rounding) {
    if (rounding == 1) return __bfloat162float(__float2bfloat16_rn(x));
    if (rounding == 2) return __half2float(__float2half_rn(x));
    return x;
}

constexpr int DECODE_THREADS = 256;
constexpr int DECODE_UNROLL = 4;

template <typename T>
__device__ void nf4_decode(const Nf4Decode& p) {
    // One copy of the table per lane: a look-up never meets another lane's bank.
    __shared__ float table[16 * 32];
    __shared__ float map[256];
    for (int i = threadIdx.x; i < 16 * 32; i += DECODE_THREADS) table[i] = NF4[i / 32];
    if (p.map)
        for (int i = threadIdx.x; i < 256; i += DECODE_THREADS) map[i] = p.map[i];
    __syncthreads();
    const float* mine = table + (threadIdx.x & 31);
    const uint32_t first = blockIdx.x * (DECODE_THREADS * DECODE_UNROLL) + threadIdx.x;
    uint32_t words[DECODE_UNROLL];
    float scales[DECODE_UNROLL];
#pragma unroll
    for (int u = 0; u < DECODE_UNROLL; u++) {
        const uint32_t vector = first + u * DECODE_THREADS;
        if (vector >= p.vectors) continue;
        words[u] = reinterpret_cast<const uint32_t*>(p.packed)[vector];
        const uint32_t block = (vector * 8u) >> p.block_shift;
        scales[u] = p.codes ? __fadd_rn(__fmul_rn(map[p.codes[block]], p.absmax[block >> p.nested_shift]), p.offset)
                            : p.absmax[block];
    }
#pragma unroll
    for (int u = 0; u < DECODE_UNROLL; u++) {
        const uint32_t vector = first + u * DECODE_THREADS;
        if (vector >= p.vectors) continue;
        Eight x;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            // Byte i/2 holds value i in its high nibble when i is even.
            const int shift = 8 * (i / 2) + ((i & 1) ? 0 : 4);
            x.v[i] = __fmul_rn(mine[((words[u] >> shift) & 15u) * 32], scales[u]);
        }
        if (p.rounding && !(p.rounding == 1 && sizeof(T) == 2)) {
#pragma unroll
            for (int i = 0; i < 8; i++) x.v[i] = as_stored(x.v[i], p.rounding);
        }
        const uint32_t row = vector / p.row_vectors;
        const uint32_t column = (vector - row * p.row_vectors) * 8u;
        store8(static_cast<T*>(p.out) + size_t(row) * p.stride + column, x);
    }
}
extern "C" __global__ void __launch_bounds__(DECODE_THREADS) nf4_decode_bf16(const Nf4Decode p) { nf4_decode<bf16>(p); }
extern "C" __global__ void __launch_bounds__(DECODE_THREADS) nf4_decode_f32(const Nf4Decode p) { nf4_decode<float>(p); }

struct Nf4Encode {
    const void* values;
    uint8_t* packed;
    float* absmax;      // one per block of 64
    uint32_t vectors;   // of eight values; a multiple of eight
    float bounds[15];   // midpoints of the table
};
static_assert(sizeof(Nf4Encode) == 88, "params.rs");

// Eight threads share a block of 64 values.
template <typename T>
__device__ void nf4_encode(const Nf4Encode& p) {
    const uint32_t vector = blockIdx.x * blockDim.x + threadIdx.x;
    const bool inside = vector < p.vectors;
    Eight x = {};
    if (inside) x = load8(static_cast<const T*>(p.values) + size_t(vector) * 8);
    float most = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) most = fmaxf(most, fabsf(x.v[i]));
#pragma unroll
    for (int step = 4; step > 0; step >>= 1) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
    if (!inside) return;
    const float inverse = __fdiv_rn(1.0f, fmaxf(most, 1e-38f));
    uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float scaled = fminf(fmaxf(__fmul_rn(x.v[i], inverse), -1.0f), 1.0f);
        uint32_t code = 0;
#pragma unroll
        for (int b = 0; b < 15; b++) code += scaled > p.bounds[b];
        word |= code << (8 * (i / 2) + ((i & 1) ? 0 : 4));
    }
    reinterpret_cast<uint32_t*>(p.packed)[vector] = word;
    if ((vector & 7) == 0) p.absmax[vector / 8] = most;
}
FOR_BOTH_TYPES(nf4_encode, Nf4Encode)

struct Noise {
    void* out;
    uint64_t count;    // a multiple of eight
    uint64_t seed;
    float deviation;
    uint32_t unused;
};
static_assert(sizeof(Noise) == 32, "params.rs");

// Normal values by Box-Muller, a pure function of seed and index: weights for benchmarks and tests.
template <typename T>
__device__ void noise(const Noise& p) {
    const uint64_t at = (uint64_t(blockIdx.x) * blockDim.x + threadIdx.x) * 8;
    if (at >= p.count) return;
    Eight x;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint64_t drawn = mix64(p.seed ^ mix64(at + 2 * i));
        const float u = (float(uint32_t(drawn)) + 1.0f) * 2.3283064e-10f;
        const float turn = float(uint32_t(drawn >> 32)) * 1.4629181e-9f;
        const float radius = p.deviation * sqrtf(-2.0f * __logf(fminf(u, 1.0f)));
        x.v[2 * i] = radius * __cosf(turn);
        x.v[2 * i + 1] = radius * __sinf(turn);
    }
    store8(static_cast<T*>(p.out) + at, x);
}
FOR_BOTH_TYPES(noise, Noise)
