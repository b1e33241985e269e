//! Vector loops: an exponential that the compiler can vectorise, fixed-order reductions, and the macro
//! that compiles a loop once per instruction set and picks one at run time.
//!
//! Promise: the same bits with every instruction set. Bodies use plain multiplies and adds (never
//! contracted by the compiler) and reduce over a fixed number of lanes.
#![expect(
    clippy::inline_always,
    reason = "a vector loop must be compiled into each of its instruction sets"
)]

/// Lanes of every reduction: one 512-bit register.
pub(crate) const LANES: usize = 16;

/// Defines a function whose body is compiled for AVX-512, for AVX2 and for the baseline; the call picks
/// the best that the machine has.
macro_rules! vectorized {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    body($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    body($($arg),*)
                }
                if $crate::ops::simd::has_avx512() {
                    #[expect(unsafe_code, reason = "run-time choice of the instruction set")]
                    // SAFETY: every feature that `avx512` enables was just detected.
                    return unsafe { avx512($($arg),*) };
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    #[expect(unsafe_code, reason = "run-time choice of the instruction set")]
                    // SAFETY: the feature that `avx2` enables was just detected.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use vectorized;

/// The AVX-512 subsets that `vectorized!` compiles for.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn has_avx512() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512dq")
}

/// `e^x` within 2 ulp over -87..88, clamped outside; NaN stays NaN. (Cephes `expf`: reduce by powers
/// of two, then a polynomial of degree six.)
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5.0e-1;
    p = (p * r) * r + r + 1.0;
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    p * scale
}

/// Adds lanes pairwise, in a fixed order.
#[inline(always)]
fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// `sum a_i b_i` in a fixed order.
#[inline(always)]
pub(crate) fn dot_inline(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    let mut sum = sum_lanes(lanes);
    for (x, y) in a_rest.iter().zip(b_rest) {
        sum += x * y;
    }
    sum
}

vectorized! {
    /// `sum a_i b_i` in a fixed order.
    pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
        dot_inline(a, b)
    }
}

vectorized! {
    /// The largest value; minus infinity for an empty slice; NaN values are passed over (they come back
    /// through the sum of exponentials).
    pub(crate) fn max(values: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
            }
        }
        let mut most = f32::NEG_INFINITY;
        for &v in lanes.iter().chain(rest) {
            most = if v > most { v } else { most };
        }
        most
    }
}

vectorized! {
    /// Replaces each value by `exp(value - shift)` and returns the sum.
    pub(crate) fn exp_shifted_sum(values: &mut [f32], shift: f32) -> f32 {
        let mut lanes = [0.0; LANES];
        let (chunks, rest) = values.as_chunks_mut::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                let e = exp(chunk[i] - shift);
                chunk[i] = e;
                lanes[i] += e;
            }
        }
        let mut sum = sum_lanes(lanes);
        for v in rest {
            *v = exp(*v - shift);
            sum += *v;
        }
        sum
    }
}

vectorized! {
    /// Multiplies each value by `factor`.
    pub(crate) fn scale(values: &mut [f32], factor: f32) {
        for v in values {
            *v *= factor;
        }
    }
}

vectorized! {
    /// `dst_i += src_i`.
    pub(crate) fn add(dst: &mut [f32], src: &[f32]) {
        for (d, s) in dst.iter_mut().zip(src) {
            *d += s;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Reproducible values in -1..1.
    pub(crate) fn noise(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn exponential_is_within_two_ulp() {
        let mut worst = 0.0f64;
        for i in -86_000..88_000 {
            let x = i as f32 / 1000.0;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            worst = worst.max((got / want - 1.0).abs());
        }
        assert!(worst < 2.4e-7, "{worst}");
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-1e30) < 2e-38);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn reductions_match_plain_sums_at_every_length() {
        for len in [0, 1, 15, 16, 17, 64, 577] {
            let (a, b) = (noise(len, 1), noise(len, 2));
            let plain: f64 = a
                .iter()
                .zip(&b)
                .map(|(x, y)| f64::from(*x) * f64::from(*y))
                .sum();
            assert!((f64::from(dot(&a, &b)) - plain).abs() < 1e-5);
            let most = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max(&a), most);
            let mut e = a.clone();
            let sum = exp_shifted_sum(&mut e, 0.5);
            let plain: f64 = a.iter().map(|x| (f64::from(*x) - 0.5).exp()).sum();
            assert!((f64::from(sum) - plain).abs() < 1e-5 * (1.0 + plain));
        }
    }

    #[test]
    fn a_nan_reaches_the_sum() {
        let mut v = noise(40, 3);
        v[21] = f32::NAN;
        let most = max(&v);
        assert!(most.is_finite());
        assert!(exp_shifted_sum(&mut v, most).is_nan());
    }
}
