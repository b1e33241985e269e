//! Reading bytes once: hashed, and written elsewhere on the way if asked.
//!
//! Never maps a file that others may cut short: a truncated map kills the process.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, left_subtree_len, merge_subtrees_non_root,
    merge_subtrees_root,
};

use crate::Digest;

/// Bytes in flight.
const CHUNK: u64 = 4 << 20;
/// Bytes of a large file that one core reads and hashes at a time.
const PIECE: u64 = 512 << 10;
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

/// Hashes all of `file`, which holds `size` bytes as far as is known and was not read yet; returns
/// the digest and how many there were.
pub(crate) fn hash(file: &File, size: u64) -> io::Result<(Digest, u64)> {
    if size > 2 * PIECE
        && let Some(digest) = in_pieces(file, size)?
    {
        return Ok((digest, size));
    }
    pump(file, size, |_| Ok(()))
}

/// Reads and hashes the pieces of a large file side by side, each in a buffer that stays in a
/// core's own cache; nothing when the file has another size.
fn in_pieces(file: &File, size: u64) -> io::Result<Option<Digest>> {
    let left = left_subtree_len(size);
    let halves = rayon::join(
        || subtree(file, 0, left),
        || subtree(file, left, size - left),
    );
    match halves {
        (Ok(left), Ok(right)) if file.read_at(&mut [0], size)? == 0 => {
            let root = merge_subtrees_root(&left, &right, Mode::Hash);
            Ok(Some(Digest::from_hash(root)))
        }
        (Ok(_), Ok(_)) => Ok(None),
        (Err(error), _) | (_, Err(error)) => match error.kind() {
            io::ErrorKind::UnexpectedEof => Ok(None),
            _ => Err(error),
        },
    }
}

/// The chaining value of the subtree over `length` bytes from `offset` on (BLAKE3, section 2.1).
fn subtree(file: &File, offset: u64, length: u64) -> io::Result<ChainingValue> {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    if length > PIECE {
        let left = left_subtree_len(length);
        let (left, right) = rayon::join(
            || subtree(file, offset, left),
            || subtree(file, offset + left, length - left),
        );
        return Ok(merge_subtrees_non_root(&left?, &right?, Mode::Hash));
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(PIECE as usize, 0);
        let piece = &mut buffer[..length as usize];
        file.read_exact_at(piece, offset)?;
        let mut hasher = blake3::Hasher::new();
        Ok(hasher
            .set_input_offset(offset)
            .update(piece)
            .finalize_non_root())
    })
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
    }

    #[test]
    fn large_files_have_the_digest_of_their_bytes_whatever_size_is_expected() {
        let bytes: Vec<u8> = (0..5_000_001_u32).map(|i| ((i * 7) >> 3) as u8).collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let piece = PIECE as usize;
        for length in [
            0,
            1,
            2 * piece,
            2 * piece + 1,
            3 * piece,
            4 * piece + 1025,
            bytes.len(),
        ] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let wanted = (Digest::of(&bytes[..length]), length as u64);
            for said in [0, length, length + 1, length + 9_000_000, length / 2 + 1] {
                let file = File::open(&path).unwrap();
                assert_eq!(
                    hash(&file, said as u64).unwrap(),
                    wanted,
                    "{length}, {said}"
                );
            }
        }
    }
}
