//! The stat memo: digests remembered by size, mtime, ctime and inode, for local files by path and
//! for blobs by digest.
//!
//! Promises: a pure speed-up. The file `index` is appended to, a line an entry, and read with
//! suspicion: what does not parse is skipped, so a torn write, a lost file or two writers at once
//! cost a rehash and nothing else.
#![expect(
    clippy::disallowed_types,
    reason = "entries are looked up, ten thousands of them at every start; their order is never shown or hashed"
)]

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Digest;
use crate::disk::Disk;
use crate::glance::{Answers, Below};
use crate::stat::Stat;

/// Lines that may be out of date before the file is written anew.
const SLACK: usize = 1000;

/// What the stat memo of a store says. It can be read before the store is opened
/// ([`crate::Opening`]): every entry is believed only for a file that has its stat now.
#[derive(Clone, Debug, Default)]
pub struct Index {
    file: PathBuf,
    blobs: HashMap<Digest, Stat>,
    paths: HashMap<String, Known>,
    /// Lines in the file.
    lines: usize,
    /// What another thread sees of paths: their modes, where they have the stats that are known.
    modes: Option<Arc<Answers<u32>>>,
}

/// What is known of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    stat: Stat,
    digest: Digest,
    /// Its number among those that another thread looks at.
    look: Option<u32>,
}

/// Looks at remembered paths that are to be made.
pub struct PathLooks {
    folder: Below,
    /// Below the folder, one after the other.
    paths: String,
    /// Where each ends, and the stat that it had.
    each: Vec<(usize, Stat)>,
    modes: Arc<Answers<u32>>,
}

impl PathLooks {
    /// Makes the looks.
    pub fn make(self) {
        self.modes.make(|number| {
            let begin = number
                .checked_sub(1)
                .map_or(0, |before| self.each[before].0);
            let (end, known) = self.each[number];
            let (stat, mode) = self.folder.look(&self.paths[begin..end])?;
            (stat == known).then_some(mode)
        });
    }
}

impl Index {
    /// Reads the index at `place` ([`Index::place`]); one that is not there is empty.
    pub fn read(place: &Path) -> Self {
        let mut index = Self {
            file: place.to_owned(),
            ..Self::default()
        };
        let bytes = fs::read(&index.file).unwrap_or_default();
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => Cow::Borrowed(text),
            // A line that a killed process left unfinished.
            Err(_) => String::from_utf8_lossy(&bytes),
        };
        let lines: Vec<&str> = text.split('\n').filter(|line| !line.is_empty()).collect();
        index.lines = lines.len();
        // At the right size at once: growing costs more than counting.
        let paths = lines.iter().filter(|line| line.starts_with('p')).count();
        index.paths.reserve(paths);
        index.blobs.reserve(lines.len() - paths);
        for line in lines {
            index.read_line(line);
        }
        index
    }

    /// Where the index of the store at `base` lies: beside it, or in `local`, a folder on this machine's
    /// own disk, with those of other stores.
    pub fn place(base: &Path, local: Option<&Path>) -> PathBuf {
        match local {
            None => base.join("index"),
            Some(local) => {
                let name = Digest::of(base.as_os_str().as_encoded_bytes());
                local.join(format!("index-{}", name.short()))
            }
        }
    }

    /// The looks at every path below `folder` that it remembers, for another thread to make: what that has
    /// seen costs the first question about a path no look.
    pub fn looks_below(&mut self, folder: &Path) -> Option<PathLooks> {
        let below = Below::folder(folder)?;
        let prefix = format!("{}/", folder.to_str()?);
        let mut paths = String::new();
        let mut each = Vec::with_capacity(self.paths.len());
        for (path, known) in &mut self.paths {
            if let Some(relative) = path.strip_prefix(&*prefix) {
                known.look = u32::try_from(each.len()).ok();
                paths.push_str(relative);
                each.push((paths.len(), known.stat));
            }
        }
        let modes = Arc::new(Answers::new(each.len()));
        self.modes = Some(Arc::clone(&modes));
        Some(PathLooks {
            folder: below,
            paths,
            each,
            modes,
        })
    }

    /// Whether it is the one at `place`.
    pub(crate) fn is_at(&self, place: &Path) -> bool {
        self.file == place
    }

    /// The line of a blob is `b DIGEST SIZE MTIME CTIME INODE ;`; that of a path has `p` in front
    /// and the path before the `;`.
    fn read_line(&mut self, line: &str) -> Option<()> {
        let rest = &mut line.strip_suffix(" ;")?;
        let kind = word(rest)?;
        let digest = word(rest)?.parse().ok()?;
        let stat = Stat {
            size: word(rest)?.parse().ok()?,
            mtime: word(rest)?.parse().ok()?,
            ctime: word(rest)?.parse().ok()?,
            inode: word(rest)?.parse().ok()?,
        };
        match (kind, *rest) {
            ("b", "") => {
                self.blobs.insert(digest, stat);
            }
            ("p", path) => {
                let known = Known {
                    stat,
                    digest,
                    look: None,
                };
                self.paths.insert(path.to_owned(), known);
            }
            _ => {}
        }
        Some(())
    }
}

