//! Slots: how many stages of a kind may run at once.
//!
//! Promises: a stage that asks for more slots than its pool has gets the whole pool, so
//! nothing waits for ever; within a pool the most urgent stage starts first, and a wide one
//! is not overtaken for ever by narrow ones.

use std::collections::{BTreeMap, BinaryHeap};

use stages::Pool;

use crate::config::Resources;

/// Slots for waiting on the network.
const NET: usize = 8;

/// One stage in the queue of its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// How long everything takes that hangs on it; longest first.
    urgency: u64,
    /// File order among equals.
    order: std::cmp::Reverse<usize>,
    slots: usize,
}

#[derive(Debug, Default)]
struct Slots {
    size: usize,
    free: usize,
    queue: BinaryHeap<Place>,
}

/// All pools with their queues.
#[derive(Debug)]
pub(crate) struct Pools {
    pools: BTreeMap<Pool, Slots>,
}

impl Pools {
    /// `declared` sizes win over the machine's; `cores` is the size of the cpu pool.
    pub(crate) fn new(declared: &BTreeMap<Pool, usize>, cores: usize) -> Self {
        let own = [(Pool::Cpu, cores), (Pool::Gpu, 1), (Pool::Net, NET)];
        let pools = own
            .into_iter()
            .map(|(pool, size)| {
                let size = declared.get(&pool).copied().unwrap_or(size).max(1);
                let slots = Slots {
                    size,
                    free: size,
                    queue: BinaryHeap::new(),
                };
                (pool, slots)
            })
            .collect();
        Self { pools }
    }

    fn of(&mut self, pool: Pool) -> &mut Slots {
        self.pools
            .get_mut(&pool)
            .expect("every pool is made in `new`")
    }

    /// Queues a stage.
    pub(crate) fn queue(&mut self, stage: usize, wanted: Resources, urgency: u64) {
        let pool = self.of(wanted.pool);
        let slots = wanted.slots.clamp(1, pool.size);
        pool.queue.push(Place {
            urgency,
            order: std::cmp::Reverse(stage),
            slots,
        });
    }

    /// The next stage that can start; its slots are taken.
    pub(crate) fn next(&mut self) -> Option<usize> {
        for slots in self.pools.values_mut() {
            if let Some(first) = slots.queue.peek()
                && first.slots <= slots.free
            {
                slots.free -= first.slots;
                return slots.queue.pop().map(|place| place.order.0);
            }
        }
        None
    }

    /// Gives a stage's slots back.
    pub(crate) fn give_back(&mut self, wanted: Resources) {
        let pool = self.of(wanted.pool);
        pool.free += wanted.slots.clamp(1, pool.size);
    }

    /// Drops everything queued, in the order of the file.
    pub(crate) fn clear(&mut self) -> Vec<usize> {
        let mut dropped: Vec<_> = self
            .pools
            .values_mut()
            .flat_map(|slots| slots.queue.drain())
            .map(|place| place.order.0)
            .collect();
        dropped.sort_unstable();
        dropped
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use stages::Pool;

    use super::Pools;
    use crate::config::Resources;

    fn want(pool: Pool, slots: usize) -> Resources {
        Resources { pool, slots }
    }

    #[test]
    fn the_most_urgent_first_as_far_as_slots_go() {
        let mut pools = Pools::new(&BTreeMap::new(), 2);
        for (stage, urgency) in [(0, 5), (1, 9), (2, 5)] {
            pools.queue(stage, want(Pool::Cpu, 1), urgency);
        }
        pools.queue(3, want(Pool::Gpu, 1), 1);
        let mut started: Vec<_> = std::iter::from_fn(|| pools.next()).collect();
        started.sort_unstable();
        assert_eq!(started, [0, 1, 3]);
        pools.give_back(want(Pool::Cpu, 1));
        assert_eq!(pools.next(), Some(2));
    }

    #[test]
    fn a_stage_wider_than_its_pool_gets_all_of_it() {
        let mut pools = Pools::new(&BTreeMap::new(), 2);
        pools.queue(0, want(Pool::Cpu, 64), 1);
        pools.queue(1, want(Pool::Cpu, 1), 0);
        assert_eq!(pools.next(), Some(0));
        assert_eq!(pools.next(), None);
        pools.give_back(want(Pool::Cpu, 64));
        assert_eq!(pools.next(), Some(1));
    }
}
