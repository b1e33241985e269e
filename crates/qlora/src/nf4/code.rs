//! The sixteen NF4 values and the nearest code to a scaled weight.

/// The NF4 code book (bitsandbytes `get_4bit_type("nf4")`), ascending; index 7 is zero.
pub const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Where one code ends and the next begins: `bucketize` over midpoints.
pub(crate) fn bounds() -> [f32; 15] {
    std::array::from_fn(|i| f32::midpoint(NF4[i], NF4[i + 1]))
}

/// A ready encoder for values already divided by their block's absmax, that is in [-1, 1].
pub(super) struct Encoder {
    bounds: [f32; 15],
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { bounds: bounds() }
    }

    /// The number of midpoints strictly below `scaled`: the code of the nearest NF4 value.
    #[inline]
    pub(super) fn nearest(&self, scaled: f32) -> u8 {
        self.bounds
            .iter()
            .map(|&bound| u8::from(scaled > bound))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{Encoder, NF4};

    #[test]
    fn the_table_is_bitsandbytes_own() {
        // The digits that bitsandbytes prints, read as f64 and rounded.
        let printed = [
            -1.0,
            -0.6961928009986877,
            -0.5250730514526367,
            -0.39491748809814453,
            -0.28444138169288635,
            -0.18477343022823334,
            -0.09105003625154495,
            0.0,
            0.07958029955625534,
            0.16093020141124725,
            0.24611230194568634,
            0.33791524171829224,
            0.44070982933044434,
            0.5626170039176941,
            0.7229568362236023,
            1.0_f64,
        ];
        for (ours, theirs) in NF4.iter().zip(printed) {
            assert_eq!(ours.to_bits(), (theirs as f32).to_bits());
        }
    }

    #[test]
    fn every_value_is_its_own_nearest() {
        let encoder = Encoder::new();
        for (code, value) in NF4.iter().enumerate() {
            assert_eq!(usize::from(encoder.nearest(*value)), code);
        }
    }
}
