//! Ranks that are threads of one process, for tests and small experiments.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use super::Collective;
use super::star::{Kind, Link, SLICE, Star};

/// `world` ranks, to be moved to as many threads. One that waits longer than `patience` fails.
pub fn local(world: usize, patience: Duration) -> Vec<Box<dyn Collective>> {
    assert!(world > 0, "at least one rank");
    let mut first = Vec::new();
    let mut others: Vec<Box<dyn Collective>> = Vec::new();
    for rank in 1..world {
        let (here, there) = pair();
        first.push(here);
        others.push(Box::new(Star::new(rank, world, patience, vec![there])));
    }
    let mut all: Vec<Box<dyn Collective>> = vec![Box::new(Star::new(0, world, patience, first))];
    all.append(&mut others);
    all
}

type Frame = (u8, Vec<u8>);

struct Channel {
    out: Sender<Frame>,
    from: Receiver<Frame>,
    /// Looked at and not yet read.
    next: Option<Frame>,
}

fn pair() -> (Channel, Channel) {
    let ((out, there), (back, from)) = (channel(), channel());
    let end = |out, from| Channel {
        out,
        from,
        next: None,
    };
    (end(out, from), end(back, there))
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "its thread has ended")
}

impl Link for Channel {
    fn ready(&mut self, wait: bool) -> io::Result<Option<u8>> {
        if self.next.is_none() {
            self.next = if wait {
                match self.from.recv_timeout(SLICE) {
                    Ok(frame) => Some(frame),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return Err(closed()),
                }
            } else {
                match self.from.try_recv() {
                    Ok(frame) => Some(frame),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => return Err(closed()),
                }
            };
        }
        Ok(self.next.as_ref().map(|(kind, _)| *kind))
    }

    fn read(&mut self, limit: Instant) -> io::Result<Frame> {
        while self.ready(true)?.is_none() {
            if Instant::now() >= limit {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(self.next.take().expect("it is ready"))
    }

    fn write(&mut self, kind: Kind, data: &[u8], _: Instant) -> io::Result<()> {
        let sent = self.out.send((kind as u8, data.to_vec()));
        sent.map_err(|_| closed())
    }
}
