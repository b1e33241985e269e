//! Cross entropy of logits against target ids, with its gradient written over the logits.
//!
//! Per row: `loss = logsumexp(z) - z[target]`, `dz = weight * (softmax(z) - onehot(target))`. Weights and sums
//! over rows are the caller's, in f64. A NaN or infinity in a row gives that row a loss that is not finite.

use super::simd::{exp_shifted_sum, max, scale};
use crate::tensor::Matrix;
use rayon::prelude::*;

/// Gives each row's loss; replaces the logits by the gradient of the row's loss times its weight.
pub(crate) fn forward_backward(logits: &mut Matrix, targets: &[u32], weights: &[f32]) -> Vec<f64> {
    assert_eq!(targets.len(), weights.len(), "one weight per target");
    run(logits, targets, |row, at, target, sum| {
        scale(row, weights[at] / sum);
        row[target] -= weights[at];
    })
}

/// Gives each row's loss. The logits are spoiled.
pub(crate) fn forward(logits: &mut Matrix, targets: &[u32]) -> Vec<f64> {
    run(logits, targets, |_, _, _, _| {})
}

fn run(
    logits: &mut Matrix,
    targets: &[u32],
    finish: impl Fn(&mut [f32], usize, usize, f32) + Sync,
) -> Vec<f64> {
    assert_eq!(logits.rows(), targets.len(), "one target per row of logits");
    let width = logits.cols();
    logits
        .data_mut()
        .par_chunks_mut(width)
        .zip(targets.par_iter())
        .enumerate()
        .map(|(at, (row, target))| {
            let target = *target as usize;
            let picked = row[target];
            let most = max(row);
            let sum = exp_shifted_sum(row, most);
            finish(row, at, target, sum);
            f64::from(most) + f64::from(sum).ln() - f64::from(picked)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::simd::tests::noise;

    fn loss(z: &[f64], target: usize) -> f64 {
        z.iter().map(|v| v.exp()).sum::<f64>().ln() - z[target]
    }

    #[test]
    fn loss_and_gradient_match_finite_differences() {
        let (rows, width) = (3, 50);
        let mut logits = Matrix::new(
            rows,
            width,
            noise(rows * width, 1).iter().map(|v| v * 4.0).collect(),
        );
        let before = logits.clone();
        let targets = [4, 0, 49];
        let weights = [0.25, 0.5, 0.125];
        let losses = forward_backward(&mut logits, &targets, &weights);
        assert_eq!(losses, forward(&mut before.clone(), &targets));
        for t in 0..rows {
            let mut z: Vec<f64> = before.row(t).iter().map(|v| f64::from(*v)).collect();
            let target = targets[t] as usize;
            assert!((losses[t] - loss(&z, target)).abs() < 1e-6);
            for i in 0..width {
                z[i] += 1e-5;
                let up = loss(&z, target);
                z[i] -= 2e-5;
                let want = f64::from(weights[t]) * (up - loss(&z, target)) / 2e-5;
                z[i] += 1e-5;
                assert!((f64::from(logits.row(t)[i]) - want).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn a_nan_spoils_its_own_row_only() {
        let mut logits = Matrix::new(2, 20, noise(40, 2));
        logits.row_mut(1)[7] = f32::NAN;
        let losses = forward(&mut logits, &[3, 3]);
        assert!(losses[0].is_finite() && !losses[1].is_finite());
    }
}