/// Takes the next word of a line, and the space behind it.
fn word<'l>(rest: &mut &'l str) -> Option<&'l str> {
    if rest.is_empty() {
        return None;
    }
    // A search byte by byte: words are short.
    let end = rest.bytes().position(|byte| byte == b' ');
    let (word, more) = rest.split_at(end.unwrap_or(rest.len()));
    *rest = more.get(1..).unwrap_or_default();
    Some(word)
}

/// The stat memo of an open store.
#[derive(Debug)]
pub(crate) struct Memo {
    index: Index,
    disk: Disk,
    /// Lines not yet written.
    pending: String,
    /// Whether what was seen ahead still counts.
    glances: bool,
}

impl Memo {
    pub(crate) fn of(index: Index, disk: Disk) -> Self {
        Self {
            index,
            disk,
            pending: String::new(),
            glances: true,
        }
    }

    /// The index's file.
    pub(crate) fn place(&self) -> &Path {
        &self.index.file
    }

    pub(crate) fn blob(&self, digest: &Digest) -> Option<Stat> {
        self.index.blobs.get(digest).copied()
    }

    pub(crate) fn remember_blob(&mut self, digest: Digest, stat: Stat) {
        self.index.blobs.insert(digest, stat);
        write_blob(&mut self.pending, &digest, &stat);
    }

    pub(crate) fn forget_blob(&mut self, digest: &Digest) {
        self.index.blobs.remove(digest);
    }

    /// The digest of `path`, if it was hashed while it had this very stat.
    pub(crate) fn path(&self, path: &Path, stat: &Stat) -> Option<Digest> {
        let known = self.index.paths.get(path.to_str()?)?;
        (known.stat == *stat).then_some(known.digest)
    }

    /// The digest and mode of `path`, if it has the stat now under which it was hashed: by what was
    /// seen of it, or by a look.
    pub(crate) fn look(&self, path: &Path) -> Option<(Digest, u32)> {
        let known = self.index.paths.get(path.to_str()?)?;
        if let (Some(modes), Some(look), true) = (&self.index.modes, known.look, self.glances)
            && let Some(mode) = modes.take(look as usize)
        {
            return Some((known.digest, mode));
        }
        let meta = fs::symlink_metadata(path).ok()?;
        (Stat::of(&meta) == known.stat).then(|| (known.digest, meta.mode()))
    }

    pub(crate) fn forget_glances(&mut self) {
        self.glances = false;
        if let Some(modes) = &self.index.modes {
            modes.stop();
        }
    }

    /// The caller has made sure that the stat is not racy.
    pub(crate) fn remember_path(&mut self, path: &Path, stat: Stat, digest: Digest) {
        let Some(path) = path.to_str().filter(|path| !path.contains('\n')) else {
            return;
        };
        let now = Known {
            stat,
            digest,
            look: None,
        };
        let known = self.index.paths.insert(path.to_owned(), now);
        if known.is_none_or(|known| (known.stat, known.digest) != (stat, digest)) {
            write_path(&mut self.pending, path, &stat, &digest);
        }
    }

