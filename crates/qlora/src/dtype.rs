//! The float formats that model files use, and their exact way to f32 and back.
//!
//! Rounding is to nearest, ties to even, as torch does. It must not know of file layouts.

use half::{bf16, f16};
use rayon::prelude::*;

/// Values that one thread decodes at a time.
const AT_ONCE: usize = 1 << 16;

/// A float format of stored or computed values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32-bit IEEE float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// 16-bit brain float.
    Bf16,
}

impl Dtype {
    /// The name used in `config.json` and by bitsandbytes (`bfloat16`), `torch.` prefix allowed.
    pub fn from_torch(name: &str) -> Option<Self> {
        match name.strip_prefix("torch.").unwrap_or(name) {
            "float32" => Some(Self::F32),
            "float16" => Some(Self::F16),
            "bfloat16" => Some(Self::Bf16),
            _ => None,
        }
    }

    /// The name torch gives it.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The nearest value that this format can hold, as f32.
    #[inline]
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::F16 => f16::from_f32(value).to_f32(),
            Self::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }

    /// Little-endian bytes to f32 values; a rest shorter than one value is left out.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let size = self.size();
        let mut values = vec![0.0; bytes.len() / size];
        values
            .par_chunks_mut(AT_ONCE)
            .zip(bytes.par_chunks(AT_ONCE * size))
            .for_each(|(values, bytes)| self.decode_into(bytes, values));
        values
    }

    fn decode_into(self, bytes: &[u8], values: &mut [f32]) {
        match self {
            Self::F32 => {
                for (value, b) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*b);
                }
            }
            Self::F16 => {
                for (value, b) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = f16::from_le_bytes(*b).to_f32();
                }
            }
            Self::Bf16 => {
                for (value, b) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = bf16::from_le_bytes(*b).to_f32();
                }
            }
        }
    }

    /// f32 values to little-endian bytes, rounded to nearest even.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F16 => values
                .iter()
                .flat_map(|v| f16::from_f32(*v).to_le_bytes())
                .collect(),
            Self::Bf16 => values
                .iter()
                .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
                .collect(),
        }
    }
}

impl From<Dtype> for safetensors::Dtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::BF16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Dtype;

    #[test]
    fn ties_round_to_even_as_in_torch() {
        // 1 + 2^-8 lies between two bf16 values; the even one is 1.0.
        assert_eq!(Dtype::Bf16.round(1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(Dtype::Bf16.round(1.0 + 3.0 / 256.0), 1.0 + 4.0 / 256.0);
        assert_eq!(Dtype::F16.round(65519.0), 65504.0);
    }

    #[test]
    fn bytes_go_there_and_back() {
        let values = [0.0, -1.5, 3.25, 0.0625];
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            assert_eq!(dtype.decode(&dtype.encode(&values)), values);
            assert_eq!(Dtype::from_torch(dtype.torch_name()), Some(dtype));
        }
    }
}
