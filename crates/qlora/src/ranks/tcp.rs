//! Ranks that are processes, of one host or of several, over TCP: rank 0 listens, the others come.
//!
//! Whoever comes names the run's token first; one without it is sent away and nothing else is read from it.
//! The token keeps strangers out, not eyes: bytes are not encrypted, so an address that others can reach
//! belongs into a network that is trusted.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::star::{Kind, Link, SLICE, Star};
use super::{Collective, stopped};
use crate::error::{Error, Result};

/// How long a caller may take to say who it is.
const HELLO_TAKES: Duration = Duration::from_secs(5);
/// Longest first frame.
const HELLO_BYTES: u64 = 4096;
/// Between two looks for a caller, or two calls.
const PAUSE: Duration = Duration::from_millis(20);

/// Where ranks meet.
#[derive(Clone, Debug)]
pub struct Rendezvous {
    /// `host:port` of rank 0.
    pub address: String,
    /// Known to all ranks of the run and to nobody else.
    pub token: String,
    /// How many ranks there are.
    pub world: usize,
    /// How long one rank waits for another, here and in every later call.
    pub patience: Duration,
}

#[derive(Serialize, Deserialize)]
struct Hello {
    version: String,
    token: String,
    rank: usize,
    world: usize,
}

/// Rank 0: waits for all others. `still` is asked while it waits and ends the wait with its error.
///
/// # Errors
/// [`Error::Ranks`] if somebody does not come in time, or comes with another build or number of ranks.
pub fn host(
    listener: &TcpListener,
    meeting: &Rendezvous,
    still: &mut dyn FnMut() -> Result<()>,
) -> Result<Box<dyn Collective>> {
    let refused = |error: io::Error| cannot("listen", &meeting.address, &error);
    listener.set_nonblocking(true).map_err(refused)?;
    let limit = Instant::now() + meeting.patience;
    let mut links: Vec<Option<Wire>> = (1..meeting.world).map(|_| None).collect();
    while links.iter().any(Option::is_none) {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Some((rank, wire)) = greet(stream, meeting)? {
                    let place = links.get_mut(rank - 1).expect("ranks were checked");
                    if place.replace(wire).is_some() {
                        return Err(twice(rank));
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                still()?;
                if Instant::now() >= limit {
                    return Err(missing(&links, meeting));
                }
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err(refused(error)),
        }
    }
    let mut links: Vec<Wire> = links.into_iter().flatten().collect();
    for (at, link) in links.iter_mut().enumerate() {
        let sent = link.write(Kind::Welcome, &[], limit);
        sent.map_err(|error| super::gone(at + 1, &error))?;
    }
    Ok(Box::new(Star::new(
        0,
        meeting.world,
        meeting.patience,
        links,
    )))
}

/// Any other rank: calls rank 0 until it answers.
///
/// # Errors
/// [`Error::Ranks`] if it does not answer in time, or sends this rank away.
pub fn join(meeting: &Rendezvous, rank: usize) -> Result<Box<dyn Collective>> {
    assert!((1..meeting.world).contains(&rank), "rank {rank} joins");
    let limit = Instant::now() + meeting.patience;
    let stream = loop {
        match TcpStream::connect(&meeting.address) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() >= limit => {
                return Err(cannot("reach rank 0 at", &meeting.address, &error));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    };
    let unheard = |error: io::Error| cannot("join rank 0 at", &meeting.address, &error);
    let mut wire = Wire::over(stream, u64::MAX).map_err(unheard)?;
    let hello = Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        token: meeting.token.clone(),
        rank,
        world: meeting.world,
    };
    let hello = serde_json::to_vec(&hello).expect("plain data");
    wire.write(Kind::Hello, &hello, limit).map_err(unheard)?;
    let (kind, data) = wire.read(limit).map_err(unheard)?;
    if kind == Kind::Farewell as u8 {
        return Err(stopped(0, &String::from_utf8_lossy(&data)));
    }
    Ok(Box::new(Star::new(
        rank,
        meeting.world,
        meeting.patience,
        vec![wire],
    )))
}

/// Hears a caller out: its rank, nothing for a stranger, an error for one of ours that does not fit.
fn greet(stream: TcpStream, meeting: &Rendezvous) -> Result<Option<(usize, Wire)>> {
    let limit = Instant::now() + HELLO_TAKES;
    let heard = stream
        .set_nonblocking(false)
        .and_then(|()| Wire::over(stream, HELLO_BYTES))
        .and_then(|mut wire| Ok((wire.read(limit)?, wire)));
    let Ok(((kind, data), mut wire)) = heard else {
        return Ok(None);
    };
    let hello: Option<Hello> = serde_json::from_slice(&data).ok();
    let ours = |hello: &Hello| kind == Kind::Hello as u8 && hello.token == meeting.token;
    let Some(hello) = hello.filter(ours) else {
        return Ok(None);
    };
    let own = env!("CARGO_PKG_VERSION");
    let fits = hello.version == own
        && hello.world == meeting.world
        && (1..meeting.world).contains(&hello.rank);
    if fits {
        wire.most = u64::MAX;
        return Ok(Some((hello.rank, wire)));
    }
    let what = format!(
        "version {own} with {} ranks was called by rank {} of {} of version {}",
        meeting.world, hello.rank, hello.world, hello.version
    );
    let _gone = wire.write(Kind::Farewell, what.as_bytes(), limit);
    Err(Error::ranks(
        what,
        "start all ranks from one build, each with its own rank and the same number of them",
    ))
}

fn cannot(what: &str, address: &str, error: &io::Error) -> Error {
    Error::ranks(
        format!("cannot {what} `{address}`: {error}"),
        "check that the address is rank 0's, free there and reachable from here",
    )
}

fn twice(rank: usize) -> Error {
    Error::ranks(
        format!("two processes say that they are rank {rank}"),
        "give each process its own rank",
    )
}

fn missing(links: &[Option<Wire>], meeting: &Rendezvous) -> Error {
    let absent = links.iter().enumerate().filter(|(_, link)| link.is_none());
    let absent: Vec<String> = absent.map(|(at, _)| (at + 1).to_string()).collect();
    Error::ranks(
        format!(
            "waited {} s at `{}` for rank {}",
            meeting.patience.as_secs_f64(),
            meeting.address,
            absent.join(", ")
        ),
        "look why they did not start; they need the same address and token",
    )
}

/// A connection, for frames of a kind, a length and so many bytes.
struct Wire {
    stream: TcpStream,
    /// Longest frame that is taken.
    most: u64,
}

impl Wire {
    fn over(stream: TcpStream, most: u64) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SLICE))?;
        stream.set_write_timeout(Some(SLICE))?;
        Ok(Self { stream, most })
    }

    fn fill(&mut self, data: &mut [u8], limit: Instant) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            match self.stream.read(&mut data[done..]) {
                Ok(0) => return Err(closed()),
                Ok(count) => done += count,
                Err(error) => patient(error, limit)?,
            }
        }
        Ok(())
    }

    fn put(&mut self, data: &[u8], limit: Instant) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            match self.stream.write(&data[done..]) {
                Ok(0) => return Err(closed()),
                Ok(count) => done += count,
                Err(error) => patient(error, limit)?,
            }
        }
        Ok(())
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "its process has ended")
}

