// Masks of dropout: those of ops/dropout.rs, a pure function of the token's key, the place and the column. They are
// drawn once a pass and kept as one bit a value; whoever makes the values draws, so that masking costs no pass over them.
#pragma once
#include "common.cuh"

struct Mask {
    uint8_t* bits;         // per token width / 8 bytes, bit i of a byte is value i: 1 is kept
    const uint64_t* keys;  // per token
    uint64_t place;        // mixed; numbers layer and site
    uint32_t threshold;    // values whose 16 bits are below it are dropped
    float keep;            // what the others are scaled by
};
static_assert(sizeof(Mask) == 32, "params.rs");

__device__ __forceinline__ uint8_t* mask_byte(const Mask& m, uint32_t row, uint32_t width, uint32_t at) {
    return m.bits + (size_t(row) * width + at) / 8;
}

__device__ __forceinline__ Eight masked8(const Mask& m, uint32_t byte, const Eight& x) {
    Eight out;
#pragma unroll
    for (int i = 0; i < 8; i++) out.v[i] = (byte >> i & 1) ? x.v[i] * m.keep : 0.0f;
    return out;
}

// The masked values of a row from column `at`; keeps their bits. `key` is the row's, already mixed with the place. One
// draw of 32 bits serves two neighbouring columns.
__device__ __forceinline__ Eight draw8(const Mask& m, uint64_t key, uint32_t row, uint32_t width, uint32_t at, const Eight& x) {
    const uint32_t high = uint32_t(key >> 32), low = uint32_t(key);
    uint32_t byte = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t drawn = mix32(mix32(low + at / 2 + i) ^ high);
        byte |= uint32_t((drawn & 0xffff) >= m.threshold) << (2 * i) | uint32_t((drawn >> 16) >= m.threshold) << (2 * i + 1);
    }
    *mask_byte(m, row, width, at) = uint8_t(byte);
    return masked8(m, byte, x);
}

__device__ __forceinline__ uint64_t mask_key(const Mask& m, uint32_t row) { return mix64(m.keys[row] ^ m.place); }
