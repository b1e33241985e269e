// A few rows times a four-bit weight, decoded in registers on its way into the tensor cores: what generation
// spends its time on. Weights are read once, the values that enter the product are those of nf4.cu bit for bit.
//
// The weight is the left factor (16 rows a fragment), the batch the right one (8 columns a fragment), so one
// batch row costs as much as eight. A block of 8 warps works on 256 outputs; a warp on 32 of them. The inner
// length is cut into `splits`, whose sums decode.cu adds in order: nothing depends on which block ends first.
//
// Which inner index stands where in a fragment is free as long as both factors agree: lane t of a quad takes 32
// neighbouring weights (16 bytes, one scale) of its rows, and of those four in each of eight products.
//
// The host checks: inputs and every part's outputs are multiples of 32, 64 weights share a scale.
#include "attention_mma.cuh"
#include "common.cuh"

constexpr int ROWS_THREADS = 256;
constexpr int ROWS_WARPS = 8;
constexpr int ROWS_TILE = 256;  // outputs a block; decode.rs
constexpr int ROWS_STAGE = 128; // inner length a stage; decode.rs

struct Nf4Part {
    const uint8_t* packed;
    const uint8_t* codes;  // null: `absmax` holds the scales
    const float* absmax;
    const float* map;
    float offset;
    uint32_t end;          // output after its last
};
static_assert(sizeof(Nf4Part) == 40, "params.rs");

struct LoraRows {
    const float* a;        // a_rows x inputs
    const bf16* x;
    float* u;              // rows x a_rows: scale * x A^T, rounded to bf16 as in training
    uint32_t inputs;
    uint32_t x_stride;
    uint32_t a_rows;
    uint32_t rows;
    float scale;
    uint32_t unused;
};
static_assert(sizeof(LoraRows) == 48, "params.rs");

struct Nf4Rows {
    Nf4Part parts[3];      // stacked; parts that are not there end where the last one does
    LoraRows lora;
    const bf16* x;         // rows x inputs
    float* sums;           // splits x rows x outputs
    uint32_t inputs;
    uint32_t outputs;
    uint32_t x_stride;
    uint32_t rows;
    uint32_t splits;
    uint32_t lora_blocks;  // blocks at the start that compute `lora` instead
};
static_assert(sizeof(Nf4Rows) == 208, "params.rs");

