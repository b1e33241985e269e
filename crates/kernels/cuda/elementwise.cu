// Rotary embedding, gated activation, embedding rows, biases, and gradients that arrive from elsewhere.
//
// One thread works on eight neighbouring values (rotary: on two groups of eight).
#include "dropout.cuh"

struct Rope {
    void* rows;
    const uint32_t* positions;
    const float* table;     // per position: half cosines, then half sines
    uint32_t tokens;
    uint32_t heads;         // turned heads; they stand first in a row
    uint32_t head_dim;
    uint32_t stride;
    float sign;             // 1 forward, -1 back
    uint32_t unused;
};
static_assert(sizeof(Rope) == 48, "params.rs");

template <typename T>
__device__ void rope(const Rope& p) {
    const uint32_t half = p.head_dim / 2, vectors = half / 8;
    const uint32_t id = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32_t token = id / (p.heads * vectors);
    if (token >= p.tokens) return;
    const uint32_t rest = id - token * p.heads * vectors;
    const uint32_t head = rest / vectors, at = (rest - head * vectors) * 8;
    const float* angles = p.table + size_t(p.positions[token]) * p.head_dim;
    T* low = static_cast<T*>(p.rows) + size_t(token) * p.stride + head * p.head_dim + at;
    const Eight cosines = load8(angles + at), sines = load8(angles + half + at);
    const Eight a = load8(low), b = load8(low + half);
    Eight x, y;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float s = p.sign * sines.v[i];
        x.v[i] = a.v[i] * cosines.v[i] - b.v[i] * s;
        y.v[i] = b.v[i] * cosines.v[i] + a.v[i] * s;
    }
    store8(low, x);
    store8(low + half, y);
}
FOR_BOTH_TYPES(rope, Rope)

struct Swiglu {
    void* gate_up;       // [gate | up]; the backward overwrites it by its gradient
    void* active;        // forward: written. Backward: holds d_active, replaced by the activation
    uint32_t tokens;
    uint32_t width;
    uint32_t stride;     // of `active`
    uint32_t gate_stride;
};
static_assert(sizeof(Swiglu) == 32, "params.rs");

// What is unsure in exp is far below one unit of bf16; the f32 path takes the exact one.
__device__ __forceinline__ float sigmoid(float x, bf16) { return __fdividef(1.0f, 1.0f + __expf(-x)); }
__device__ __forceinline__ float sigmoid(float x, float) { return 1.0f / (1.0f + expf(-x)); }

// The same where the adapter sees the activation through dropout. Forward: `other` is written, what it sees.
// Backward: `other` is the adapter's part of d_active, which has still to go through the mask; `active` becomes what
// the adapter saw.
struct SwigluMasked {
    Swiglu gated;
    void* other;
    Mask mask;
    uint32_t other_stride;
    uint32_t unused;
};
static_assert(sizeof(SwigluMasked) == 80, "params.rs");

// `seen(at, values)` is told what was written from column `at`.
template <typename T, typename Seen>
__device__ void swiglu_forward(const Swiglu& p, Seen seen) {
    const uint32_t at = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (at >= p.width) return;
    const T* gate = static_cast<const T*>(p.gate_up) + size_t(blockIdx.y) * p.gate_stride + at;
    const Eight g = load8(gate), u = load8(gate + p.width);
    Eight out;
#pragma unroll
    for (int i = 0; i < 8; i++) out.v[i] = g.v[i] * sigmoid(g.v[i], T()) * u.v[i];
    store8(static_cast<T*>(p.active) + size_t(blockIdx.y) * p.stride + at, out);
    seen(at, out);
}
template <typename T>
__device__ void swiglu_forward(const Swiglu& p) {
    swiglu_forward<T>(p, [](uint32_t, const Eight&) {});
}
template <typename T>
__device__ void swiglu_forward_masked(const SwigluMasked& p) {
    swiglu_forward<T>(p.gated, [&](uint32_t at, const Eight& x) {
        T* out = static_cast<T*>(p.other) + size_t(blockIdx.y) * p.other_stride + at;
        store8(out, draw8(p.mask, mask_key(p.mask, blockIdx.y), blockIdx.y, p.gated.width, at, x));
    });
}
FOR_BOTH_TYPES(swiglu_forward, Swiglu)
FOR_BOTH_TYPES(swiglu_forward_masked, SwigluMasked)

