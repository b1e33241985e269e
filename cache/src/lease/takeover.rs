//! How a name is taken: the one protocol of leases, over whatever keeps names.
//!
//! Promises: at any moment the file under a name says whose it is, and only who finds its own there
//! holds it; of several who find an expired one, at most one ends up with the name; a live one that was
//! moved by mistake (its holder came back in the last moment) is put back unless the name was taken
//! meanwhile. Must not know: clocks, threads, what expired means.

use std::io;
use std::path::{Path, PathBuf};

/// Whoever keeps names: the disk, or a model of it. Every call is one step that others see whole.
pub(super) trait Names {
    /// The bytes under a name, `None` if there are none.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;
    /// Makes a file of these bytes where nothing stands; `false` where something does. The bytes may come
    /// a moment after the name.
    fn create(&self, path: &Path, bytes: &[u8]) -> io::Result<bool>;
    /// Gives a file another name; `false` where there is none.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<bool>;
    /// Gives a file another name where nothing stands; `false` where something does.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<bool>;
    /// Removes a file, if it is there.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// Tries to put `own` under the name `path`. `expired` says of bytes that stand there whether their
/// holder is gone; `aside` is a name that nobody else uses.
pub(super) fn take(
    names: &dyn Names,
    path: &Path,
    own: &[u8],
    aside: &Path,
    expired: &dyn Fn(&[u8]) -> bool,
) -> io::Result<bool> {
    if names.create(path, own)? {
        return Ok(true);
    }
    let Some(found) = names.read(path)? else {
        // It has just been freed; whoever asks again finds that out.
        return names.create(path, own);
    };
    if !expired(&found) {
        return Ok(false);
    }
    // The expired one is moved to a name of one's own first. Two who both saw it expired cannot both
    // move it; and what was moved is looked at again, for between the look and the move its holder may
    // have come back, or another may have taken the name.
    if !names.rename(path, aside)? {
        return Ok(false);
    }
    if names.read(aside)?.is_none_or(|moved| moved != found) {
        if !names.rename_new(aside, path)? {
            names.remove(aside)?;
        }
        return Ok(false);
    }
    names.remove(aside)?;
    names.create(path, own)
}

/// Frees the name if the file under it is one's own: `mine` says of bytes whether they are.
pub(super) fn release(
    names: &dyn Names,
    path: &Path,
    aside: &Path,
    mine: &dyn Fn(&[u8]) -> bool,
) -> io::Result<()> {
    // Looked at before, so that another's is not moved for nothing; and after, as in taking.
    if !names.read(path)?.is_some_and(|found| mine(&found)) {
        return Ok(());
    }
    if !names.rename(path, aside)? {
        return Ok(());
    }
    if names.read(aside)?.is_some_and(|moved| !mine(&moved)) && names.rename_new(aside, path)? {
        return Ok(());
    }
    names.remove(aside)
}

/// A part of the names of leases that are being taken over.
pub(crate) const AWAY: &str = ".gone-";

/// A name for what is moved away, that nobody else uses.
pub(super) fn aside(path: &Path, id: &str, number: u64) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!("{AWAY}{id}-{number}"));
    path.with_file_name(name)
}
