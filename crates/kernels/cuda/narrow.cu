// The adapter's own products, in bf16: their inner or outer length is a rank, so they move one wide matrix once and
// compute next to nothing. Made for that: each reads or writes the wide matrix in whole lines and adds in a fixed order.
//
// Columns of the rank come padded to 64 with zeros. Lengths of the wide side are multiples of 64.
#include "attention_mma.cuh"
#include "dropout.cuh"

using attention::copy16;
using attention::copy_commit;
using attention::ldmatrix_trans;
using attention::mma;
using attention::shared_address;
using attention::tile_chunk;

struct NarrowDown {
    const bf16* x;         // tokens x width
    const float* a;        // rows x width
    bf16* u;               // tokens x pad; columns behind `rows` become zero
    bf16* also;            // where else to put it, or null
    uint32_t tokens;
    uint32_t width;
    uint32_t rows;
    uint32_t pad;
    uint32_t x_stride;
    uint32_t u_stride;
    uint32_t also_stride;
    float scale;
};
static_assert(sizeof(NarrowDown) == 64, "params.rs");

constexpr int DOWN_TOKENS = 32, DOWN_WARPS = 16, DOWN_BUFFERS = 4;

// u = scale . x A^T. Warps share out the inner length, 32 columns in turn; a lane reads eight neighbouring values of
// a row, and the fragments of both factors number the inner length in that order.
template <int NT>
__device__ void narrow_down(const NarrowDown& p) {
    __shared__ float sums[DOWN_BUFFERS][DOWN_TOKENS][NT * 8];
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const uint32_t first = blockIdx.x * DOWN_TOKENS;
    const bf16* x[4];
#pragma unroll
    for (int i = 0; i < 4; i++) x[i] = p.x + size_t(min(first + g + 8 * i, p.tokens - 1)) * p.x_stride;
    float acc[2][NT][4] = {};
    for (uint32_t k = warp * 32 + t * 8; k < p.width; k += DOWN_WARPS * 32) {
        uint4 rows[4];
#pragma unroll
        for (int i = 0; i < 4; i++) rows[i] = *reinterpret_cast<const uint4*>(x[i] + k);
#pragma unroll
        for (int n = 0; n < NT; n++) {
            Eight w = {};
            if (n * 8 + g < p.rows) w = load8(p.a + size_t(n * 8 + g) * p.width + k);
            const uint32_t b[4] = {pack2(w.v[0], w.v[1]), pack2(w.v[2], w.v[3]), pack2(w.v[4], w.v[5]), pack2(w.v[6], w.v[7])};
#pragma unroll
            for (int m = 0; m < 2; m++) {
                const uint4 low = rows[2 * m], high = rows[2 * m + 1];
                const uint32_t first_half[4] = {low.x, high.x, low.y, high.y}, second_half[4] = {low.z, high.z, low.w, high.w};
                mma(acc[m][n], first_half, b[0], b[1]);
                mma(acc[m][n], second_half, b[2], b[3]);
            }
        }
    }
    for (int round = 0; round < DOWN_WARPS / DOWN_BUFFERS; round++) {
        if (warp / DOWN_BUFFERS == round) {
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int n = 0; n < NT; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        float& sum = sums[warp % DOWN_BUFFERS][m * 16 + g + (e / 2) * 8][n * 8 + 2 * t + e % 2];
                        sum = round == 0 ? acc[m][n][e] : sum + acc[m][n][e];
                    }
        }
        __syncthreads();
    }
    const uint32_t pairs = p.pad / 2;
    for (uint32_t i = threadIdx.x; i < DOWN_TOKENS * pairs; i += DOWN_WARPS * 32) {
        const uint32_t row = i / pairs, col = i % pairs * 2;
        if (first + row >= p.tokens) break;
        float v[2] = {};
        if (col < NT * 8) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                for (int b = 0; b < DOWN_BUFFERS; b++) v[e] += sums[b][row][col + e];
                v[e] *= p.scale;
            }
        }
        const uint32_t both = pack2(v[0], v[1]);
        *reinterpret_cast<uint32_t*>(p.u + size_t(first + row) * p.u_stride + col) = both;
        if (p.also) *reinterpret_cast<uint32_t*>(p.also + size_t(first + row) * p.also_stride + col) = both;
    }
}
#define NARROW_DOWN(NT) \
    extern "C" __global__ void __launch_bounds__(DOWN_WARPS * 32) narrow_down_##NT(const NarrowDown p) { narrow_down<NT>(p); }
