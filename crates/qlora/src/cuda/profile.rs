//! Where a step's time goes: each op waited for and timed. It slows the step down and changes no bit.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::device::Device;
use crate::error::Result;

/// Milliseconds and calls by op.
#[derive(Default)]
pub(super) struct Profile(RefCell<Option<BTreeMap<String, (f64, usize)>>>);

impl Profile {
    pub(super) fn start(&self) {
        *self.0.borrow_mut() = Some(BTreeMap::new());
    }

    pub(super) fn active(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// What was timed since the start, slowest first.
    pub(super) fn stop(&self) -> Vec<(String, f64, usize)> {
        let mut found: Vec<_> = self
            .0
            .borrow_mut()
            .take()
            .into_iter()
            .flatten()
            .map(|(name, (ms, calls))| (name, ms, calls))
            .collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1));
        found
    }

    /// Runs `work`; times it if somebody asked.
    pub(super) fn timed(
        &self,
        device: &Device,
        name: impl FnOnce() -> String,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if self.0.borrow().is_none() {
            return work();
        }
        let (from, to) = (device.event()?, device.event()?);
        device.record(from, false)?;
        work()?;
        device.record(to, false)?;
        let ms = f64::from(device.elapsed(from, to)?);
        device.forget(from);
        device.forget(to);
        if let Some(times) = self.0.borrow_mut().as_mut() {
            let entry = times.entry(name()).or_default();
            entry.0 += ms;
            entry.1 += 1;
        }
        Ok(())
    }
}