// `whole(at, values)` makes the whole gradient from what `active` holds from column `at`; `seen(at, activation)` gives
// what stands there afterwards.
template <typename T, typename Whole, typename Seen>
__device__ void swiglu_backward(const Swiglu& p, Whole whole, Seen seen) {
    const uint32_t at = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (at >= p.width) return;
    T* gate = static_cast<T*>(p.gate_up) + size_t(blockIdx.y) * p.gate_stride + at;
    T* active = static_cast<T*>(p.active) + size_t(blockIdx.y) * p.stride + at;
    const Eight g = load8(gate), u = load8(gate + p.width), da = whole(at, load8(active));
    Eight dg, du, a;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float s = sigmoid(g.v[i], T());
        const float silu = g.v[i] * s;
        dg.v[i] = da.v[i] * u.v[i] * s * (1.0f + g.v[i] * (1.0f - s));
        du.v[i] = da.v[i] * silu;
        a.v[i] = silu * u.v[i];
    }
    store8(gate, dg);
    store8(gate + p.width, du);
    store8(active, seen(at, a));
}
template <typename T>
__device__ void swiglu_backward(const Swiglu& p) {
    const auto same = [](uint32_t, const Eight& x) { return x; };
    swiglu_backward<T>(p, same, same);
}
template <typename T>
__device__ void swiglu_backward_masked(const SwigluMasked& p) {
    const auto byte = [&](uint32_t at) { return *mask_byte(p.mask, blockIdx.y, p.gated.width, at); };
    const auto whole = [&](uint32_t at, Eight da) {
        const T* through = static_cast<const T*>(p.other) + size_t(blockIdx.y) * p.other_stride + at;
        const Eight more = masked8(p.mask, byte(at), load8(through));
#pragma unroll
        for (int i = 0; i < 8; i++) da.v[i] += more.v[i];
        return da;
    };
    swiglu_backward<T>(p.gated, whole, [&](uint32_t at, const Eight& a) { return masked8(p.mask, byte(at), a); });
}
FOR_BOTH_TYPES(swiglu_backward, Swiglu)
FOR_BOTH_TYPES(swiglu_backward_masked, SwigluMasked)

struct Embed {
    const void* table;
    const uint32_t* ids;
    void* out;
    uint32_t width;
    uint32_t unused;
};
static_assert(sizeof(Embed) == 32, "params.rs");

template <typename T>
__device__ void embed(const Embed& p) {
    const T* row = static_cast<const T*>(p.table) + size_t(p.ids[blockIdx.x]) * p.width;
    T* out = static_cast<T*>(p.out) + size_t(blockIdx.x) * p.width;
    for (uint32_t at = threadIdx.x * 8; at < p.width; at += blockDim.x * 8) store8(out + at, load8(row + at));
}
FOR_BOTH_TYPES(embed, Embed)

struct AddRows {
    void* rows;
    const float* values;
    uint32_t width;
    uint32_t stride;         // of `rows`
    uint32_t offset;         // first column of `rows` that is added to
    uint32_t values_stride;  // zero: one row of values for all rows
};
static_assert(sizeof(AddRows) == 32, "params.rs");

// rows[t, offset + c] += values[t, c]
template <typename T>
__device__ void add_rows(const AddRows& p) {
    const uint32_t at = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (at >= p.width) return;
    T* row = static_cast<T*>(p.rows) + size_t(blockIdx.y) * p.stride + p.offset + at;
    const Eight add = load8(p.values + size_t(blockIdx.y) * p.values_stride + at);
    Eight x = load8(row);
#pragma unroll
    for (int i = 0; i < 8; i++) x.v[i] += add.v[i];
    store8(row, x);
}
FOR_BOTH_TYPES(add_rows, AddRows)
