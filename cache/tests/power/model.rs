//! What a disk may hold after the power went, by the weakest rules that file systems with atomic
//! renames keep.
//!
//! - The bytes of a file are durable once it was synced. What was written since may be there,
//!   cut short, zeros, or not at all.
//! - A name (made, moved, removed) is durable once the folder that got or lost it was synced; for
//!   a move, the folder that got it. Any set of the other changes of names may have come through,
//!   in any order; those of one name in their own order.
//! - A sync of a file does not save its name, nor does a sync of a folder the folder's own name.
//! - A sync of the whole file system (`syncfs`) saves all bytes and names that there are by then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::Step;

type Inode = usize;

/// A file, a folder or a link.
#[derive(Clone, Debug)]
enum Node {
    File {
        /// Bytes at the last sync; `None` before the first.
        durable: Option<Arc<Vec<u8>>>,
        now: Arc<Vec<u8>>,
    },
    Folder,
    Link(PathBuf),
}

/// One change of names: it comes through whole or not at all.
#[derive(Clone, Debug)]
struct Naming {
    /// Folder, name, and what it stands for afterwards.
    sets: Vec<(Inode, String, Option<Inode>)>,
    /// The sync of this folder saves it.
    saved_by: Vec<Inode>,
    durable: bool,
}

/// A disk with its past.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    nodes: Vec<Node>,
    /// The names as running programs see them.
    names: BTreeMap<(Inode, String), Inode>,
    past: Vec<Naming>,
}

/// How bytes that were not synced look afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bytes {
    Lost,
    Zeros,
    Half,
    Whole,
}

/// What lies at a path after the crash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Found {
    File(Arc<Vec<u8>>),
    Folder,
    Link(PathBuf),
}

const ROOT: Inode = 0;

impl Disk {
    pub(crate) fn new() -> Self {
        Self {
            nodes: vec![Node::Folder],
            names: BTreeMap::new(),
            past: Vec::new(),
        }
    }

    fn folder_of(&mut self, path: &Path) -> (Inode, String) {
        let name = path.file_name().expect("a path below the root");
        let name = name.to_str().expect("text").to_owned();
        let above = path.parent().expect("a path below the root");
        (self.folder(above), name)
    }

    /// The folder at `path`. One that the store did not make (a stage's) is made here.
    fn folder(&mut self, path: &Path) -> Inode {
        let mut at = ROOT;
        for step in path.components() {
            let name = step.as_os_str().to_str().expect("text").to_owned();
            at = match self.names.get(&(at, name.clone())) {
                Some(inode) => *inode,
                None => self.make(at, name, Node::Folder),
            };
        }
        at
    }

    fn make(&mut self, folder: Inode, name: String, node: Node) -> Inode {
        self.nodes.push(node);
        let inode = self.nodes.len() - 1;
        self.set(vec![(folder, name, Some(inode))], vec![folder]);
        inode
    }

    fn set(&mut self, sets: Vec<(Inode, String, Option<Inode>)>, saved_by: Vec<Inode>) {
        for (folder, name, inode) in &sets {
            let name = (*folder, name.clone());
            match inode {
                Some(inode) => self.names.insert(name, *inode),
                None => self.names.remove(&name),
            };
        }
        self.past.push(Naming {
            sets,
            saved_by,
            durable: false,
        });
    }

    fn find(&mut self, path: &Path) -> Option<Inode> {
        if path.as_os_str().is_empty() {
            return Some(ROOT);
        }
        let name = self.folder_of(path);
        self.names.get(&name).copied()
    }

    /// Makes a step happen.
    pub(crate) fn step(&mut self, step: &Step) {
        match step {
            Step::Folder(path) => drop(self.folder(path)),
            Step::File(path, bytes) | Step::Write(path, bytes) => self.write(path, bytes),
            Step::Link(path, target) => {
                let (folder, name) = self.folder_of(path);
                self.make(folder, name, Node::Link(target.clone()));
            }
            Step::SyncFile(path) => {
                let inode = self.find(path).expect("a synced file was seen before");
                if let Node::File { durable, now } = &mut self.nodes[inode] {
                    *durable = Some(Arc::clone(now));
                }
            }
            Step::SyncFolder(path) => {
                let folder = self.folder(path);
                for naming in &mut self.past {
                    naming.durable |= naming.saved_by.contains(&folder);
                }
            }
            Step::SyncAll => {
                for node in &mut self.nodes {
                    if let Node::File { durable, now } = node {
                        *durable = Some(Arc::clone(now));
                    }
                }
                for naming in &mut self.past {
                    naming.durable = true;
                }
            }
            Step::Rename(from, to) => {
                let inode = self.find(from).expect("a moved thing was seen before");
                let ((from, old), (to, new)) = (self.folder_of(from), self.folder_of(to));
                let sets = vec![(from, old, None), (to, new, Some(inode))];
                self.set(sets, vec![to]);
            }
            Step::Exchange(one, other) => {
                let (first, second) = (self.find(one), self.find(other));
                let ((one, a), (other, b)) = (self.folder_of(one), self.folder_of(other));
                self.set(vec![(one, a, second), (other, b, first)], vec![one, other]);
            }
            Step::Remove(path) => {
                let (folder, name) = self.folder_of(path);
                self.set(vec![(folder, name, None)], vec![folder]);
            }
            Step::RemoveAll(path) => self.remove_all(path),
            Step::Promised(_) | Step::Released(_) => {}
        }
    }

