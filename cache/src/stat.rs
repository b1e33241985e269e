//! What the file system says about a file without reading it, and when that can be believed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Size, times and inode. Times are nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) size: u64,
    pub(crate) mtime: i64,
    pub(crate) ctime: i64,
    pub(crate) inode: u64,
}

/// Stamps of local file systems tick every few milliseconds.
const TICK: i64 = 100_000_000;
/// Stamps without a fraction come from file systems that count seconds, or two.
const COARSE_TICK: i64 = 2_100_000_000;

impl Stat {
    pub(crate) fn of(meta: &Metadata) -> Self {
        let nanos = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000) + rest;
        Self {
            size: meta.size(),
            mtime: nanos(meta.mtime(), meta.mtime_nsec()),
            ctime: nanos(meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
        }
    }

    /// The same, as the system call gives it.
    #[allow(
        clippy::unnecessary_cast,
        clippy::cast_lossless,
        reason = "the types of its fields differ between systems"
    )]
    pub(crate) fn of_raw(found: &rustix::fs::Stat) -> Self {
        let nanos = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000) + rest;
        Self {
            size: found.st_size as u64,
            mtime: nanos(found.st_mtime as i64, found.st_mtime_nsec as i64),
            ctime: nanos(found.st_ctime as i64, found.st_ctime_nsec as i64),
            inode: found.st_ino as u64,
        }
    }

    /// git's racy-clean rule: a file touched so shortly before `now` that a later write could
    /// carry the same stamps must not be remembered by its stat.
    pub(crate) fn racy(&self, now: i64) -> bool {
        let last = self.mtime.max(self.ctime);
        let coarse = self.mtime % 1_000_000_000 == 0 && self.ctime % 1_000_000_000 == 0;
        now.saturating_sub(last) < if coarse { COARSE_TICK } else { TICK }
    }
}

/// Whether the owner may execute it.
pub(crate) fn executable(meta: &Metadata) -> bool {
    meta.mode() & 0o100 != 0
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}

/// The mtime of every blob: one second after 1970, as in the Nix store. Any later write moves it,
/// so no write to a blob hides in the clock tick in which the blob was stored.
pub(crate) fn blob_time() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_ask_say_the_same() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x"), "x").unwrap();
        let folder = std::fs::File::open(dir.path()).unwrap();
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        let raw = rustix::fs::statat(&folder, "x", flags).unwrap();
        let meta = std::fs::symlink_metadata(dir.path().join("x")).unwrap();
        assert_eq!(Stat::of_raw(&raw), Stat::of(&meta));
    }

    #[test]
    fn a_stat_is_racy_until_its_clock_has_surely_ticked() {
        let second = 1_000_000_000;
        let fine = Stat {
            size: 1,
            mtime: 5 * second + 7,
            ctime: 5 * second + 7,
            inode: 1,
        };
        assert!(fine.racy(5 * second + 50_000_000));
        assert!(!fine.racy(5 * second + 200_000_000));
        assert!(fine.racy(0), "a stamp from the future is never believed");
        let coarse = Stat {
            mtime: 5 * second,
            ctime: 5 * second,
            ..fine
        };
        assert!(coarse.racy(6 * second));
        assert!(!coarse.racy(8 * second));
    }
}
