//! Who runs next: slots, memory and devices, and the queue for them.
//!
//! Promises: the most urgent stage starts first, and in a pool that it lacks nobody overtakes
//! it, so a wide stage is not kept waiting for ever by narrow ones; a stage gets all that it
//! claims or nothing; a GPU is given to one stage at a time. A claim on `cpu` larger than the
//! pool takes the whole pool (its threads are only slower then).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::machine::Machine;
use crate::config::Resources;

/// One stage in the queue; the greatest is the most urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// How long everything takes that hangs on it; longest first.
    urgency: u64,
    /// File order among equals.
    order: Reverse<usize>,
}

#[derive(Debug, Default)]
struct Slots {
    size: u64,
    free: u64,
}

/// What a running stage holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Pool -> slots, or bytes.
    pub(crate) claims: BTreeMap<String, u64>,
    /// GPU ids.
    pub(crate) devices: Vec<String>,
}

/// All pools with their queue. Nothing starts before [`Pools::open`].
#[derive(Debug, Default)]
pub(crate) struct Pools {
    slots: BTreeMap<String, Slots>,
    /// Free GPUs by their place in the machine's list.
    devices: BTreeMap<usize, String>,
    /// Every GPU with its place.
    places: BTreeMap<String, usize>,
    /// Stages by what they want: one look at each kind of claim finds the next.
    queues: BTreeMap<Resources, BTreeSet<Place>>,
}

impl Pools {
    /// Opens the pools that the machine has.
    pub(crate) fn open(&mut self, machine: Machine) {
        self.slots = machine
            .sizes
            .into_iter()
            .map(|(pool, size)| (pool, Slots { size, free: size }))
            .collect();
        let devices = machine.devices.into_iter().enumerate();
        self.devices = devices.collect();
        let places = self.devices.iter();
        self.places = places.map(|(at, id)| (id.clone(), *at)).collect();
    }

    /// How many slots a pool has in all.
    pub(crate) fn size(&self, pool: &str) -> u64 {
        self.slots.get(pool).map_or(0, |slots| slots.size)
    }

    /// Queues a stage.
    pub(crate) fn queue(&mut self, stage: usize, wanted: &Resources, urgency: u64) {
        let place = Place {
            urgency,
            order: Reverse(stage),
        };
        match self.queues.get_mut(wanted) {
            Some(queue) => queue.insert(place),
            None => self.queues.entry(wanted.clone()).or_default().insert(place),
        };
    }

    /// The next stage that can start; what it holds is taken.
    pub(crate) fn next(&mut self) -> Option<(usize, Held)> {
        let mut heads: Vec<(Place, &Resources)> = Vec::new();
        for (wanted, queue) in &self.queues {
            heads.extend(queue.last().map(|place| (*place, wanted)));
        }
        heads.sort_unstable_by(|a, b| b.cmp(a));
        let mut blocked: BTreeSet<&str> = BTreeSet::new();
        let mut found = None;
        for (place, wanted) in heads {
            let pools = || wanted.claims.iter().map(|(pool, _)| pool.as_str());
            let lacking: Vec<&str> = wanted
                .claims
                .iter()
                .filter(|(pool, claim)| self.lacks(pool, *claim))
                .map(|(pool, _)| pool.as_str())
                .collect();
            if lacking.is_empty() && !pools().any(|pool| blocked.contains(pool)) {
                found = Some((place, wanted.clone()));
                break;
            }
            blocked.extend(lacking);
        }
        let (place, wanted) = found?;
        let queue = self.queues.get_mut(&wanted).expect("it has a head");
        queue.remove(&place);
        if queue.is_empty() {
            self.queues.remove(&wanted);
        }
        Some((place.order.0, self.take(&wanted)))
    }

    fn lacks(&self, pool: &str, claim: u64) -> bool {
        self.slots
            .get(pool)
            .is_none_or(|slots| clamped(pool, claim, slots.size) > slots.free)
    }

    fn take(&mut self, wanted: &Resources) -> Held {
        let mut held = Held::default();
        for (pool, claim) in &wanted.claims {
            let slots = self.slots.get_mut(pool).expect("nothing is lacking");
            let claim = clamped(pool, *claim, slots.size);
            slots.free -= claim;
            held.claims.insert(pool.clone(), claim);
            if pool == "gpu" {
                let given = (0..claim).filter_map(|_| self.devices.pop_first());
                held.devices = given.map(|(_, id)| id).collect();
            }
        }
        held
    }

    /// Gives back what a stage held.
    pub(crate) fn give_back(&mut self, held: Held) {
        for (pool, claim) in held.claims {
            if let Some(slots) = self.slots.get_mut(&pool) {
                slots.free += claim;
            }
        }
        for id in held.devices {
            if let Some(place) = self.places.get(&id) {
                self.devices.insert(*place, id);
            }
        }
    }

    /// Drops a stage from the queue; whether it was there.
    pub(crate) fn remove(&mut self, stage: usize, wanted: &Resources, urgency: u64) -> bool {
        let place = Place {
            urgency,
            order: Reverse(stage),
        };
        let Some(queue) = self.queues.get_mut(wanted) else {
            return false;
        };
        let there = queue.remove(&place);
        if queue.is_empty() {
            self.queues.remove(wanted);
        }
        there
    }

