//! A LoRA pair added into its base weight: the reference that an unmerged forward is compared to.

use rayon::prelude::*;

use super::LoraPair;
use crate::error::{Error, Result};
use crate::tensor::Matrix;

/// `weight += scale * b . a`, sums in f64. Shapes: weight `[out, in]`, a `[r, in]`, b `[out, r]`.
pub fn merge(weight: &mut Matrix, pair: &LoraPair, scale: f32) -> Result<()> {
    let (out, width) = (weight.rows(), weight.cols());
    if pair.b.rows() != out || pair.a.cols() != width || pair.a.rows() != pair.b.cols() {
        let found = format!(
            "[{}, {}] x [{}, {}]",
            pair.b.rows(),
            pair.b.cols(),
            pair.a.rows(),
            pair.a.cols()
        );
        return Err(Error::shape(
            "a LoRA pair",
            format!("[{out}, r] x [r, {width}]"),
            found,
        ));
    }
    weight
        .data_mut()
        .par_chunks_mut(width.max(1))
        .enumerate()
        .for_each(|(row, values)| {
            let mut sums = vec![0.0_f64; width];
            for (at, &factor) in pair.b.row(row).iter().enumerate() {
                for (sum, &value) in sums.iter_mut().zip(pair.a.row(at)) {
                    *sum += f64::from(factor) * f64::from(value);
                }
            }
            for (value, sum) in values.iter_mut().zip(sums) {
                *value += (f64::from(scale) * sum) as f32;
            }
        });
    Ok(())
}
