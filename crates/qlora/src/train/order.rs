//! Which examples each step takes: every epoch its own seeded order, cut into batches.
//!
//! A batch is full at `batch` examples, or before the next one would bring it over `batch_tokens`. A function
//! of the step alone, so a resumed run meets the same batches.

use super::batch::{self, Example};
use super::config::TrainConfig;

/// The batches of a run.
pub(super) struct Order<'a> {
    examples: &'a [Example],
    config: &'a TrainConfig,
    /// First step of each epoch, and the step after the last.
    firsts: Vec<u64>,
}

impl<'a> Order<'a> {
    pub(super) fn new(examples: &'a [Example], config: &'a TrainConfig) -> Self {
        let mut order = Self {
            examples,
            config,
            firsts: vec![0],
        };
        for epoch in 0..config.epochs as u64 {
            let first = order.firsts[epoch as usize];
            order.firsts.push(first + order.count(epoch));
        }
        order
    }

    /// Steps of the whole run.
    pub(super) fn steps(&self) -> u64 {
        let all = self.firsts.last().copied().unwrap_or(0);
        self.config.max_steps.unwrap_or(u64::MAX).min(all)
    }

    /// Steps of the first epoch, whether or not the run goes that far.
    pub(super) fn steps_of_first_epoch(&self) -> u64 {
        self.firsts.get(1).copied().unwrap_or(0)
    }

    /// The examples of a step.
    pub(super) fn batch(&self, step: u64) -> Vec<usize> {
        let epoch = self.firsts.partition_point(|first| *first <= step) - 1;
        let order = self.shuffled(epoch as u64);
        let mut rest = order.as_slice();
        for _ in self.firsts[epoch]..step {
            rest = &rest[self.full(rest)..];
        }
        rest[..self.full(rest)].to_vec()
    }

    fn shuffled(&self, epoch: u64) -> Vec<usize> {
        batch::order(self.examples.len(), self.config.seed, epoch)
    }

    /// Batches of an epoch.
    fn count(&self, epoch: u64) -> u64 {
        if self.config.batch_tokens.is_none() {
            return self.examples.len().div_ceil(self.config.batch) as u64;
        }
        let order = self.shuffled(epoch);
        let (mut rest, mut count) = (order.as_slice(), 0);
        while !rest.is_empty() {
            rest = &rest[self.full(rest)..];
            count += 1;
        }
        count
    }

    /// How many of the next examples make a batch: at least one.
    fn full(&self, rest: &[usize]) -> usize {
        let most = rest.len().min(self.config.batch);
        let Some(limit) = self.config.batch_tokens else {
            return most;
        };
        let mut tokens = 0;
        let fits = rest[..most].iter().take_while(|example| {
            tokens += self.examples[**example].ids.len();
            tokens <= limit
        });
        fits.count().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(lens: &[usize]) -> Vec<Example> {
        let example = |len: &usize| Example {
            id: len.to_string(),
            ids: vec![0; *len],
            labels: vec![true; *len],
            weight: 1.0,
        };
        lens.iter().map(example).collect()
    }

    /// Both epochs' steps, checked to hold every example once an epoch.
    fn lens(examples: &[Example], config: &TrainConfig) -> Vec<Vec<usize>> {
        let order = Order::new(examples, config);
        let steps: Vec<Vec<usize>> = (0..order.steps()).map(|step| order.batch(step)).collect();
        let (first, second) = steps.split_at(order.steps_of_first_epoch() as usize);
        for epoch in [first, second] {
            let mut seen = epoch.concat();
            seen.sort_unstable();
            assert_eq!(seen, (0..examples.len()).collect::<Vec<_>>());
        }
        let len = |place: &usize| examples[*place].ids.len();
        steps
            .iter()
            .map(|batch| batch.iter().map(len).collect())
            .collect()
    }

    #[test]
    fn a_batch_is_full_by_rows_or_by_tokens() {
        let examples = examples(&[10, 20, 30, 40, 50, 60, 70, 200]);
        let config = TrainConfig {
            epochs: 2,
            batch: 3,
            batch_tokens: Some(100),
            ..TrainConfig::default()
        };
        let steps = lens(&examples, &config);
        for (at, batch) in steps.iter().enumerate() {
            let sum: usize = batch.iter().sum();
            assert!(sum <= 100 || batch.as_slice() == [200], "{batch:?}");
            assert!(batch.len() <= 3);
            // Nothing that still fits is put off, within an epoch.
            let per_epoch = Order::new(&examples, &config).steps_of_first_epoch() as usize;
            if let Some(next) = steps.get(at + 1).filter(|_| at + 1 != per_epoch) {
                assert!(
                    batch.len() == 3 || sum + next[0] > 100,
                    "{batch:?} {next:?}"
                );
            }
        }
        let by_rows = TrainConfig {
            batch_tokens: None,
            ..config
        };
        let sizes: Vec<usize> = lens(&examples, &by_rows).iter().map(Vec::len).collect();
        assert_eq!(sizes, [3, 3, 2, 3, 3, 2]);
    }
}