    /// Writes what is new. Two processes may do so at once: each write is one append.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.index.lines > 2 * (self.index.blobs.len() + self.index.paths.len()) + SLACK {
            return self.rewrite();
        }
        // A line feed first: a line that a killed process left unfinished ends there.
        let text = format!("\n{}", std::mem::take(&mut self.pending));
        self.index.lines += text.lines().count();
        self.disk.append(&self.index.file, text.as_bytes())
    }

    /// Forgets everything, giving no memory back. What was not flushed is lost.
    pub(crate) fn leave(&mut self) {
        let Index { blobs, paths, .. } = std::mem::take(&mut self.index);
        std::mem::forget((blobs, paths));
        self.pending.clear();
    }

    fn rewrite(&mut self) -> io::Result<()> {
        self.index.paths.retain(|path, _| Path::new(path).exists());
        let mut text = String::new();
        for (digest, stat) in &self.index.blobs {
            write_blob(&mut text, digest, stat);
        }
        for (path, known) in &self.index.paths {
            write_path(&mut text, path, &known.stat, &known.digest);
        }
        let aside = self
            .index
            .file
            .with_extension(format!("{}.aside", std::process::id()));
        self.disk.put(&aside, text.as_bytes())?;
        self.disk.rename(&aside, &self.index.file)?;
        self.index.lines = self.index.blobs.len() + self.index.paths.len();
        self.pending.clear();
        Ok(())
    }
}

fn write_blob(text: &mut String, digest: &Digest, stat: &Stat) {
    let Stat {
        size,
        mtime,
        ctime,
        inode,
    } = stat;
    // Writing to a String cannot fail.
    let _ = writeln!(text, "b {digest} {size} {mtime} {ctime} {inode} ;");
}

fn write_path(text: &mut String, path: &str, stat: &Stat, digest: &Digest) {
    let Stat {
        size,
        mtime,
        ctime,
        inode,
    } = stat;
    let _ = writeln!(text, "p {digest} {size} {mtime} {ctime} {inode} {path} ;");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(base: &Path) -> Memo {
        Memo::of(Index::read(&Index::place(base, None)), Disk::default())
    }

    fn stat(size: u64) -> Stat {
        Stat {
            size,
            mtime: -3,
            ctime: 4,
            inode: 5,
        }
    }

    #[test]
    fn entries_come_back_and_the_last_one_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let odd = Path::new("/a path/with ; in it");
        let mut memo = load(dir.path());
        memo.remember_blob(one, stat(1));
        memo.remember_path(odd, stat(1), one);
        memo.flush().unwrap();
        memo.remember_path(odd, stat(2), two);
        memo.flush().unwrap();

        let memo = load(dir.path());
        assert_eq!(memo.blob(&one), Some(stat(1)));
        assert_eq!(memo.blob(&two), None);
        assert_eq!(memo.path(odd, &stat(2)), Some(two));
        assert_eq!(memo.path(odd, &stat(1)), None);
    }

    #[test]
    fn what_was_seen_counts_once_and_only_until_something_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (shown, digest) = (dir.path().join("shown"), Digest::of(b"x"));
        fs::create_dir(&shown).unwrap();
        let path = shown.join("x");
        fs::write(&path, "x").unwrap();
        let stat = Stat::of(&fs::metadata(&path).unwrap());
        let seen = || {
            let mut memo = load(dir.path());
            memo.remember_path(&path, stat, digest);
            memo.index.looks_below(&shown).unwrap().make();
            fs::remove_file(&path).unwrap();
            memo
        };
        let memo = seen();
        assert_eq!(memo.look(&path).map(|(digest, _)| digest), Some(digest));
        assert_eq!(memo.look(&path), None, "the second look is at the file");
        fs::write(&path, "x").unwrap();
        let mut memo = seen();
        memo.forget_glances();
        assert_eq!(memo.look(&path), None, "something changed");
    }

    #[test]
    fn a_torn_line_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("index");
        let mut memo = load(dir.path());
        memo.remember_path(Path::new("/a"), stat(123), Digest::of(b"a"));
        memo.flush().unwrap();
        let whole = fs::read(&file).unwrap();
        for length in 0..whole.len() {
            fs::write(&file, &whole[..length]).unwrap();
            let mut memo = load(dir.path());
            let known = memo.path(Path::new("/a"), &stat(123));
            assert!(known.is_none() || known == Some(Digest::of(b"a")));
            memo.remember_blob(Digest::of(b"b"), stat(1));
            memo.flush().unwrap();
            let memo = load(dir.path());
            assert_eq!(
                memo.blob(&Digest::of(b"b")),
                Some(stat(1)),
                "cut at {length}"
            );
        }
    }

    #[test]
    fn a_file_of_old_lines_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("index");
        let mut memo = load(dir.path());
        for size in 0..2000 {
            memo.remember_blob(Digest::of(b"x"), stat(size));
            memo.flush().unwrap();
        }
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.lines().count() < 2100);
        assert_eq!(load(dir.path()).blob(&Digest::of(b"x")), Some(stat(1999)));
    }
}