    /// Drops everything queued, in the order of the file.
    pub(crate) fn clear(&mut self) -> Vec<usize> {
        let mut dropped: Vec<_> = std::mem::take(&mut self.queues)
            .into_values()
            .flatten()
            .map(|place| place.order.0)
            .collect();
        dropped.sort_unstable();
        dropped
    }
}

/// What a claim takes of a pool of `size`.
fn clamped(pool: &str, claim: u64, size: u64) -> u64 {
    if pool == "cpu" {
        claim.min(size)
    } else {
        claim
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Held, Machine, Pools};
    use crate::config::Resources;

    fn want(claims: &[(&str, u64)]) -> Resources {
        let claims = claims.iter().map(|(pool, n)| ((*pool).to_owned(), *n));
        Resources {
            claims: claims.collect(),
        }
    }

    fn pools(sizes: &[(&str, u64)]) -> Pools {
        let mut pools = Pools::default();
        let sizes: BTreeMap<String, u64> = sizes.iter().map(|(p, n)| ((*p).into(), *n)).collect();
        let gpus = sizes.get("gpu").copied().unwrap_or(0);
        pools.open(Machine {
            sizes,
            devices: (0..gpus).map(|id| format!("GPU-{id}")).collect(),
        });
        pools
    }

    fn started(pools: &mut Pools) -> Vec<usize> {
        std::iter::from_fn(|| pools.next().map(|(stage, _)| stage)).collect()
    }

    fn holds(claims: &[(&str, u64)]) -> Held {
        Held {
            claims: want(claims).claims.into_iter().collect(),
            devices: Vec::new(),
        }
    }

    #[test]
    fn the_most_urgent_first_as_far_as_slots_go() {
        let mut pools = pools(&[("cpu", 2), ("net", 1)]);
        for (stage, urgency) in [(0, 5), (1, 9), (2, 5)] {
            pools.queue(stage, &want(&[("cpu", 1)]), urgency);
        }
        pools.queue(3, &want(&[("net", 1)]), 1);
        assert_eq!(started(&mut pools), [1, 0, 3]);
        pools.give_back(holds(&[("cpu", 1)]));
        assert_eq!(started(&mut pools), [2]);
    }

    #[test]
    fn a_wide_stage_is_not_overtaken_in_the_pool_it_lacks() {
        let mut pools = pools(&[("cpu", 4), ("net", 1)]);
        pools.queue(0, &want(&[("cpu", 3)]), 9);
        pools.queue(1, &want(&[("cpu", 3)]), 8);
        pools.queue(2, &want(&[("cpu", 1)]), 7);
        pools.queue(3, &want(&[("net", 1)]), 1);
        assert_eq!(started(&mut pools), [0, 3]);
        pools.give_back(holds(&[("cpu", 3)]));
        assert_eq!(started(&mut pools), [1, 2]);
    }

    #[test]
    fn a_stage_wider_than_the_cores_gets_all_of_them() {
        let mut pools = pools(&[("cpu", 2)]);
        pools.queue(0, &want(&[("cpu", u64::MAX)]), 1);
        pools.queue(1, &want(&[("cpu", 1)]), 0);
        let (stage, held) = pools.next().expect("it fits");
        assert_eq!((stage, held.claims["cpu"]), (0, 2));
        assert_eq!(pools.next(), None);
        pools.give_back(held);
        assert_eq!(started(&mut pools), [1]);
    }

    #[test]
    fn a_device_belongs_to_one_stage_at_a_time() {
        let mut pools = pools(&[("gpu", 3), ("memory", 100)]);
        let two = want(&[("gpu", 2), ("memory", 60)]);
        pools.queue(0, &two, 3);
        pools.queue(1, &want(&[("gpu", 1)]), 2);
        pools.queue(2, &two, 1);
        let (_, first) = pools.next().expect("two are free");
        assert_eq!(first.devices, ["GPU-0", "GPU-1"]);
        let (stage, second) = pools.next().expect("one is free");
        assert_eq!((stage, &*second.devices), (1, &["GPU-2".to_owned()][..]));
        pools.give_back(second);
        // A device is free, but neither two of them nor the memory.
        assert_eq!(pools.next(), None);
        pools.give_back(first);
        let (_, third) = pools.next().expect("all is free");
        assert_eq!(third.devices, ["GPU-0", "GPU-1"]);
    }

    #[test]
    fn what_is_dropped_starts_nowhere() {
        let mut pools = pools(&[("cpu", 1)]);
        let one = want(&[("cpu", 1)]);
        for stage in 0..4 {
            pools.queue(stage, &one, 1);
        }
        assert!(pools.remove(0, &one, 1));
        assert!(!pools.remove(0, &one, 1));
        assert_eq!(pools.next().expect("a slot").0, 1);
        assert_eq!(pools.clear(), [2, 3]);
        assert_eq!(pools.next(), None);
    }
}
