//! Reading bytes once: hashed, and written elsewhere on the way if asked.
//!
//! Never maps a file that others may cut short: a truncated map kills the process.

use std::io::{self, Read};

use crate::Digest;

/// Bytes in flight.
const CHUNK: u64 = 4 << 20;
/// Below this, splitting the work costs more than it gains.
const PARALLEL_ABOVE: usize = 256 << 10;

/// Hashes all of `source` (about `hint` bytes), handing every piece to `sink`. Returns the digest
/// and the number of bytes.
pub(crate) fn pump(
    mut source: impl Read,
    hint: u64,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; (hint + 1).clamp(4096, CHUNK) as usize];
    let mut total = 0;
    loop {
        let filled = fill(&mut source, &mut buffer)?;
        let piece = &buffer[..filled];
        if filled >= PARALLEL_ABOVE {
            hasher.update_rayon(piece);
        } else {
            hasher.update(piece);
        }
        sink(piece)?;
        total += filled as u64;
        if filled < buffer.len() {
            return Ok((Digest::from_hasher(&hasher), total));
        }
    }
}

/// Hashes all of `source`.
pub(crate) fn hash(source: impl Read, hint: u64) -> io::Result<(Digest, u64)> {
    pump(source, hint, |_| Ok(()))
}

fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_change_the_digest() {
        let bytes: Vec<u8> = (0..9_000_001_u32).map(|i| ((i * 7) >> 3) as u8).collect();
        let mut copy = Vec::new();
        let pumped = pump(&*bytes, 10, |piece| {
            copy.extend_from_slice(piece);
            Ok(())
        });
        assert_eq!(pumped.unwrap(), (Digest::of(&bytes), bytes.len() as u64));
        assert!(copy == bytes);
        assert_eq!(hash(&*bytes, 1 << 40).unwrap().0, Digest::of(&bytes));
    }
}