__device__ __forceinline__ float rounded(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

// One block: one row of A and eight rows of x.
__device__ __forceinline__ void lora_item(const LoraRows& p, uint32_t item) {
    constexpr int AHEAD = 4;  // loads of A in flight
    constexpr uint32_t STEP = ROWS_THREADS * 8;
    __shared__ float parts[ROWS_WARPS][8];
    const uint32_t groups = (p.rows + 7) / 8;
    const uint32_t j = item / groups, first = (item - j * groups) * 8;
    float sums[8] = {};
    for (uint32_t from = threadIdx.x * 8; from < p.inputs; from += AHEAD * STEP) {
        Eight a[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            a[k] = {};
            if (from + k * STEP < p.inputs) a[k] = load8(p.a + size_t(j) * p.inputs + from + k * STEP);
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            if (from + k * STEP >= p.inputs) continue;
#pragma unroll
            for (int i = 0; i < 8; i++) a[k].v[i] = rounded(a[k].v[i]);
#pragma unroll
            for (int m = 0; m < 8; m++) {
                if (first + m >= p.rows) continue;
                const Eight x = load8(p.x + size_t(first + m) * p.x_stride + from + k * STEP);
#pragma unroll
                for (int i = 0; i < 8; i++) sums[m] += a[k].v[i] * x.v[i];
            }
        }
    }
#pragma unroll
    for (int m = 0; m < 8; m++) {
        const float sum = warp_sum(sums[m]);
        if ((threadIdx.x & 31) == 0) parts[threadIdx.x / 32][m] = sum;
    }
    __syncthreads();
    const uint32_t row = first + threadIdx.x;
    if (threadIdx.x >= 8 || row >= p.rows) return;
    float sum = 0.0f;
    for (int i = 0; i < ROWS_WARPS; i++) sum += parts[i][threadIdx.x];
    p.u[size_t(row) * p.a_rows + j] = rounded(p.scale * sum);
}

extern "C" __global__ void __launch_bounds__(ROWS_THREADS) lora_rows(const LoraRows p) { lora_item(p, blockIdx.x); }

__constant__ float NF4[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
    -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
    0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
    0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};

// Both values of every byte, 16 copies side by side: lane l reads copy l % 16, and no two lanes of the half
// warp that a 64-bit load serves meet in a bank.
__device__ __forceinline__ void fill_table(float2* table) {
    const uint32_t copy = threadIdx.x & 15, low = threadIdx.x / 16;
    const float second = NF4[low];
#pragma unroll
    for (int high = 0; high < 16; high++) table[(high * 16 + low) * 16 + copy] = make_float2(NF4[high], second);
}

// Two neighbouring weights, decoded: the first in the low half. `mine` is the lane's copy of the table.
template <int BYTE>
__device__ __forceinline__ uint32_t two(const char* mine, uint32_t word, float scale) {
    const uint32_t at = (BYTE == 0 ? word << 7 : word >> (8 * BYTE - 7)) & 0x7f80u;
    const float2 pair = *reinterpret_cast<const float2*>(mine + at);
    return pack2(__fmul_rn(pair.x, scale), __fmul_rn(pair.y, scale));
}

// The scales of a lane's four rows (g, g + 8, g + 16, g + 24 of the warp's 32), loaded one stage before they are
// needed.
struct Scales {
    const uint8_t* codes;  // null: `absmax` holds the scales
    const float* absmax;
    const float* map;      // in shared memory
    float offset;
    uint32_t block[4];     // of 64 weights, in the stage that is loaded next
    // Zero where a lane holds no weight of its first stage: its code is looked up all the same.
    uint32_t code[4] = {};
    float scale[4] = {};

    __device__ __forceinline__ void load() {
        if (codes) {
#pragma unroll
            for (int i = 0; i < 4; i++) code[i] = codes[block[i]];
#pragma unroll
            for (int i = 0; i < 4; i++) scale[i] = absmax[block[i] >> 8];
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++) scale[i] = absmax[block[i]];
        }
#pragma unroll
        for (int i = 0; i < 4; i++) block[i] += ROWS_STAGE / 64;
    }

    __device__ __forceinline__ void values(float (&to)[4], bool inside) const {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float value = codes ? __fadd_rn(__fmul_rn(map[code[i]], scale[i]), offset) : scale[i];
            to[i] = inside ? value : 0.0f;
        }
    }
};

template <int NT>
struct RowsShared {
    static constexpr int STAGES = 3;
    static constexpr int TABLE = 256 * 16 * 8;
    static constexpr int MAPS = 3 * 256 * 4;
    static constexpr int WEIGHTS = ROWS_WARPS * 4 * 32;  // 16-byte pieces a stage
    static constexpr int INPUTS = NT * 128;
    static constexpr int BYTES = TABLE + MAPS + STAGES * (WEIGHTS + INPUTS) * 16;
};