    fn write(&mut self, path: &Path, bytes: &Arc<Vec<u8>>) {
        let Some(inode) = self.find(path) else {
            let (folder, name) = self.folder_of(path);
            let node = Node::File {
                durable: None,
                now: Arc::clone(bytes),
            };
            self.make(folder, name, node);
            return;
        };
        if let Node::File { now, .. } = &mut self.nodes[inode] {
            *now = Arc::clone(bytes);
        }
    }

    /// What is below goes name by name, as `remove_dir_all` does it.
    fn remove_all(&mut self, path: &Path) {
        let Some(inode) = self.find(path) else { return };
        let below: Vec<_> = self
            .names
            .range((inode, String::new())..(inode + 1, String::new()))
            .map(|((_, name), _)| name.clone())
            .collect();
        for name in below {
            self.remove_all(&path.join(name));
        }
        let (folder, name) = self.folder_of(path);
        self.set(vec![(folder, name, None)], vec![folder]);
    }

    /// Changes of names that may be lost: whether a change touches only names below `unimportant`
    /// folders is told with it.
    pub(crate) fn open(&self, unimportant: &[&str]) -> Vec<(usize, bool)> {
        let mut places = BTreeMap::from([(ROOT, PathBuf::new())]);
        for naming in &self.past {
            for (folder, name, inode) in &naming.sets {
                if let (Some(above), Some(inode)) = (places.get(folder).cloned(), inode) {
                    places.entry(*inode).or_insert_with(|| above.join(name));
                }
            }
        }
        let idle = |folder: &Inode| {
            let place = places.get(folder);
            place.is_some_and(|place| unimportant.iter().any(|top| place.starts_with(top)))
        };
        let pending = self.past.iter().enumerate();
        let pending = pending.filter(|(_, naming)| !naming.durable);
        pending
            .map(|(at, naming)| (at, naming.sets.iter().all(|(folder, ..)| idle(folder))))
            .collect()
    }

    /// What lies there if of the open changes just those in `came` came through.
    pub(crate) fn crash(
        &self,
        came: &dyn Fn(usize) -> bool,
        bytes: Bytes,
    ) -> BTreeMap<PathBuf, Found> {
        let mut names: BTreeMap<(Inode, String), Inode> = BTreeMap::new();
        for (at, naming) in self.past.iter().enumerate() {
            if !naming.durable && !came(at) {
                continue;
            }
            for (folder, name, inode) in &naming.sets {
                let name = (*folder, name.clone());
                match inode {
                    Some(inode) => names.insert(name, *inode),
                    None => names.remove(&name),
                };
            }
        }
        let mut found = BTreeMap::new();
        let mut open = vec![(ROOT, PathBuf::new())];
        while let Some((inode, path)) = open.pop() {
            let below = names.range((inode, String::new())..(inode + 1, String::new()));
            for ((_, name), inode) in below {
                let path = path.join(name);
                let what = match &self.nodes[*inode] {
                    Node::Folder => {
                        open.push((*inode, path.clone()));
                        Found::Folder
                    }
                    Node::Link(target) => Found::Link(target.clone()),
                    Node::File { durable, now } => Found::File(after(durable.as_ref(), now, bytes)),
                };
                found.insert(path, what);
            }
        }
        found
    }
}

fn after(durable: Option<&Arc<Vec<u8>>>, now: &Arc<Vec<u8>>, bytes: Bytes) -> Arc<Vec<u8>> {
    let safe = durable.map_or(0, |safe| {
        let same = safe.iter().zip(&**now).take_while(|(a, b)| a == b);
        same.count()
    });
    if durable == Some(now) {
        return Arc::clone(now);
    }
    match bytes {
        Bytes::Whole => Arc::clone(now),
        Bytes::Lost => durable.cloned().unwrap_or_default(),
        Bytes::Half => Arc::new(now[..safe + (now.len() - safe) / 2].to_vec()),
        Bytes::Zeros => {
            let mut zeros = now[..safe].to_vec();
            zeros.resize(now.len(), 0);
            Arc::new(zeros)
        }
    }
}
