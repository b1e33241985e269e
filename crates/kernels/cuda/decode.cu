// One step of generation around its products: partial sums turned into what the next product reads, attention of
// one query a row over a shared prefix and the row's own cache, and the choice of the next id.
//
// Products leave f32 sums, cut into `splits` along the inner length; here they are added in order, with the
// adapter's B beside them where the product did not hold it. Everything that changes from step to step (ids,
// lengths, slots) is read from device memory, so one captured graph serves all steps.
#include "common.cuh"

struct Four {
    float v[4];
};

__device__ __forceinline__ Four load4(const float* p) {
    const float4 a = *reinterpret_cast<const float4*>(p);
    return {{a.x, a.y, a.z, a.w}};
}
__device__ __forceinline__ Four load4(const bf16* p) {
    const uint2 raw = *reinterpret_cast<const uint2*>(p);
    return {{__uint_as_float(raw.x << 16), __uint_as_float(raw.x & 0xffff0000u), __uint_as_float(raw.y << 16),
             __uint_as_float(raw.y & 0xffff0000u)}};
}
__device__ __forceinline__ void store4(float* p, const Four& x) {
    *reinterpret_cast<float4*>(p) = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
}
__device__ __forceinline__ void store4(bf16* p, const Four& x) {
    *reinterpret_cast<uint2*>(p) = make_uint2(pack2(x.v[0], x.v[1]), pack2(x.v[2], x.v[3]));
}

// The sums of one product, and the adapter's second half: `sum over splits + u B^T`.
struct Sums {
    const float* parts;   // splits x rows x outputs
    const float* u;       // rows x u_stride
    const float* b[3];    // of each stacked map, its outputs x r; null where there is no pair
    uint32_t splits;
    uint32_t rows;
    uint32_t outputs;
    uint32_t u_stride;
    uint32_t ends[3];     // output after the last of each map
    uint32_t columns[3];  // of `u`: first of each pair
    uint32_t r;           // a multiple of four
    uint32_t unused;
};
static_assert(sizeof(Sums) == 88, "params.rs");

constexpr int BATCH = 8;  // rows a thread works on, so that B is read once for all of them

// The sums of one row, of at most 16 parts (decode.rs): they lie far apart, so all are asked for at once. Additions
// stay in order.
__device__ __forceinline__ void gather_one(Four& acc, const Sums& s, uint32_t row, uint32_t n) {
    constexpr int AHEAD = 16;
    const float* parts = s.parts + size_t(row) * s.outputs + n;
    const size_t apart = size_t(s.rows) * s.outputs;
    Four x[AHEAD];
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
        x[k] = {};
        if (k < s.splits) x[k] = load4(parts + k * apart);
    }
#pragma unroll
    for (int k = 0; k < AHEAD; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) acc.v[i] += x[k].v[i];
}

// Those of eight rows, a part of all of them at a time.
__device__ __forceinline__ void gather_eight(Four (&acc)[BATCH], const Sums& s, uint32_t first, uint32_t n) {
#pragma unroll 2
    for (uint32_t z = 0; z < s.splits; z++) {
        Four x[BATCH];
#pragma unroll
        for (int m = 0; m < BATCH; m++) {
            x[m] = {};
            if (first + m < s.rows) x[m] = load4(s.parts + (size_t(z) * s.rows + first + m) * s.outputs + n);
        }
#pragma unroll
        for (int m = 0; m < BATCH; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) acc[m].v[i] += x[m].v[i];
    }
}

// Adds outputs n .. n + 3 of rows first .. first + 7.
__device__ __forceinline__ void gather(Four (&acc)[BATCH], const Sums& s, uint32_t first, uint32_t n) {
    if (s.rows - first == 1) gather_one(acc[0], s, first, n);
    else gather_eight(acc, s, first, n);
    const int pair = n < s.ends[0] ? 0 : n < s.ends[1] ? 1 : 2;
    const float* b = pair == 0 ? s.b[0] : pair == 1 ? s.b[1] : s.b[2];
    if (b == nullptr) return;
    const uint32_t start = pair == 0 ? 0 : pair == 1 ? s.ends[0] : s.ends[1];
    const uint32_t column = pair == 0 ? s.columns[0] : pair == 1 ? s.columns[1] : s.columns[2];
    for (uint32_t j = 0; j < s.r; j += 8) {
        Four up[2][4], u[2][BATCH];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const bool there = j + 4 * h < s.r;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                up[h][i] = {};
                if (there) up[h][i] = load4(b + size_t(n - start + i) * s.r + j + 4 * h);
            }
#pragma unroll
            for (int m = 0; m < BATCH; m++) {
                u[h][m] = {};
                if (there && first + m < s.rows) u[h][m] = load4(s.u + size_t(first + m) * s.u_stride + column + j + 4 * h);
            }
        }
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    const float value = __bfloat162float(__float2bfloat16_rn(up[h][i].v[k]));
#pragma unroll
                    for (int m = 0; m < BATCH; m++) acc[m].v[i] += value * u[h][m].v[k];
                }
    }
}