template <int N>
__device__ __forceinline__ void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// NT groups of eight batch rows.
template <int NT>
__device__ __forceinline__ void nf4_rows(const Nf4Rows& p) {
    using Shared = RowsShared<NT>;
    constexpr int STAGES = Shared::STAGES;
    if (blockIdx.x < p.lora_blocks) {
        lora_item(p.lora, blockIdx.x);
        return;
    }
    extern __shared__ __align__(128) char shared[];
    float2* table = reinterpret_cast<float2*>(shared);
    float* maps = reinterpret_cast<float*>(shared + Shared::TABLE);
    uint4* weights = reinterpret_cast<uint4*>(shared + Shared::TABLE + Shared::MAPS);
    uint4* inputs = weights + STAGES * Shared::WEIGHTS;

    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x & 31, g = lane / 4, t = lane & 3;
    const uint32_t index = blockIdx.x - p.lora_blocks;
    const uint32_t tile = index / p.splits, split = index - tile * p.splits;
    const uint32_t all = (p.inputs + ROWS_STAGE - 1) / ROWS_STAGE;
    const uint32_t begin = split * all / p.splits, end = (split + 1) * all / p.splits;
    const uint32_t output = tile * ROWS_TILE + warp * 32;  // the warp's first
    const bool active = output < p.outputs;

    // A warp's outputs lie in one part.
    const int part = output < p.parts[0].end ? 0 : output < p.parts[1].end ? 1 : 2;
    const uint32_t start = part == 0 ? 0 : part == 1 ? p.parts[0].end : p.parts[1].end;
    const uint32_t first = (output - start + g) * p.inputs + begin * ROWS_STAGE + 32 * t;  // weight of row g
    auto holds = [&](uint32_t stage) { return stage * ROWS_STAGE + 32 * t < p.inputs; };  // weights of this lane

    // Sources advance with every stage that is issued, targets go around the ring.
    const uint8_t* packed = (part == 0 ? p.parts[0].packed : part == 1 ? p.parts[1].packed : p.parts[2].packed) + first / 2;
    const uint32_t apart = 4 * p.inputs;  // bytes between rows g and g + 8
    const auto to_weights = attention::shared_address(weights + warp * 128 + lane);
    // Piece v % 16 of batch row v / 16 goes where the lane that needs it will look; the xor keeps both this write
    // and that read free of bank conflicts. A thread takes one piece of every sixteenth row.
    const uint32_t row = threadIdx.x / 16, piece = threadIdx.x & 15, quad = piece / 4, piece_j = piece & 3;
    const uint32_t place = (row / 8 * 4 + piece_j) * 32 + (((row & 7) * 4 + quad) ^ (2 * piece_j));
    const auto to_inputs = attention::shared_address(inputs + place);
    const bf16* x = p.x + size_t(row) * p.x_stride + begin * ROWS_STAGE + piece * 8;
    const size_t x_apart = size_t(16) * p.x_stride;

    uint32_t weights_slot = 0, weights_stage = begin, inputs_slot = 0, inputs_stage = begin;
    auto issue_weights = [&] {
        if (active && weights_stage < end) {
            const bool inside = holds(weights_stage);
            const auto to = to_weights + weights_slot * (Shared::WEIGHTS * 16);
            const uint8_t* from = packed;
#pragma unroll
            for (int i = 0; i < 4; i++, from += apart) attention::copy16(to + i * 512, from, inside);
        }
        packed += ROWS_STAGE / 2;
        weights_stage++;
        weights_slot = weights_slot + 1 == STAGES ? 0 : weights_slot + 1;
    };
    auto issue_inputs = [&] {
        if (inputs_stage < end) {
            const bool inside = inputs_stage * ROWS_STAGE + piece * 8 < p.inputs;
            const auto to = to_inputs + inputs_slot * (Shared::INPUTS * 16);
            const bf16* from = x;
#pragma unroll
            for (int i = 0; i < (NT + 1) / 2; i++, from += x_apart)
                if (NT > 1 || row < 8) attention::copy16(to + i * 4096, from, inside && row + 16 * i < p.rows);
        }
        x += ROWS_STAGE;
        inputs_stage++;
        inputs_slot = inputs_slot + 1 == STAGES ? 0 : inputs_slot + 1;
    };

    // Weights first: they come from afar.
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) issue_weights();
    Scales scales;
    scales.codes = part == 0 ? p.parts[0].codes : part == 1 ? p.parts[1].codes : p.parts[2].codes;
    scales.absmax = part == 0 ? p.parts[0].absmax : part == 1 ? p.parts[1].absmax : p.parts[2].absmax;
    scales.offset = part == 0 ? p.parts[0].offset : part == 1 ? p.parts[1].offset : p.parts[2].offset;
    scales.map = maps + part * 256;
