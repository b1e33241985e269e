// Attention of one query a row: over the keys and values of a shared prefix and over the row's own cache.
//
// A block takes 128 keys of one row and up to four query heads that share them; a team of eight lanes takes a key
// at a time. Each block leaves the largest score, the sum of exponentials and the weighted values; a second
// kernel merges these in the order of the keys. Where a chunk begins depends on the prefix and the row alone,
// so a row's result does not depend on the batch.
#include "common.cuh"

constexpr int CHUNK = 128;  // keys a block; decode.rs
constexpr int QUERIES = 4;  // heads a block; decode.rs
constexpr int LANES = 8;    // lanes a key
constexpr int ATTEND_THREADS = 128;
constexpr int TEAMS = ATTEND_THREADS / LANES;
constexpr int TURNS = CHUNK / TEAMS;
constexpr uint32_t WARP = 0xffffffffu;

struct DecodeAttention {
    const void* q;
    const void* prefix_keys;
    const void* prefix_values;
    const void* cache;       // slots x capacity x [keys | values]
    const uint32_t* lens;    // tokens cached before this one
    const uint32_t* slots;
    float* parts;            // rows x heads x splits x (head_dim + 2)
    uint32_t q_stride;
    uint32_t prefix_stride;
    uint32_t prefix;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t groups;         // of up to four query heads, per key head
    uint32_t capacity;
    uint32_t window;         // keys seen back from a position, itself included; 0: all
    uint32_t prefix_splits;
    uint32_t splits;
    float scale;
    uint32_t unused;
};
static_assert(sizeof(DecodeAttention) == 104, "params.rs");

__device__ __forceinline__ float exponent(float x, bf16) { return __expf(x); }
__device__ __forceinline__ float exponent(float x, float) { return expf(x); }

template <int D, typename T>
__device__ __forceinline__ void load_part(float (&to)[D], const T* from) {
    if constexpr (D % 8 == 0) {
#pragma unroll
        for (int i = 0; i < D; i += 8) {
            const Eight x = load8(from + i);
#pragma unroll
            for (int k = 0; k < 8; k++) to[i + k] = x.v[k];
        }
    } else {
#pragma unroll
        for (int i = 0; i < D; i++) to[i] = to_float(from[i]);
    }
}

template <typename T, int HD>
__device__ void decode_attention(const DecodeAttention& p) {
    constexpr int D = HD / LANES;
    __shared__ float values_of[TEAMS / 4][QUERIES][HD];
    __shared__ float mosts[TEAMS / 4][QUERIES], sums[TEAMS / 4][QUERIES];
    const uint32_t lane = threadIdx.x % LANES, team = threadIdx.x / LANES, warp = threadIdx.x / 32;
    const uint32_t group = blockIdx.y % p.groups, rest = blockIdx.y / p.groups;
    const uint32_t kv = rest % p.kv_heads, row = rest / p.kv_heads;
    const uint32_t shared_heads = p.heads / p.kv_heads, head = kv * shared_heads + group * QUERIES;
    const uint32_t split = blockIdx.x, len = p.lens[row] + 1;
    const bool in_prefix = split < p.prefix_splits;
    const uint32_t from = (in_prefix ? split : split - p.prefix_splits) * CHUNK;
    const uint32_t total = in_prefix ? p.prefix : len;
    if (from >= total) return;
    const uint32_t now = p.prefix + len - 1, behind = in_prefix ? 0 : p.prefix;

    const uint32_t width = p.kv_heads * HD;
    const T *keys, *values;
    size_t stride;
    if (in_prefix) {
        keys = static_cast<const T*>(p.prefix_keys) + kv * HD;
        values = static_cast<const T*>(p.prefix_values) + kv * HD;
        stride = p.prefix_stride;
    } else {
        keys = static_cast<const T*>(p.cache) + size_t(p.slots[row]) * p.capacity * 2 * width + kv * HD;
        values = keys + width;
        stride = 2 * width;
    }

    float q[QUERIES][D];
#pragma unroll
    for (int i = 0; i < QUERIES; i++) {
        const bool there = group * QUERIES + i < shared_heads;
        load_part<D>(q[i], static_cast<const T*>(p.q) + size_t(row) * p.q_stride + (there ? head + i : head) * HD + lane * D);
#pragma unroll
        for (int d = 0; d < D; d++) q[i][d] *= p.scale;
    }

    float scores[TURNS][QUERIES];
#pragma unroll
    for (int n = 0; n < TURNS; n++) {
        const uint32_t key = from + n * TEAMS + team;
        const bool seen = key < total && (p.window == 0 || now - (behind + key) < p.window);
        float k[D] = {};
        if (seen) load_part<D>(k, keys + key * stride + lane * D);
#pragma unroll
        for (int i = 0; i < QUERIES; i++) {
            float dot = 0.0f;
#pragma unroll
            for (int d = 0; d < D; d++) dot += q[i][d] * k[d];
#pragma unroll
            for (int step = 1; step < LANES; step *= 2) dot += __shfl_xor_sync(WARP, dot, step);
            scores[n][i] = seen ? dot : -INFINITY;
        }
    }

    // Exponentials against the block's largest score.
    float sum[QUERIES];
#pragma unroll
    for (int i = 0; i < QUERIES; i++) {
        float most = scores[0][i];
#pragma unroll
        for (int n = 1; n < TURNS; n++) most = fmaxf(most, scores[n][i]);
        most = fmaxf(most, __shfl_xor_sync(WARP, most, 8));
        most = fmaxf(most, __shfl_xor_sync(WARP, most, 16));
        if ((threadIdx.x & 31) == 0) mosts[warp][i] = most;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < QUERIES; i++) {
        float most = mosts[0][i];
#pragma unroll
        for (int k = 1; k < TEAMS / 4; k++) most = fmaxf(most, mosts[k][i]);
        sum[i] = 0.0f;
#pragma unroll
        for (int n = 0; n < TURNS; n++) {
            scores[n][i] = scores[n][i] == -INFINITY ? 0.0f : exponent(scores[n][i] - most, T());
            sum[i] += scores[n][i];
        }
    }

    float acc[QUERIES][D] = {};
#pragma unroll
    for (int n = 0; n < TURNS; n++) {
        const uint32_t key = from + n * TEAMS + team;
        float v[D] = {};
        if (key < total) load_part<D>(v, values + key * stride + lane * D);
#pragma unroll
        for (int i = 0; i < QUERIES; i++)
#pragma unroll
            for (int d = 0; d < D; d++) acc[i][d] += scores[n][i] * v[d];
    }

    // The four teams of a warp, then the four warps.
#pragma unroll
    for (int i = 0; i < QUERIES; i++) {
        sum[i] += __shfl_xor_sync(WARP, sum[i], 8);
        sum[i] += __shfl_xor_sync(WARP, sum[i], 16);
        if ((threadIdx.x & 31) == 0) sums[warp][i] = sum[i];
#pragma unroll
        for (int d = 0; d < D; d++) {
            acc[i][d] += __shfl_xor_sync(WARP, acc[i][d], 8);
            acc[i][d] += __shfl_xor_sync(WARP, acc[i][d], 16);
            if ((threadIdx.x & 31) < LANES) values_of[warp][i][lane * D + d] = acc[i][d];
        }
    }
    __syncthreads();
    for (uint32_t at = threadIdx.x; at < QUERIES * (HD + 2); at += ATTEND_THREADS) {
        const uint32_t i = at / (HD + 2), d = at - i * (HD + 2);
        if (group * QUERIES + i >= shared_heads) continue;
        float out;
        if (d == HD) {
            out = fmaxf(fmaxf(mosts[0][i], mosts[1][i]), fmaxf(mosts[2][i], mosts[3][i]));
        } else if (d == HD + 1) {
            out = sums[0][i] + sums[1][i] + sums[2][i] + sums[3][i];
        } else {
            out = values_of[0][i][d] + values_of[1][i][d] + values_of[2][i][d] + values_of[3][i][d];
        }
        p.parts[((size_t(row) * p.heads + head + i) * p.splits + split) * (HD + 2) + d] = out;
    }
}

