//! The calls of [`Collective`] over links between rank 0 and every other rank.
//!
//! Everything goes through rank 0, which alone decides the order of sums. While one link is waited for, the
//! others are looked at, so the end of any rank is seen at once and told to the rest.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Collective, gone, out_of_step, silent, stopped};
use crate::error::{Error, Result};

/// Longest wait before the other links are looked at.
pub(super) const SLICE: Duration = Duration::from_millis(100);
/// How long a farewell may take.
const FAREWELL_TAKES: Duration = Duration::from_secs(2);
/// Values summed at a time: neither side holds more than one such piece of the other's.
const CHUNK: usize = 1 << 18;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Hello = 1,
    Welcome,
    Gather,
    Broadcast,
    Sum,
    /// The sender stops; the rest says why.
    Farewell,
}

/// A way to one other rank, for whole frames.
pub(super) trait Link: Send {
    /// The kind of the next frame, if one has begun to come; waits at most [`SLICE`], or not at all.
    fn ready(&mut self, wait: bool) -> io::Result<Option<u8>>;
    /// The next frame.
    fn read(&mut self, limit: Instant) -> io::Result<(u8, Vec<u8>)>;
    fn write(&mut self, kind: Kind, data: &[u8], limit: Instant) -> io::Result<()>;
}

/// A rank and its links: rank 0 has one to each other rank, the others have one to rank 0.
pub(super) struct Star<L> {
    rank: usize,
    world: usize,
    patience: Duration,
    state: Mutex<State<L>>,
}

struct State<L> {
    links: Vec<L>,
    left: bool,
    /// Why nothing can go on: after a fault the links are no longer in step.
    broken: Option<(String, String)>,
}

impl<L: Link> Star<L> {
    pub(super) fn new(rank: usize, world: usize, patience: Duration, links: Vec<L>) -> Self {
        let expected = if rank == 0 { world - 1 } else { 1 };
        assert_eq!(links.len(), expected, "links of rank {rank}");
        let state = State {
            links,
            left: false,
            broken: None,
        };
        Self {
            rank,
            world,
            patience,
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<L>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rank at the other end of a link.
    fn other(&self, link: usize) -> usize {
        if self.rank == 0 { link + 1 } else { 0 }
    }

    /// Runs `work` unless an earlier call has failed.
    fn run<T>(&self, work: impl FnOnce(&mut State<L>) -> Result<T>) -> Result<T> {
        let mut state = self.state();
        if let Some((what, mend)) = &state.broken {
            return Err(Error::ranks(what, mend));
        }
        let result = work(&mut state);
        if let Err(error) = &result {
            let mend = error.mend().unwrap_or_default().into_owned();
            state.broken = Some((error.to_string(), mend));
        }
        result
    }

    fn receive(&self, state: &mut State<L>, link: usize, want: Kind) -> Result<Vec<u8>> {
        let limit = Instant::now() + self.patience;
        loop {
            let ready = state.links[link].ready(true);
            if ready.map_err(|e| gone(self.other(link), &e))?.is_some() {
                break;
            }
            self.look(state)?;
            if Instant::now() >= limit {
                return Err(silent(self.other(link), self.patience));
            }
        }
        let (kind, data) = self.read(state, link)?;
        if kind == want as u8 {
            Ok(data)
        } else {
            Err(out_of_step(self.other(link)))
        }
    }

    fn read(&self, state: &mut State<L>, link: usize) -> Result<(u8, Vec<u8>)> {
        let limit = Instant::now() + self.patience;
        let frame = state.links[link].read(limit);
        let (kind, data) = frame.map_err(|e| gone(self.other(link), &e))?;
        if kind == Kind::Farewell as u8 {
            return Err(stopped(self.other(link), &String::from_utf8_lossy(&data)));
        }
        Ok((kind, data))
    }

    /// Finds the ends and farewells that have come, without waiting.
    fn look(&self, state: &mut State<L>) -> Result<()> {
        for link in 0..state.links.len() {
            let ready = state.links[link].ready(false);
            let ready = ready.map_err(|e| gone(self.other(link), &e))?;
            if ready == Some(Kind::Farewell as u8) {
                self.read(state, link)?;
            }
        }
        Ok(())
    }

    fn send(&self, state: &mut State<L>, link: usize, kind: Kind, data: &[u8]) -> Result<()> {
        let limit = Instant::now() + self.patience;
        let sent = state.links[link].write(kind, data, limit);
        sent.map_err(|error| {
            // Why it went is more than that it went.
            let said = self.look(state).err();
            said.unwrap_or_else(|| gone(self.other(link), &error))
        })
    }

    fn send_all(&self, state: &mut State<L>, kind: Kind, data: &[u8]) -> Result<()> {
        (0..state.links.len()).try_for_each(|link| self.send(state, link, kind, data))
    }

    /// Rank 0: adds the others' pieces in their order and gives the sum to all.
    fn sum_here(&self, state: &mut State<L>, piece: &mut [f32]) -> Result<()> {
        for link in 0..state.links.len() {
            let data = self.receive(state, link, Kind::Sum)?;
            let values = self.values(link, &data, piece.len())?;
            for (sum, value) in piece.iter_mut().zip(values) {
                *sum += value;
            }
        }
        self.send_all(state, Kind::Sum, &bytes(piece))
    }

    fn sum_there(&self, state: &mut State<L>, piece: &mut [f32]) -> Result<()> {
        self.send(state, 0, Kind::Sum, &bytes(piece))?;
        let data = self.receive(state, 0, Kind::Sum)?;
        let sum = self.values(0, &data, piece.len())?;
        for (to, value) in piece.iter_mut().zip(sum) {
            *to = value;
        }
        Ok(())
    }

    fn values<'d>(
        &self,
        link: usize,
        data: &'d [u8],
        count: usize,
    ) -> Result<impl Iterator<Item = f32> + 'd> {
        let (values, rest) = data.as_chunks::<4>();
        if values.len() != count || !rest.is_empty() {
            return Err(out_of_step(self.other(link)));
        }
        Ok(values.iter().map(|v| f32::from_le_bytes(*v)))
    }
}