fn waits(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

/// Lets a wait go on until `limit`.
fn patient(error: io::Error, limit: Instant) -> io::Result<()> {
    if !waits(&error) {
        return Err(error);
    }
    if Instant::now() >= limit {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(())
}

impl Link for Wire {
    fn ready(&mut self, wait: bool) -> io::Result<Option<u8>> {
        let mut kind = [0];
        if !wait {
            self.stream.set_nonblocking(true)?;
        }
        let peeked = self.stream.peek(&mut kind);
        if !wait {
            self.stream.set_nonblocking(false)?;
        }
        match peeked {
            Ok(0) => Err(closed()),
            Ok(_) => Ok(Some(kind[0])),
            Err(error) if waits(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, limit: Instant) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.fill(&mut head, limit)?;
        let [kind, len @ ..] = head;
        let len = u64::from_le_bytes(len);
        if len > self.most {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut data = vec![0; len as usize];
        self.fill(&mut data, limit)?;
        Ok((kind, data))
    }

    fn write(&mut self, kind: Kind, data: &[u8], limit: Instant) -> io::Result<()> {
        let len = (data.len() as u64).to_le_bytes();
        // In one piece where it is small: the other side wakes up once.
        if data.len() <= 1 << 12 {
            return self.put(&[&[kind as u8], &len[..], data].concat(), limit);
        }
        self.put(&[&[kind as u8], &len[..]].concat(), limit)?;
        self.put(data, limit)
    }
}
