//! How a laid-out tree differs from what was laid out: somebody may have edited it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::Error;
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
        let place = std::path::absolute(place).map_err(Error::io("read", place))?;
        let missing = |path: &str| Difference {
            path: path.to_owned(),
            kind: DifferenceKind::Missing,
        };
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
        Ok(differences)
    }
}
