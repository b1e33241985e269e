//! `out/PROFILE/STAGE/`: the results people look at. No stage ever reads them.
//!
//! Promises: a stage's folder is swapped in whole; what somebody edited there or put
//! there is moved to `out/.kept/` before it is replaced, and left alone while the result stays
//! the same; what was deleted comes back. A file whose bytes are in the store is nobody's
//! work, so replacing it loses nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cache::{DifferenceKind, Entry, Record, Store, Tree};

/// What was found or done in a stage's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Somebody changed or added these files; they stay.
    Modified(Vec<PathBuf>),
    /// These were moved to `.kept` to make room; paths from the project's folder.
    Kept(Vec<(PathBuf, PathBuf)>),
    /// Something was missing and is back.
    Back,
}

/// Where results are built before they are swapped in, below `out/`.
pub(crate) const ASIDES: &str = ".aside";

/// The folder of results.
pub(crate) struct Out<'a> {
    pub(crate) store: &'a Store,
    /// `out/`.
    pub(crate) root: &'a Path,
    pub(crate) profile: &'a str,
}

impl Out<'_> {
    fn folder(&self, stage: &str) -> PathBuf {
        let root = self.root.as_os_str().len();
        let mut folder = PathBuf::with_capacity(root + self.profile.len() + stage.len() + 2);
        folder.extend([self.root, Path::new(self.profile), Path::new(stage)]);
        folder
    }

    /// Makes the folder of `stage` show `record`. `fresh`: the result was there before, so
    /// edits stay where they are.
    pub(crate) fn show(
        &self,
        stage: &str,
        products: &[(&str, &str)],
        record: &Record,
        fresh: bool,
    ) -> Result<Option<Found>, cache::Error> {
        let tree = whole(products, &record.outputs);
        let folder = self.folder(stage);
        let differences = self.store.compare(&tree, &folder)?;
        if differences.is_empty() {
            return Ok(None);
        }
        let mut own = Vec::new();
        for difference in &differences {
            let place = folder.join(&difference.path);
            if difference.kind != DifferenceKind::Missing && !self.known(&place)? {
                own.push(PathBuf::from(&difference.path));
            }
        }
        if fresh && !own.is_empty() {
            return Ok(Some(Found::Modified(own)));
        }
        let mut kept = Vec::new();
        for path in own {
            let place = self.keep(stage, &folder, &path)?;
            kept.push((self.shown(&folder.join(path)), self.shown(&place)));
        }
        let asides = self.root.join(ASIDES);
        self.store.materialise(&tree, &folder, &asides)?;
        Ok(if !kept.is_empty() {
            Some(Found::Kept(kept))
        } else if fresh {
            Some(Found::Back)
        } else {
            None
        })
    }

    /// A path below the results as people name it, `out/…`.
    fn shown(&self, path: &Path) -> PathBuf {
        let project = self.root.parent().unwrap_or(self.root);
        path.strip_prefix(project).unwrap_or(path).to_owned()
    }

    /// Whether the bytes of a file are in the store.
    fn known(&self, place: &Path) -> Result<bool, cache::Error> {
        // An empty file is what a power cut leaves of one that was not synced: nobody's work.
        if place.metadata().is_ok_and(|meta| meta.len() == 0) {
            return Ok(true);
        }
        let tree = self.store.hash(place)?;
        Ok(tree
            .files()
            .all(|(_, _, digest, _)| self.store.blob_path(&digest).exists()))
    }

    /// Moves a file to `.kept`, beside earlier ones of its name.
    fn keep(&self, stage: &str, folder: &Path, path: &Path) -> Result<PathBuf, cache::Error> {
        let base = self
            .root
            .join(".kept")
            .join(self.profile)
            .join(stage)
            .join(path);
        let place = (0..u32::MAX)
            .map(|number| match number {
                0 => base.clone(),
                _ => PathBuf::from(format!("{}.{number}", base.display())),
            })
            .find(|place| place.symlink_metadata().is_err())
            .expect("some number is free");
        let above = place.parent().expect("a kept file lies in a folder");
        let io = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| cache::Error::Io {
                doing,
                path,
                source,
            }
        };
        std::fs::create_dir_all(above).map_err(io("create", above))?;
        let from = folder.join(path);
        std::fs::rename(&from, &place).map_err(io("move", &from))?;
        Ok(place)
    }
}

/// One tree of all products, as the stage's own output folder had them.
fn whole(products: &[(&str, &str)], outputs: &BTreeMap<String, Tree>) -> Tree {
    let mut entries = Vec::new();
    for (name, path) in products {
        let Some(tree) = outputs.get(*name) else {
            continue;
        };
        let path = path.trim_start_matches("./").trim_end_matches('/');
        for (below, executable, digest, size) in tree.files() {
            let path = if below.is_empty() {
                path.to_owned()
            } else {
                format!("{path}/{below}")
            };
            entries.push(Entry {
                path,
                executable,
                digest,
                size,
            });
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries.dedup_by(|a, b| a.path == b.path);
    Tree::Folder(entries)
}
