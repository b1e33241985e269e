// The adapter beside the frozen weights: its two halves brought into the products' element type, and dropout where
// no other kernel has the values at hand.
#include "dropout.cuh"

struct LoraUp {
    const float* b[3];   // B of each stacked map, out x r; null where there is no pair
    void* out;           // first adapter column of the first row
    uint32_t ends[3];    // row after the last of each map
    uint32_t columns[3]; // first adapter column of each pair
    uint32_t r;
    uint32_t pad;        // adapter columns, padding included
    uint32_t stride;     // of `out`
    uint32_t unused;
};
static_assert(sizeof(LoraUp) == 72, "params.rs");

// Block diagonal: pair p stands in its own rows and columns, all else is zero. One thread eight columns.
template <typename T>
__device__ void lora_up(const LoraUp& p) {
    const uint32_t row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= p.ends[2]) return;
    const int pair = row < p.ends[0] ? 0 : row < p.ends[1] ? 1 : 2;
    const uint32_t start = pair == 0 ? 0 : p.ends[pair - 1];
    const float* b = p.b[pair] ? p.b[pair] + size_t(row - start) * p.r : nullptr;
    Eight x;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const uint32_t own = threadIdx.x * 8 + i - p.columns[pair];
        x.v[i] = b != nullptr && own < p.r ? b[own] : 0.0f;
    }
    store8(static_cast<T*>(p.out) + size_t(row) * p.stride + threadIdx.x * 8, x);
}
FOR_BOTH_TYPES(lora_up, LoraUp)

struct LoraDown {
    const float* a;   // rows x width
    void* out;        // pad x width
    uint32_t rows;
    uint32_t width;
};
static_assert(sizeof(LoraDown) == 24, "params.rs");

template <typename T>
__device__ void lora_down(const LoraDown& p) {
    const uint32_t at = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (at >= p.width) return;
    Eight x = {};
    if (blockIdx.y < p.rows) x = load8(p.a + size_t(blockIdx.y) * p.width + at);
    store8(static_cast<T*>(p.out) + size_t(blockIdx.y) * p.width + at, x);
}
FOR_BOTH_TYPES(lora_down, LoraDown)

struct Dropout {
    const void* x;
    void* out;
    Mask mask;
    uint32_t width;
    uint32_t x_stride;
    uint32_t out_stride;
    uint32_t unused;
};
static_assert(sizeof(Dropout) == 64, "params.rs");

template <typename T>
__device__ void dropout_draw(const Dropout& p) {
    const uint32_t at = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (at >= p.width) return;
    const Eight x = load8(static_cast<const T*>(p.x) + size_t(blockIdx.y) * p.x_stride + at);
    const Eight y = draw8(p.mask, mask_key(p.mask, blockIdx.y), blockIdx.y, p.width, at, x);
    store8(static_cast<T*>(p.out) + size_t(blockIdx.y) * p.out_stride + at, y);
}
FOR_BOTH_TYPES(dropout_draw, Dropout)

template <typename T, bool ADD>
__device__ void dropout_again(const Dropout& p) {
    const uint32_t at = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (at >= p.width) return;
    const uint32_t byte = *mask_byte(p.mask, blockIdx.y, p.width, at);
    const Eight x = masked8(p.mask, byte, load8(static_cast<const T*>(p.x) + size_t(blockIdx.y) * p.x_stride + at));
    T* out = static_cast<T*>(p.out) + size_t(blockIdx.y) * p.out_stride + at;
    Eight y = {};
    if (ADD) y = load8(out);
#pragma unroll
    for (int i = 0; i < 8; i++) y.v[i] += x.v[i];
    store8(out, y);
}
template <typename T> __device__ void dropout_apply(const Dropout& p) { dropout_again<T, false>(p); }
template <typename T> __device__ void dropout_add(const Dropout& p) { dropout_again<T, true>(p); }
FOR_BOTH_TYPES(dropout_apply, Dropout)
FOR_BOTH_TYPES(dropout_add, Dropout)