#pragma unroll
    for (int i = 0; i < 4; i++) scales.block[i] = (first + i * 8 * p.inputs) >> 6;
    if (active && holds(begin)) scales.load();
    fill_table(table);
    if (p.parts[0].map) maps[threadIdx.x] = p.parts[0].map[threadIdx.x];
    if (p.parts[1].map) maps[256 + threadIdx.x] = p.parts[1].map[threadIdx.x];
    if (p.parts[2].map) maps[512 + threadIdx.x] = p.parts[2].map[threadIdx.x];
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        issue_inputs();
        attention::copy_commit();  // the first holds the weights of all of them
    }

    const char* mine = reinterpret_cast<const char*>(table + (lane & 15));
    const uint4* my_weights = weights + warp * 128 + lane;
    uint32_t slot = 0;
    float acc[2][NT][4] = {};
    for (uint32_t stage = begin; stage < end; stage++) {
        copy_wait<STAGES - 2>();
        __syncthreads();
        // The slot that is filled now was read in the stage before, and all threads are past it.
        issue_weights();
        issue_inputs();
        attention::copy_commit();

        const uint32_t at = slot;
        slot = slot + 1 == STAGES ? 0 : slot + 1;
        if (!active) continue;
        float scale[4];
        scales.values(scale, holds(stage));
        if (stage + 1 < end && holds(stage + 1)) scales.load();

        uint32_t words[4][4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint4 raw = my_weights[at * Shared::WEIGHTS + i * 32];
            words[i][0] = raw.x;
            words[i][1] = raw.y;
            words[i][2] = raw.z;
            words[i][3] = raw.w;
        }
        const uint4* b = inputs + at * Shared::INPUTS;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            uint32_t a[2][2][4];
#pragma unroll
            for (int m = 0; m < 2; m++) {
                const uint32_t low = words[2 * m][j], high = words[2 * m + 1][j];
                const float low_scale = scale[2 * m], high_scale = scale[2 * m + 1];
                a[m][0][0] = two<0>(mine, low, low_scale);
                a[m][0][1] = two<0>(mine, high, high_scale);
                a[m][0][2] = two<1>(mine, low, low_scale);
                a[m][0][3] = two<1>(mine, high, high_scale);
                a[m][1][0] = two<2>(mine, low, low_scale);
                a[m][1][1] = two<2>(mine, high, high_scale);
                a[m][1][2] = two<3>(mine, low, low_scale);
                a[m][1][3] = two<3>(mine, high, high_scale);
            }
#pragma unroll
            for (int n = 0; n < NT; n++) {
                const uint4 x8 = b[(n * 4 + j) * 32 + (lane ^ (2 * j))];
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    attention::mma(acc[m][n], a[m][0], x8.x, x8.y);
                    attention::mma(acc[m][n], a[m][1], x8.z, x8.w);
                }
            }
        }
    }
    if (!active) return;
#pragma unroll
    for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int n = 0; n < NT; n++) {
            const uint32_t row = 8 * n + 2 * t;
            float* out = p.sums + (size_t(split) * p.rows + row) * p.outputs + output + 16 * m + g;
            if (row < p.rows) {
                out[0] = acc[m][n][0];
                out[8] = acc[m][n][2];
            }
            if (row + 1 < p.rows) {
                out[p.outputs] = acc[m][n][1];
                out[p.outputs + 8] = acc[m][n][3];
            }
        }
    }
}

// Two blocks share a multiprocessor of an A100 or H100 while the batch is small.
#define NF4_ROWS(groups, blocks)                                                                           \
    static_assert(RowsShared<groups>::BYTES * blocks <= 227 * 1024 - blocks * 1024, "shared memory");      \
    extern "C" __global__ void __launch_bounds__(ROWS_THREADS, blocks) nf4_rows_##groups(const Nf4Rows p) { \
        nf4_rows<groups>(p);                                                                               \
    }
static_assert(RowsShared<1>::BYTES == 91136 && RowsShared<2>::BYTES == 97280 && RowsShared<4>::BYTES == 109568 &&
                  RowsShared<8>::BYTES == 134144, "decode.rs");
NF4_ROWS(1, 2)
NF4_ROWS(2, 2)
NF4_ROWS(4, 1)
NF4_ROWS(8, 1)
