//! A stage's inputs, resolved to what they hold.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use cache::{Kept, Store, Taken, Tree};

use super::error::PlanError;
use crate::config::{Action, Pipeline, Reference, StageSpec};

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

    fn take(&mut self, store: &Store, path: &Path) -> Result<Taken, cache::Error> {
        if let Some(taken) = self.taken.get(path) {
            return Ok(taken.clone());
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
        Ok(taken)
    }
}

/// The inputs of a stage, or the stages it must wait for.
pub(super) fn resolve(
    pipeline: &Pipeline,
    spec: &StageSpec,
    product: impl Fn(&str, &str) -> Option<(usize, Option<Tree>)>,
    store: &Store,
    locals: &mut Locals,
) -> Result<Result<Inputs, Vec<usize>>, PlanError> {
    let mut inputs = Inputs::new();
    let mut waiting = Vec::new();
    for input in &spec.inputs {
        for (at, reference) in input.references.iter().enumerate() {
            let (tree, origin) = match reference {
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
                    let product = name.clone();
                    (
                        tree,
                        Origin::Product {
                            stage: index,
                            product,
                        },
                    )
                }
                Reference::Path(path) => {
                    let taken = locals.take(store, &pipeline.root.join(path));
                    let taken = taken.map_err(|source| PlanError::Input {
                        stage: spec.id.clone(),
                        port: input.name.clone(),
                        source,
                    })?;
                    let (path, kept) = (path.clone(), taken.kept);
                    (taken.tree, Origin::Path { path, kept })
                }
            };
            let several = input.references.len() > 1;
            let place = place(
                pipeline,
                spec,
                &input.name,
                reference,
                several.then_some(at),
            );
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

fn place(
    pipeline: &Pipeline,
    spec: &StageSpec,
    port: &str,
    reference: &Reference,
    at: Option<usize>,
) -> String {
    let shell = matches!(spec.action, Action::Shell { .. });
    let name = match reference {
        Reference::Path(path) => {
            if let Some(own) = below(path).filter(|_| shell) {
                return own;
            }
            last_step(path)
        }
        Reference::Product { stage, product } => {
            let above = pipeline.stages.iter().find(|above| above.id == *stage);
            let products = above.map(StageSpec::products).unwrap_or_default();
            let path = products.iter().find(|(name, _)| name == product);
            path.and_then(|(_, path)| last_step(Path::new(path)))
        }
    };
    let name = name.unwrap_or_else(|| port.to_owned());
    match at {
        Some(at) => format!("inputs/{port}/{at}/{name}"),
        None => format!("inputs/{port}/{name}"),
    }
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
