//! What a training run is given, and the number that tells it from every other run.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use super::batch::Example;
use super::checkpoint::{Fingerprint, VERSION};
use super::config::TrainConfig;
use super::engine::Engine;
use super::order::Order;
use crate::error::{Error, Result};
use crate::nn::adapter::Adapter;
use crate::ranks::Collective;

static NEVER: AtomicBool = AtomicBool::new(false);

/// What a run learns from and how, where it keeps its place, and who may stop it.
#[derive(Clone, Copy)]
pub struct TrainJob<'a> {
    pub train: &'a [Example],
    /// Held-out examples; there may be none.
    pub val: &'a [Example],
    pub config: &'a TrainConfig,
    /// The folder of the checkpoint; without one, a run that is stopped is lost.
    pub checkpoints: Option<&'a Path>,
    /// Once set, the run ends with [`Error::Cancelled`].
    pub cancel: &'a AtomicBool,
    /// The processes that train together, each with this job; none: this one alone.
    pub ranks: Option<&'a dyn Collective>,
}

impl<'a> TrainJob<'a> {
    /// Nothing held out, no checkpoint, not to be stopped.
    pub fn new(train: &'a [Example], config: &'a TrainConfig) -> Self {
        Self {
            train,
            val: &[],
            config,
            checkpoints: None,
            cancel: &NEVER,
            ranks: None,
        }
    }

    /// Steps of the first epoch, if the run gets that far.
    pub fn steps_of_first_epoch(&self) -> u64 {
        self.order().steps_of_first_epoch()
    }

    /// What each step takes, as places in `train`: the run's batches, first to last.
    pub fn batches(&self) -> impl Iterator<Item = Vec<usize>> + use<'a> {
        let order = self.order();
        (0..order.steps()).map(move |step| order.batch(step))
    }

    pub(super) fn order(&self) -> Order<'a> {
        Order::new(self.train, self.config)
    }

    /// Refuses settings and examples that cannot hold.
    pub(super) fn check(&self, vocab: usize) -> Result<()> {
        self.config.check()?;
        let mut examples = self.train.iter().chain(self.val);
        examples.try_for_each(|e| e.check(vocab))?;
        if self.train.is_empty() {
            return Err(Error::Config {
                what: "there are no training examples".to_owned(),
                mend: "give at least one".to_owned(),
            });
        }
        Ok(())
    }

    /// Ids of the longest example.
    pub(super) fn longest(&self) -> usize {
        let lens = self.train.iter().chain(self.val).map(|e| e.ids.len());
        lens.max().unwrap_or(0)
    }

    /// All that changes the bits of a run, the build and the device included (`made_by`). How often it saves,
    /// validates for show, or holds rows is not in it unless it changes the result.
    pub(super) fn fingerprint(&self, engine: &dyn Engine, made_by: &str, adapter: &Adapter) -> u64 {
        let mut print = Fingerprint::new();
        let settings = TrainConfig {
            save_every: None,
            samples: None,
            ..self.config.clone()
        };
        print.add(format!("{settings:?} {:?} {:?}", adapter.config(), engine.config()).as_bytes());
        print.add(made_by.as_bytes());
        print.add(&VERSION.to_le_bytes());
        for values in [engine.print(), adapter.values()] {
            print_values(values, &mut print);
        }
        for (part, examples) in [("train", self.train), ("val", self.val)] {
            print.add(part.as_bytes());
            for example in examples {
                example.print(&mut print);
            }
        }
        print.finish()
    }
}

/// The build and the device of a run: `0.1.0, engine 1, on a CPU (x86_64)`. `numerics` are the engine's, or
/// those of all ranks.
pub(super) fn made_by(numerics: &str) -> String {
    let (program, version) = (env!("CARGO_PKG_VERSION"), crate::ENGINE_VERSION);
    format!("{program}, engine {version}, on {numerics}")
}

/// Many values, side by side: an adapter of a large model takes a second one by one.
pub(super) fn print_values(values: &[f32], print: &mut Fingerprint) {
    let parts: Vec<u64> = values
        .par_chunks(1 << 14)
        .map(|values| {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let mut part = Fingerprint::new();
            part.add(&bytes);
            part.finish()
        })
        .collect();
    for part in parts {
        print.add(&part.to_le_bytes());
    }
}

impl Example {
    fn print(&self, print: &mut Fingerprint) {
        print.add(self.id.as_bytes());
        let ids: Vec<u8> = self.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        print.add(&ids);
        let labels: Vec<u8> = self.labels.iter().map(|l| u8::from(*l)).collect();
        print.add(&labels);
        print.add(&self.weight.to_le_bytes());
    }
}