// `blocks`: at least so many on a multiprocessor, where registers allow it without spilling.
#define DECODE_ATTENTION(type, name, hd, blocks)                                                               \
    extern "C" __global__ void __launch_bounds__(ATTEND_THREADS, blocks) decode_attention_##name##_hd##hd(     \
        const DecodeAttention p) {                                                                             \
        decode_attention<type, hd>(p);                                                                         \
    }
DECODE_ATTENTION(bf16, bf16, 64, 4)
DECODE_ATTENTION(bf16, bf16, 128, 4)
DECODE_ATTENTION(bf16, bf16, 256, 1)
DECODE_ATTENTION(float, f32, 16, 1)
DECODE_ATTENTION(float, f32, 32, 1)
DECODE_ATTENTION(float, f32, 64, 1)
DECODE_ATTENTION(float, f32, 128, 1)

struct DecodeMerge {
    const float* parts;
    const uint32_t* lens;
    void* out;
    uint32_t out_stride;
    uint32_t heads;
    uint32_t head_dim;
    uint32_t prefix_splits;
    uint32_t splits;
    uint32_t unused;
};
static_assert(sizeof(DecodeMerge) == 48, "params.rs");

// One block a head of a row, one thread a column.
template <typename T>
__device__ void decode_merge(const DecodeMerge& p) {
    const uint32_t head = blockIdx.x, row = blockIdx.y, d = threadIdx.x;
    const uint32_t width = p.head_dim + 2;
    const uint32_t count = p.prefix_splits + (p.lens[row] + 1 + CHUNK - 1) / CHUNK;
    const float* parts = p.parts + (size_t(row) * p.heads + head) * p.splits * width;
    constexpr int AHEAD = 8;  // chunks in flight
    float most = -INFINITY;
    for (uint32_t s = 0; s < count; s += AHEAD) {
#pragma unroll
        for (int k = 0; k < AHEAD; k++)
            if (s + k < count) most = fmaxf(most, parts[(s + k) * width + p.head_dim]);
    }
    float sum = 0.0f, value = 0.0f;
    for (uint32_t s = 0; s < count; s += AHEAD) {
        float scores[AHEAD], sums[AHEAD], values[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            const bool there = s + k < count;
            scores[k] = there ? parts[(s + k) * width + p.head_dim] : -INFINITY;
            sums[k] = there ? parts[(s + k) * width + p.head_dim + 1] : 0.0f;
            values[k] = there ? parts[(s + k) * width + d] : 0.0f;
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            // A chunk that a window hides has -inf here: its weight is zero, since the query always sees itself.
            const float weight = exponent(scores[k] - most, T());
            sum += weight * sums[k];
            value += weight * values[k];
        }
    }
    put(static_cast<T*>(p.out) + size_t(row) * p.out_stride + head * p.head_dim + d, value / sum);
}
FOR_BOTH_TYPES(decode_merge, DecodeMerge)