struct FinishTurn {
    Sums sums;
    const float* bias;      // null: none
    const float* table;     // per position: half cosines, then half sines
    const uint32_t* lens;   // tokens of a row that are cached already
    const uint32_t* slots;  // where a row's cache lies
    void* q;
    void* cache;            // slots x capacity x [keys | values]
    uint32_t q_stride;
    uint32_t prefix;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t capacity;
};
static_assert(sizeof(FinishTurn) == 160, "params.rs");

// Queries and keys turned, keys and values put into the cache. A thread takes four columns of the lower half of
// a head and the four that turn with them.
template <typename T>
__device__ void finish_turn(const FinishTurn& p) {
    const uint32_t half = p.head_dim / 2, vectors = half / 4;
    const uint32_t id = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32_t head = id / vectors, at = (id - head * vectors) * 4;
    if (head >= p.heads + 2 * p.kv_heads) return;
    const uint32_t first = blockIdx.y * BATCH, low = head * p.head_dim + at, high = low + half;
    Four a[BATCH] = {}, b[BATCH] = {};
    gather(a, p.sums, first, low);
    gather(b, p.sums, first, high);
    Four bias_low = {}, bias_high = {};
    if (p.bias) {
        bias_low = load4(p.bias + low);
        bias_high = load4(p.bias + high);
    }
    const uint32_t width = 2 * p.kv_heads * p.head_dim;
#pragma unroll
    for (int m = 0; m < BATCH; m++) {
        const uint32_t row = first + m;
        if (row >= p.sums.rows) continue;
        const uint32_t len = p.lens[row];
        const float* angles = p.table + size_t(p.prefix + len) * p.head_dim;
        Four cosines = {{1.0f, 1.0f, 1.0f, 1.0f}}, sines = {};
        if (head < p.heads + p.kv_heads) {
            cosines = load4(angles + at);
            sines = load4(angles + half + at);
        }
        Four x, y;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float u = a[m].v[i] + bias_low.v[i], v = b[m].v[i] + bias_high.v[i];
            x.v[i] = u * cosines.v[i] - v * sines.v[i];
            y.v[i] = v * cosines.v[i] + u * sines.v[i];
        }
        T* to = head < p.heads ? static_cast<T*>(p.q) + size_t(row) * p.q_stride + low
                               : static_cast<T*>(p.cache) + (size_t(p.slots[row]) * p.capacity + len) * width +
                                     (low - p.heads * p.head_dim);
        store4(to, x);
        store4(to + half, y);
    }
}
FOR_BOTH_TYPES(finish_turn, FinishTurn)

struct FinishGate {
    Sums sums;
    void* out;
    uint32_t stride;
    uint32_t width;
};
static_assert(sizeof(FinishGate) == 104, "params.rs");

__device__ __forceinline__ float exponent(float x, bf16) { return __expf(x); }
__device__ __forceinline__ float exponent(float x, float) { return expf(x); }

// out = silu(gate) * up
template <typename T>
__device__ void finish_gate(const FinishGate& p) {
    const uint32_t at = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (at >= p.width) return;
    const uint32_t first = blockIdx.y * BATCH;
    Four gate[BATCH] = {}, up[BATCH] = {};
    gather(gate, p.sums, first, at);
    gather(up, p.sums, first, p.width + at);
#pragma unroll
    for (int m = 0; m < BATCH; m++) {
        if (first + m >= p.sums.rows) continue;
        Four x;
#pragma unroll
        for (int i = 0; i < 4; i++)
            x.v[i] = gate[m].v[i] / (1.0f + exponent(-gate[m].v[i], T())) * up[m].v[i];
        store4(static_cast<T*>(p.out) + size_t(first + m) * p.stride + at, x);
    }
}
FOR_BOTH_TYPES(finish_gate, FinishGate)

