//! A stage's inputs, resolved to what they hold.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use cache::{Kept, Store, Taken, Tree};

use super::error::PlanError;
use super::people::decisions;
use crate::config::{Action, InputSpec, Pipeline, Reference, StageSpec};

/// Inputs by port name, in the order written.
pub type Inputs = BTreeMap<String, Vec<Item>>;

/// One input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it holds.
    pub tree: Tree,
    /// Where it comes from.
    pub origin: Origin,
    /// Where the stage sees it, relative to the folder it runs in: the last step is its name,
    /// which the stage can read, so it is in the key. Whoever lays inputs out must use it. A
    /// `run:` command sees a project file at its own place (`./train.py` at `train.py`); all else
    /// is `inputs/PORT/NAME`, or `inputs/PORT/0/NAME` where the port has several.
    pub place: String,
}

/// Where an input comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An output of the stage with this index.
    Product {
        /// Index into [`Pipeline::stages`].
        stage: usize,
        /// Output name.
        product: String,
    },
    /// A local file or folder.
    Path {
        /// As written, relative to the pipeline's folder or absolute.
        path: PathBuf,
        /// Whether its bytes are in the store or are read in place and looked at again
        /// afterwards.
        kept: Kept,
    },
}

/// Looks at local inputs, each once: every stage of a run sees the same bytes.
pub(super) struct Locals {
    taken: BTreeMap<PathBuf, Taken>,
    /// Only look, take nothing into the store.
    preview: bool,
}

impl Locals {
    pub(super) fn new(preview: bool) -> Self {
        Self {
            taken: BTreeMap::new(),
            preview,
        }
    }

    /// `None` for a folder that holds the store.
    fn take(&mut self, store: &Store, path: &Path) -> Result<Option<Taken>, cache::Error> {
        if let Some(taken) = self.taken.get(path) {
            return Ok(Some(taken.clone()));
        }
        if holds(path, store.home()) || holds(path, store.base()) {
            return Ok(None);
        }
        let taken = if self.preview {
            Taken {
                tree: store.hash(path)?,
                kept: Kept::Outside(path.to_owned()),
            }
        } else {
            store.take(path)?
        };
        self.taken.insert(path.to_owned(), taken.clone());
        Ok(Some(taken))
    }
}

/// What a stage reads (`reads` are its inputs, or those of the cell that it picked), or the
/// stages it must wait for.
pub(super) fn resolve(
    pipeline: &Pipeline,
    spec: &StageSpec,
    reads: &[InputSpec],
    product: impl Fn(&str, &str) -> Option<(usize, Option<Tree>)>,
    store: &Store,
    locals: &mut Locals,
) -> Result<Result<Inputs, Vec<usize>>, PlanError> {
    let mut inputs = Inputs::new();
    let mut waiting = Vec::new();
    for input in reads {
        for (at, reference) in input.references.iter().enumerate() {
            let several = input.references.len() > 1;
            let at = several.then_some(at);
            let (tree, origin, place) = match reference {
                Reference::Product {
                    stage,
                    product: name,
                } => {
                    let (index, tree) = product(stage, name)
                        .unwrap_or_else(|| panic!("bug: `{stage}:{name}` passed the checks"));
                    let Some(tree) = tree else {
                        waiting.push(index);
                        continue;
                    };
                    let seen = product_name(&pipeline.stages[index], name);
                    let product = name.clone();
                    let origin = Origin::Product {
                        stage: index,
                        product,
                    };
                    (tree, origin, place(spec, &input.name, None, seen, at))
                }
                Reference::Path(path) => {
                    let local = pipeline.root.join(path);
                    // What people have not written yet says nothing.
                    if decisions(spec) == Some((&input.name, path)) && !local.exists() {
                        continue;
                    }
                    let taken = locals
                        .take(store, &local)
                        .map_err(|source| PlanError::Input {
                            stage: spec.id.clone(),
                            port: input.name.clone(),
                            source,
                        })?;
                    let taken = taken.ok_or_else(|| PlanError::HoldsStore {
                        stage: spec.id.clone(),
                        port: input.name.clone(),
                        path: path.clone(),
                    })?;
                    let seen = place(spec, &input.name, Some(path), last_step(path), at);
                    let (path, kept) = (path.clone(), taken.kept);
                    (taken.tree, Origin::Path { path, kept }, seen)
                }
            };
            let items = inputs.entry(input.name.clone()).or_default();
            items.push(Item {
                tree,
                origin,
                place,
            });
        }
    }
    waiting.sort_unstable();
    waiting.dedup();
    Ok(if waiting.is_empty() {
        Ok(inputs)
    } else {
        Err(waiting)
    })
}

/// Where a stage sees an input that is called `name` where it comes from. `local` is the path of a
/// project file, which a command sees at its own place.
fn place(
    spec: &StageSpec,
    port: &str,
    local: Option<&Path>,
    name: Option<String>,
    at: Option<usize>,
) -> String {
    let shell = matches!(spec.action, Action::Shell { .. });
    if let Some(own) = local.filter(|_| shell).and_then(below) {
        return own;
    }
    let name = name.unwrap_or_else(|| port.to_owned());
    match at {
        Some(at) => format!("inputs/{port}/{at}/{name}"),
        None => ["inputs/", port, "/", &name].concat(),
    }
}

/// Whether the folder `path` holds the store: then it changes with every look.
fn holds(path: &Path, home: &Path) -> bool {
    path.is_dir() && path.canonicalize().is_ok_and(|path| home.starts_with(path))
}

/// The file name that `product` has in the stage that makes it.
fn product_name(spec: &StageSpec, product: &str) -> Option<String> {
    let products = spec.products();
    let (_, path) = products.iter().find(|(name, _)| *name == product)?;
    last_step(Path::new(path))
}

fn last_step(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// The normal form of a relative path that stays below its folder.
fn below(path: &Path) -> Option<String> {
    let mut steps = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(step) => steps.push(step.to_str()?),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!steps.is_empty()).then(|| steps.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_stay_below_keep_their_place() {
        let of = |path: &str| below(Path::new(path));
        assert_eq!(of("./data//x.csv").as_deref(), Some("data/x.csv"));
        for outside in ["/srv/x", "../x", "a/../../x", ".", ""] {
            assert_eq!(of(outside), None, "{outside}");
        }
    }
}