impl<L: Link> Collective for Star<L> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.run(|state| {
            if self.rank != 0 {
                self.send(state, 0, Kind::Gather, own)?;
                let data = self.receive(state, 0, Kind::Gather)?;
                return unpack(&data, self.world).ok_or_else(|| out_of_step(0));
            }
            let mut all = vec![own.to_vec()];
            for link in 0..state.links.len() {
                all.push(self.receive(state, link, Kind::Gather)?);
            }
            self.send_all(state, Kind::Gather, &pack(&all))?;
            Ok(all)
        })
    }

    fn broadcast(&self, own: Vec<u8>) -> Result<Vec<u8>> {
        self.run(|state| {
            if self.rank != 0 {
                return self.receive(state, 0, Kind::Broadcast);
            }
            self.send_all(state, Kind::Broadcast, &own)?;
            Ok(own)
        })
    }

    fn sum(&self, values: &mut [f32]) -> Result<()> {
        self.run(|state| {
            let mut pieces = values.chunks_mut(CHUNK);
            pieces.try_for_each(|piece| match self.rank {
                0 => self.sum_here(state, piece),
                _ => self.sum_there(state, piece),
            })
        })
    }

    fn check(&self) -> Result<()> {
        self.run(|state| self.look(state))
    }

    fn leave(&self, why: &Error) {
        let mut state = self.state();
        if std::mem::replace(&mut state.left, true) {
            return;
        }
        let limit = Instant::now() + FAREWELL_TAKES;
        let text = why.to_string();
        for link in &mut state.links {
            // Whoever is gone needs no word.
            let _gone = link.write(Kind::Farewell, text.as_bytes(), limit);
        }
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn pack(all: &[Vec<u8>]) -> Vec<u8> {
    let one = |part: &Vec<u8>| [&(part.len() as u64).to_le_bytes()[..], part].concat();
    all.iter().flat_map(one).collect()
}

fn unpack(mut data: &[u8], count: usize) -> Option<Vec<Vec<u8>>> {
    let mut all = Vec::with_capacity(count);
    while let Some((len, rest)) = data.split_first_chunk::<8>() {
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
        let (part, rest) = rest.split_at_checked(len)?;
        all.push(part.to_vec());
        data = rest;
    }
    (data.is_empty() && all.len() == count).then_some(all)
}
