//! What lies below a path: its regular files, sorted, with links resolved.
//!
//! Promises: hidden files count; a link inside the tree stands for what it points to; a link that
//! leaves the tree, loops or leads nowhere is refused, and so is anything that is no file.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::stat::{Stat, executable};

/// One file found.
pub(crate) struct Found {
    /// Path below the root with `/`; empty when the root is the file.
    pub(crate) relative: String,
    pub(crate) path: PathBuf,
    pub(crate) executable: bool,
    pub(crate) stat: Stat,
}

/// What lies below a path.
pub(crate) struct Walked {
    pub(crate) folder: bool,
    /// Sorted by `relative`, bytewise.
    pub(crate) files: Vec<Found>,
    /// Whether a link was followed: then one file may be found twice.
    pub(crate) links: bool,
}

/// Walks `root`. A root that is itself a link is followed: its owner named it.
pub(crate) fn walk(root: &Path) -> Result<Walked, Error> {
    let meta = fs::metadata(root).map_err(Error::io("read", root))?;
    if !meta.is_dir() {
        let files = vec![found(String::new(), root.to_owned(), &meta)?];
        return Ok(Walked {
            folder: false,
            files,
            links: false,
        });
    }
    let mut walker = Walker {
        root,
        real_root: root.canonicalize().map_err(Error::io("read", root))?,
        above: Vec::new(),
        walked: Walked {
            folder: true,
            files: Vec::new(),
            links: false,
        },
    };
    walker.folder(root, "")?;
    let mut walked = walker.walked;
    walked.files.sort_by(|a, b| a.relative.cmp(&b.relative));
    Ok(walked)
}

struct Walker<'a> {
    root: &'a Path,
    real_root: PathBuf,
    /// Real paths of the folders that links led into, innermost last.
    above: Vec<PathBuf>,
    walked: Walked,
}

impl Walker<'_> {
    fn folder(&mut self, folder: &Path, prefix: &str) -> Result<(), Error> {
        let listing = fs::read_dir(folder).map_err(Error::io("list", folder))?;
        for entry in listing {
            let entry = entry.map_err(Error::io("list", folder))?;
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                return Err(Error::NotText { path });
            };
            let relative = if prefix.is_empty() {
                name
            } else {
                format!("{prefix}/{name}")
            };
            let kind = entry.file_type().map_err(Error::io("read", &path))?;
            if kind.is_symlink() {
                self.link(path, relative)?;
            } else if kind.is_dir() {
                self.folder(&path, &relative)?;
            } else {
                let meta = entry.metadata().map_err(Error::io("read", &path))?;
                self.walked.files.push(found(relative, path, &meta)?);
            }
        }
        Ok(())
    }

    fn link(&mut self, path: PathBuf, relative: String) -> Result<(), Error> {
        let Ok(target) = path.canonicalize() else {
            return Err(Error::LinkBroken { path });
        };
        if !target.starts_with(&self.real_root) {
            return Err(Error::LinkLeaves {
                path,
                target,
                root: self.root.to_owned(),
            });
        }
        self.walked.links = true;
        let meta = fs::metadata(&target).map_err(Error::io("read", &path))?;
        if !meta.is_dir() {
            self.walked.files.push(found(relative, path, &meta)?);
            return Ok(());
        }
        let parent = path.parent().expect("an entry of a folder has a parent");
        let here = parent.canonicalize().map_err(Error::io("read", parent))?;
        if here.starts_with(&target) || self.above.contains(&target) {
            return Err(Error::LinkLoops { path });
        }
        self.above.push(target);
        self.folder(&path, &relative)?;
        self.above.pop();
        Ok(())
    }
}

fn found(relative: String, path: PathBuf, meta: &Metadata) -> Result<Found, Error> {
    if !meta.is_file() {
        return Err(Error::Special { path });
    }
    Ok(Found {
        relative,
        executable: executable(meta),
        stat: Stat::of(meta),
        path,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(root: &Path) -> Result<Vec<String>, Error> {
        let files = walk(root)?.files.into_iter();
        Ok(files.map(|file| file.relative).collect())
    }

    #[test]
    fn finds_hidden_files_and_sorts_by_the_whole_path() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/empty")).unwrap();
        for name in ["a/x", "a-b", "a.c", ".hidden"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        assert_eq!(names(dir.path()).unwrap(), [".hidden", "a-b", "a.c", "a/x"]);
    }

    #[test]
    fn links_inside_count_as_what_they_point_to() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        fs::write(dir.path().join("real/x"), "x").unwrap();
        symlink("real/x", dir.path().join("file")).unwrap();
        symlink("real", dir.path().join("folder")).unwrap();
        assert_eq!(names(dir.path()).unwrap(), ["file", "folder/x", "real/x"]);
    }

    #[test]
    fn links_that_leave_loop_or_lead_nowhere_are_refused() {
        for (target, code) in [
            ("/etc/hostname", "cache::link-leaves"),
            ("..", "cache::link-leaves"),
            (".", "cache::link-loops"),
            ("nothing", "cache::link-broken"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            symlink(target, dir.path().join("link")).unwrap();
            assert_eq!(names(dir.path()).unwrap_err().code(), code, "{target}");
        }
    }

    #[test]
    fn folders_that_link_to_each_other_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (one, other) in [("a", "b"), ("b", "a")] {
            fs::create_dir(dir.path().join(one)).unwrap();
            symlink(format!("../{other}"), dir.path().join(one).join("to")).unwrap();
        }
        assert_eq!(names(dir.path()).unwrap_err().code(), "cache::link-loops");
    }
}
