//! How a laid-out tree differs from what was laid out: somebody may have edited it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::FileType;

use crate::Digest;
use crate::error::Error;
use crate::materialise::place_of;
use crate::stat::{self, Stat};
use crate::store::Store;
use crate::tree::Tree;
use crate::walk::walk;

/// One file that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path below the place; empty where the place is a file.
    pub path: String,
    /// How.
    pub kind: DifferenceKind,
}

/// How a file differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// It is gone.
    Missing,
    /// It holds other bytes.
    Modified,
    /// It is not of the tree.
    Added,
}

impl Store {
    /// What differs at `place` from `tree`, by path. Reads only files whose stat is not known.
    pub fn compare(&self, tree: &Tree, place: &Path) -> Result<Vec<Difference>, Error> {
        let place = absolute(place).map_err(Error::io("read", place))?;
        if self.as_remembered(tree, &place) {
            return Ok(Vec::new());
        }
        let missing = |path: &str| Difference {
            path: path.to_owned(),
            kind: DifferenceKind::Missing,
        };
        let began = stat::now();
        let walked = match walk(&place) {
            Ok(walked) => walked,
            Err(error) if error.code() == "cache::not-found" => {
                let gone = tree
                    .files()
                    .map(|(path, ..)| missing(path))
                    .collect::<Vec<_>>();
                let none = gone.is_empty();
                return Ok(if none { vec![missing("")] } else { gone });
            }
            Err(error) => return Err(error),
        };
        let wanted: BTreeMap<_, _> = tree
            .files()
            .map(|(path, executable, digest, size)| (path, (executable, digest, size)))
            .collect();
        let mut differences = Vec::new();
        let mut seen = BTreeSet::new();
        for file in &walked.files {
            seen.insert(&*file.relative);
            let kind = match wanted.get(&*file.relative) {
                None => DifferenceKind::Added,
                Some((executable, digest, size)) => {
                    let same = *executable == file.executable
                        && *size == file.stat.size
                        && self.hash_file(file)?.0 == *digest;
                    if same {
                        continue;
                    }
                    DifferenceKind::Modified
                }
            };
            differences.push(Difference {
                path: file.relative.clone(),
                kind,
            });
        }
        let unseen = wanted.keys().filter(|path| !seen.contains(**path));
        differences.extend(unseen.map(|path| missing(path)));
        differences.sort_by(|a, b| a.path.cmp(&b.path));
        if differences.is_empty() && !walked.links && walked.folder {
            self.remember_names(tree, &place, began);
        }
        Ok(differences)
    }

    /// Whether every folder and file of the tree has the stat under which it was found to be that
    /// of the tree: one look at each, no listing. A name that came or went moves its folder's
    /// times.
    fn as_remembered(&self, tree: &Tree, place: &Path) -> bool {
        let Tree::Folder(entries) = tree else {
            return false;
        };
        let memo = self.memo();
        let folders = folders(tree);
        let same_names = folders.iter().all(|(folder, names)| {
            let found = memo.look(&place_of(place, folder));
            found.is_some_and(|(digest, mode)| digest == *names && kind_of(mode).is_dir())
        });
        same_names
            && entries.iter().all(|entry| {
                let found = memo.look(&place.join(&entry.path));
                found.is_some_and(|(digest, mode)| {
                    digest == entry.digest
                        && kind_of(mode).is_file()
                        && (mode & 0o100 != 0) == entry.executable
                })
            })
    }

    /// Remembers the stats of a laid-out tree's folders, found to hold its names and nothing
    /// else by a look that began at `began`. One that has an empty folder in it is not remembered:
    /// a file could come into that unseen.
    fn remember_names(&self, tree: &Tree, place: &Path, began: i64) {
        let folders = folders(tree);
        let mut stats = Vec::with_capacity(folders.len());
        for (folder, names) in folders {
            let path = place_of(place, folder);
            let Ok(meta) = fs::symlink_metadata(&path) else {
                return;
            };
            let stat = Stat::of(&meta);
            if !meta.is_dir() || stat.racy(began) || listed(&path) != Some(names) {
                return;
            }
            stats.push((path, stat, names));
        }
        let mut memo = self.memo();
        for (path, stat, names) in stats {
            memo.remember_path(&path, stat, names);
        }
    }
}

/// [`std::path::absolute`], at a tenth of its price for a path that is written so already.
fn absolute(path: &Path) -> io::Result<Cow<'_, Path>> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let plain = bytes.starts_with(b"/")
        && !bytes.ends_with(b"/")
        && bytes
            .split(|byte| *byte == b'/')
            .skip(1)
            .all(|step| !step.is_empty() && step != b".");
    if plain {
        return Ok(Cow::Borrowed(path));
    }
    std::path::absolute(path).map(Cow::Owned)
}

fn kind_of(mode: u32) -> FileType {
    FileType::from_raw_mode(mode)
}

/// The digest of what a folder lists: names, files apart from folders.
fn digest_of<'a>(names: impl Iterator<Item = (bool, &'a str)>) -> Digest {
    let mut text = String::from("names in a folder\0");
    for (folder, name) in names {
        text.push(if folder { 'd' } else { 'f' });
        text.push_str(name);
        text.push('\0');
    }
    Digest::of(text.as_bytes())
}

/// The folders of a tree, its root the empty path, each with the digest of its names.
fn folders(tree: &Tree) -> Vec<(&str, Digest)> {
    // Most results are a few files side by side, sorted already.
    if tree.files().all(|(path, ..)| !path.contains('/')) {
        let names = tree.files().map(|(path, ..)| (false, path));
        return vec![("", digest_of(names))];
    }
    let mut found: BTreeMap<&str, BTreeSet<(bool, &str)>> = BTreeMap::new();
    found.entry("").or_default();
    for (path, ..) in tree.files() {
        let mut rest = path;
        let mut folder = false;
        loop {
            let (above, name) = rest.rsplit_once('/').unwrap_or(("", rest));
            // What is above a folder that is known already is known, too.
            if !found.entry(above).or_default().insert((folder, name)) && folder {
                break;
            }
            if above.is_empty() {
                break;
            }
            (rest, folder) = (above, true);
        }
    }
    let digests = found.iter();
    digests
        .map(|(folder, names)| (*folder, digest_of(names.iter().copied())))
        .collect()
}

/// The digest of the names in a folder now; nothing if it holds anything but files and folders.
fn listed(folder: &Path) -> Option<Digest> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        let kind = entry.file_type().ok()?;
        if kind.is_symlink() {
            return None;
        }
        names.push((kind.is_dir(), entry.file_name().into_string().ok()?));
    }
    let names: BTreeSet<_> = names.iter().map(|(dir, name)| (*dir, &**name)).collect();
    Some(digest_of(names.into_iter()))
}