struct FinishAdd {
    Sums sums;
    const void* add;
    void* out;
    uint32_t add_stride;
    uint32_t stride;
};
static_assert(sizeof(FinishAdd) == 112, "params.rs");

template <typename T>
__device__ void finish_add(const FinishAdd& p) {
    const uint32_t at = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (at >= p.sums.outputs) return;
    const uint32_t first = blockIdx.y * BATCH;
    Four acc[BATCH] = {};
    gather(acc, p.sums, first, at);
#pragma unroll
    for (int m = 0; m < BATCH; m++) {
        if (first + m >= p.sums.rows) continue;
        const Four add = load4(static_cast<const T*>(p.add) + size_t(first + m) * p.add_stride + at);
#pragma unroll
        for (int i = 0; i < 4; i++) acc[m].v[i] += add.v[i];
        store4(static_cast<T*>(p.out) + size_t(first + m) * p.stride + at, acc[m]);
    }
}
FOR_BOTH_TYPES(finish_add, FinishAdd)

struct CacheFill {
    const void* rows;        // keys and values of prompt tokens
    const uint32_t* places;  // per token: slot * capacity + place in the row
    void* cache;
    uint32_t width;
    uint32_t stride;         // of `rows`
};
static_assert(sizeof(CacheFill) == 32, "params.rs");

template <typename T>
__device__ void cache_fill(const CacheFill& p) {
    const T* from = static_cast<const T*>(p.rows) + size_t(blockIdx.x) * p.stride;
    T* to = static_cast<T*>(p.cache) + size_t(p.places[blockIdx.x]) * p.width;
    for (uint32_t at = threadIdx.x * 8; at < p.width; at += blockDim.x * 8) store8(to + at, load8(from + at));
}
FOR_BOTH_TYPES(cache_fill, CacheFill)

struct ArgMax {
    const float* logits;
    uint32_t* ids;
    uint32_t* lens;
    const uint32_t* slots;
    uint32_t* history;  // slots x capacity: the id chosen after each token; all ones where a logit was NaN
    uint32_t vocab;
    uint32_t stride;
    uint32_t capacity;
    uint32_t unused;
};
static_assert(sizeof(ArgMax) == 56, "params.rs");

constexpr int ARG_MAX_THREADS = 512;

__device__ __forceinline__ void better(float& most, uint32_t& id, float other, uint32_t other_id) {
    const bool wins = other > most || (other == most && other_id < id);
    most = wins ? other : most;
    id = wins ? other_id : id;
}

// The first of the largest logits; then the row is one token longer.
extern "C" __global__ void __launch_bounds__(ARG_MAX_THREADS) arg_max(const ArgMax p) {
    __shared__ float mosts[ARG_MAX_THREADS / 32];
    __shared__ uint32_t found[ARG_MAX_THREADS / 32], spoils[ARG_MAX_THREADS / 32];
    const float* row = p.logits + size_t(blockIdx.x) * p.stride;
    float most = -INFINITY;
    uint32_t id = 0xffffffffu, spoiled = 0;
    for (uint32_t at = threadIdx.x * 4; at < p.vocab; at += ARG_MAX_THREADS * 4) {
        const Four x = load4(row + at);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            spoiled |= uint32_t(x.v[i] != x.v[i]);
            better(most, id, x.v[i], at + i);
        }
    }
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
        better(most, id, __shfl_xor_sync(0xffffffffu, most, step), __shfl_xor_sync(0xffffffffu, id, step));
        spoiled |= __shfl_xor_sync(0xffffffffu, spoiled, step);
    }
    if ((threadIdx.x & 31) == 0) {
        mosts[threadIdx.x / 32] = most;
        found[threadIdx.x / 32] = id;
        spoils[threadIdx.x / 32] = spoiled;
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int i = 1; i < ARG_MAX_THREADS / 32; i++) {
        better(most, id, mosts[i], found[i]);
        spoiled |= spoils[i];
    }
    const uint32_t len = p.lens[blockIdx.x];
    p.ids[blockIdx.x] = spoiled || id >= p.vocab ? 0 : id;
    p.history[size_t(p.slots[blockIdx.x]) * p.capacity + len] = spoiled ? 0xffffffffu : id >= p.vocab ? 0 : id;
    p.lens[blockIdx.x] = len + 1;
}
