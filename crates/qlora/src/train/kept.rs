//! The adapters of the best validations, best first. Of two equal ones the earlier is the better.

use super::checkpoint::Progress;
use super::config::TrainConfig;
use super::event::{Kept, Validation};
use crate::nn::adapter::Adapter;

/// How many are kept: those that are asked for, and the one to be returned.
fn most(config: &TrainConfig) -> usize {
    config.keep.max(usize::from(config.keep_best))
}

/// The place of a new validation among the kept ones, if it has one.
pub(super) fn place(kept: &[Validation], new: &Validation, config: &TrainConfig) -> Option<usize> {
    let place = kept.iter().position(|old| new.loss < old.loss);
    let place = place.unwrap_or(kept.len());
    (place < most(config)).then_some(place)
}

/// Puts it there; the worst goes where there are too many.
pub(super) fn put(
    progress: &mut Progress,
    place: usize,
    new: &Validation,
    adapter: &Adapter,
    config: &TrainConfig,
) {
    progress.state.kept.insert(place, new.clone());
    progress.kept.insert(place, adapter.values().to_vec());
    progress.state.kept.truncate(most(config));
    progress.kept.truncate(most(config));
}

/// Validations with their adapters.
pub(super) fn pairs(validations: &[Validation], adapters: Vec<Vec<f32>>) -> Vec<Kept> {
    let pairs = validations.iter().cloned().zip(adapters);
    pairs
        .map(|(validation, values)| Kept { validation, values })
        .collect()
}
