//! The signed 8-bit dynamic map that double quantization codes scales with (arXiv 1511.04561).
//!
//! Bit-equal to bitsandbytes' `create_dynamic_map(signed=True)`, torch's `linspace` included.

/// All 256 values, ascending; index 127 is zero, index 255 is one.
pub(super) fn dynamic_map() -> [f32; 256] {
    let mut values = Vec::with_capacity(256);
    for exponent in 0..7_i32 {
        let boundaries = linspace(0.1, 1.0, (1 << exponent) + 1);
        let scale = 10.0_f64.powi(exponent - 6) as f32;
        for pair in boundaries.windows(2) {
            let mean = f32::midpoint(pair[0], pair[1]);
            values.push(scale * mean);
            values.push(-scale * mean);
        }
    }
    values.extend([0.0, 1.0]);
    values.sort_by(f32::total_cmp);
    values
        .try_into()
        .expect("254 means, zero and one are 256 values")
}

/// torch's f32 `linspace`: fused multiply-add, counted from the nearer end.
fn linspace(start: f32, end: f32, steps: usize) -> Vec<f32> {
    let step = (end - start) / (steps - 1) as f32;
    (0..steps)
        .map(|i| {
            if i < steps / 2 {
                step.mul_add(i as f32, start)
            } else {
                (-step).mul_add((steps - 1 - i) as f32, end)
            }
        })
        .collect()
}

/// A ready encoder onto a 256-value ascending map.
pub(super) struct Encoder {
    bounds: [f32; 255],
}

impl Encoder {
    pub(super) fn new(map: &[f32; 256]) -> Self {
        Self {
            bounds: std::array::from_fn(|i| f32::midpoint(map[i], map[i + 1])),
        }
    }

    /// The code of the value nearest to `scaled`.
    #[inline]
    pub(super) fn nearest(&self, scaled: f32) -> u8 {
        self.bounds.partition_point(|&bound| scaled > bound) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::{Encoder, dynamic_map};

    #[test]
    fn every_value_is_its_own_nearest() {
        let map = dynamic_map();
        let encoder = Encoder::new(&map);
        assert_eq!(map[127], 0.0);
        assert_eq!(map[255], 1.0);
        for (code, value) in map.iter().enumerate() {
            assert_eq!(usize::from(encoder.nearest(*value)), code);
        }
    }
}