NARROW_DOWN(2)
NARROW_DOWN(4)
NARROW_DOWN(6)
NARROW_DOWN(8)

struct NarrowOut {
    const bf16* du;        // tokens x 64 or more
    const float* a;        // rows x width
    bf16* dx;              // tokens x width; added to
    Mask mask;             // bits null: no dropout
    uint32_t tokens;
    uint32_t width;
    uint32_t rows;
    uint32_t du_stride;
    uint32_t dx_stride;
    uint32_t per_block;    // tokens a block works on, a multiple of 64
    float scale;
    uint32_t unused;
};
static_assert(sizeof(NarrowOut) == 88, "params.rs");

constexpr int OUT_COLUMNS = 128;

// dx += mask(scale . du A). A block holds its columns of A; a warp holds 64 of them in registers and walks over tokens.
// Columns are dealt to fragments so that a lane ends up with eight neighbours; the rank so that it reads four.
template <int KT>
__device__ void narrow_out(const NarrowOut& p) {
    __shared__ __align__(128) bf16 tile[KT * 16 * OUT_COLUMNS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const uint32_t first = blockIdx.x * OUT_COLUMNS;
    const uint32_t at = shared_address(tile);
    for (int i = threadIdx.x; i < KT * 16 * OUT_COLUMNS; i += 256) {
        const uint32_t r = i / OUT_COLUMNS, c = i % OUT_COLUMNS;
        float v = 0.0f;
        if (r < p.rows && first + c < p.width) v = p.a[size_t(r) * p.width + first + c];
        const uint32_t in = r % 16, k = r - in + 2 * (in / 4) + in % 2 + (in % 4 >= 2 ? 8 : 0);
        const uint32_t col = c / 32 * 32 + c % 8 / 2 * 8 + c % 32 / 8 * 2 + c % 2;
        tile[k * OUT_COLUMNS + (((col / 8) ^ (k & 7)) * 8) + col % 8] = __float2bfloat16_rn(v);
    }
    __syncthreads();
    const uint32_t half = warp & 1, column = first + half * 64;
    if (column >= p.width) return;
    uint32_t b[KT][8][2];
#pragma unroll
    for (int k = 0; k < KT; k++)
#pragma unroll
        for (int n = 0; n < 8; n += 2) {
            uint32_t r[4];
            const int row = k * 16 + (lane & 7) + (((lane >> 3) & 1) << 3);
            ldmatrix_trans(r, tile_chunk<OUT_COLUMNS>(at, row, half * 8 + n + (lane >> 4)));
            b[k][n][0] = r[0], b[k][n][1] = r[1], b[k][n + 1][0] = r[2], b[k][n + 1][1] = r[3];
        }
    const uint32_t start = blockIdx.y * p.per_block, end = min(start + p.per_block, p.tokens);
    for (uint32_t token = start + (warp >> 1) * 16; token < end; token += 64) {
        uint32_t a[KT][4];
#pragma unroll
        for (int row = 0; row < 2; row++) {
            const bf16* du = p.du + size_t(min(token + g + 8 * row, p.tokens - 1)) * p.du_stride + 4 * t;
#pragma unroll
            for (int k = 0; k < KT; k++) {
                const uint2 four = *reinterpret_cast<const uint2*>(du + k * 16);
                a[k][row] = four.x, a[k][row + 2] = four.y;
            }
        }
#pragma unroll
        for (int group = 0; group < 2; group++) {
            float acc[4][4] = {};
#pragma unroll
            for (int k = 0; k < KT; k++)
#pragma unroll
                for (int n = 0; n < 4; n++) mma(acc[n], a[k], b[k][group * 4 + n][0], b[k][group * 4 + n][1]);
            const uint32_t at_column = column + group * 32 + t * 8;
#pragma unroll
            for (int row = 0; row < 2; row++) {
                const uint32_t own = token + g + 8 * row;
                if (own >= end) continue;
                Eight part;
#pragma unroll
                for (int i = 0; i < 8; i++) part.v[i] = p.scale * acc[i / 2][row * 2 + i % 2];
                if (p.mask.bits) part = masked8(p.mask, *mask_byte(p.mask, own, p.width, at_column), part);
                bf16* dx = p.dx + size_t(own) * p.dx_stride + at_column;
                Eight sum = load8(dx);
#pragma unroll
                for (int i = 0; i < 8; i++) sum.v[i] += part.v[i];
                store8(dx, sum);
            }
        }
    }
}
#define NARROW_OUT(KT) \
    extern "C" __global__ void __launch_bounds__(256) narrow_out_##KT(const NarrowOut p) { narrow_out<KT>(p); }
NARROW_OUT(1)
NARROW_OUT(2)
NARROW_OUT(3)
NARROW_OUT(4)

struct NarrowGrad {
    const bf16* wide;      // tokens x width
    const bf16* thin;      // tokens x 64 or more
    float* out;            // added to
    float* partial;        // per split, tile and block: what it summed
    uint32_t* arrived;     // per tile; zero before and after
    uint64_t starts[3];    // first value of each stacked map in `out`
    uint32_t ends[3];      // column of `wide` after the last of each map
    uint32_t columns[3];   // first column of `thin` of each map; all ones: no pair
    uint32_t tokens;
    uint32_t width;
    uint32_t wide_stride;
    uint32_t thin_stride;
    uint32_t rows;         // of the rank
    uint32_t per_split;    // tokens, a multiple of 32
    float scale;
    uint32_t turned;       // 0: `out` is rows x width. 1: per map, its columns x rows
};
static_assert(sizeof(NarrowGrad) == 120, "params.rs");

constexpr int GRAD_TOKENS = 32, GRAD_STAGES = 4, GRAD_TILE = GRAD_TOKENS * 128;  // bytes of 64 columns

// Fields of the parameters cannot be picked by a number without a copy of them in local memory.
template <typename T>
__device__ __forceinline__ T of_three(const T (&three)[3], int i) { return i == 0 ? three[0] : i == 1 ? three[1] : three[2]; }

// out += scale . thin^T wide, over tokens. A block sums 64 columns of `wide` over one part of the tokens; the last block of
// a tile to arrive adds the parts up in their order, so the sum does not depend on which block that is.
template <int RT>
__device__ void narrow_grad(const NarrowGrad& p) {
    __shared__ __align__(128) uint8_t tiles[GRAD_STAGES][2][GRAD_TILE];
    __shared__ bool last;
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const uint32_t column = blockIdx.x * 64;
    const int map = column < p.ends[0] ? 0 : column < p.ends[1] ? 1 : 2;
    const uint32_t thin_column = of_three(p.columns, map);
    if (thin_column == ~0u) return;
    const bf16* wide = p.wide + column;
    const bf16* thin = p.thin + thin_column;
    const uint32_t start = blockIdx.y * p.per_split, end = min(start + p.per_split, p.tokens);
    const int chunks = start < end ? (end - start + GRAD_TOKENS - 1) / GRAD_TOKENS : 0;
    const auto load = [&](int chunk) {
        if (chunk < chunks) {
            const uint32_t to_wide = shared_address(tiles[chunk % GRAD_STAGES][0]);
            const uint32_t to_thin = shared_address(tiles[chunk % GRAD_STAGES][1]);
#pragma unroll
            for (int i = threadIdx.x; i < GRAD_TOKENS * 8; i += 128) {
                const int row = i / 8, part = i % 8;
                const uint32_t token = start + chunk * GRAD_TOKENS + row;
                const bool valid = token < end;
                const size_t from = valid ? token : start;
                copy16(tile_chunk<64>(to_wide, row, part), wide + from * p.wide_stride + part * 8, valid);
                if (part < RT * 2) copy16(tile_chunk<64>(to_thin, row, part), thin + from * p.thin_stride + part * 8, valid);
            }
        }
        copy_commit();
    };
    float acc[RT][2][4] = {};
    for (int i = 0; i < GRAD_STAGES - 1; i++) load(i);
    for (int chunk = 0; chunk < chunks; chunk++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(GRAD_STAGES - 2) : "memory");
        __syncthreads();
        load(chunk + GRAD_STAGES - 1);
        const uint32_t from_wide = shared_address(tiles[chunk % GRAD_STAGES][0]);
        const uint32_t from_thin = shared_address(tiles[chunk % GRAD_STAGES][1]);
#pragma unroll
        for (int k = 0; k < GRAD_TOKENS / 16; k++) {
            uint32_t b[4];
            ldmatrix_trans(b, tile_chunk<64>(from_wide, k * 16 + (lane & 7) + (((lane >> 3) & 1) << 3), warp * 2 + (lane >> 4)));
#pragma unroll
            for (int r = 0; r < RT; r++) {
                uint32_t a[4];
                ldmatrix_trans(a, tile_chunk<64>(from_thin, k * 16 + (lane & 7) + ((lane >> 4) << 3), r * 2 + ((lane >> 3) & 1)));
                mma(acc[r][0], a, b[0], b[1]);
                mma(acc[r][1], a, b[2], b[3]);
            }
        }
    }
    const uint32_t splits = gridDim.y;
    if (splits > 1) {
        float* own = p.partial + (size_t(blockIdx.y) * gridDim.x + blockIdx.x) * (RT * 8 * 128) + threadIdx.x;
#pragma unroll
        for (int i = 0; i < RT * 8; i++) own[i * 128] = acc[i / 8][i / 4 % 2][i % 4];
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) last = atomicAdd(p.arrived + blockIdx.x, 1) == splits - 1;
        __syncthreads();
        if (!last) return;
        __threadfence();
        if (threadIdx.x == 0) p.arrived[blockIdx.x] = 0;
#pragma unroll
        for (int i = 0; i < RT * 8; i++) {
            float sum = 0.0f;
            for (uint32_t s = 0; s < splits; s++)
                sum += __ldcg(p.partial + (size_t(s) * gridDim.x + blockIdx.x) * (RT * 8 * 128) + i * 128 + threadIdx.x);
            acc[i / 8][i / 4 % 2][i % 4] = sum;
        }
    }
    float* out = p.out + of_three(p.starts, map);
    const uint32_t before = map == 0 ? 0 : of_three(p.ends, map - 1);
#pragma unroll
    for (int i = 0; i < RT * 8; i++) {
        const uint32_t row = i / 8 * 16 + g + i % 4 / 2 * 8;
        const uint32_t col = column + warp * 16 + i / 4 % 2 * 8 + 2 * t + i % 2;
        if (row >= p.rows) continue;
        float* to = p.turned ? out + size_t(col - before) * p.rows + row : out + size_t(row) * p.width + col;
        *to += p.scale * acc[i / 8][i / 4 % 2][i % 4];
    }
}
#define NARROW_GRAD(RT) \
    extern "C" __global__ void __launch_bounds__(128) narrow_grad_##RT(const NarrowGrad p) { narrow_grad<RT>(p); }
NARROW_GRAD(1)
NARROW_GRAD(2)
NARROW_GRAD(3)
NARROW_GRAD(4)
