//! The cache of the hub's own tools, read only.
//!
//! Layout: `hub/models--owner--name/refs/<revision>` holds a commit,
//! `snapshots/<commit>/<file>` links to a blob named by its entity tag.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::http::Environment;

use super::super::FetchError;
use super::super::local;
use super::super::params::Repository;
use super::super::progress::Progress;
use super::listing::Remote;
use super::plural;

/// One repository's place in the cache.
pub(super) struct HubCache {
    folder: Option<PathBuf>,
}

/// `HF_HOME`, else its default place.
pub(super) fn hub_home(environment: &Environment) -> Option<PathBuf> {
    environment.path("HF_HOME").or_else(|| {
        let cache = environment
            .path("XDG_CACHE_HOME")
            .or_else(|| Some(environment.path("HOME")?.join(".cache")))?;
        Some(cache.join("huggingface"))
    })
}

impl HubCache {
    pub(super) fn find(environment: &Environment, repository: &Repository) -> Self {
        let hub = environment
            .path("HF_HUB_CACHE")
            .or_else(|| Some(hub_home(environment)?.join("hub")));
        let name = format!(
            "{}--{}",
            plural(repository.kind),
            repository.id.replace('/', "--")
        );
        Self {
            folder: hub.map(|hub| hub.join(name)),
        }
    }

    /// The commit a branch or tag pointed at when it was last looked up.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if revision.split('/').any(|part| part == "..") {
            return None;
        }
        let path = self.folder.as_ref()?.join("refs").join(revision);
        let text = std::fs::read_to_string(path).ok()?;
        Some(text.trim().to_owned())
    }

    /// The files of a commit that are there.
    pub(super) fn snapshot(&self, commit: &str, repository: &Repository) -> Vec<Remote> {
        let Some(folder) = &self.folder else {
            return Vec::new();
        };
        let root = folder.join("snapshots").join(commit);
        let walk = WalkDir::new(&root).follow_links(true).sort_by_file_name();
        let files = walk.into_iter().filter_map(Result::ok);
        files
            .filter(|entry| entry.file_type().is_file())
            .filter_map(|entry| {
                let name = entry.path().strip_prefix(&root).ok()?.to_str()?.to_owned();
                Some(Remote {
                    sha256: repository
                        .sha256
                        .get(&name)
                        .cloned()
                        .or_else(|| blob_hash(entry.path())),
                    size: entry.metadata().ok().map(|found| found.len()),
                    name,
                })
            })
            .collect()
    }

    /// Copies a file of a commit to `to` if the cache has it whole; gives its size. A
    /// damaged one is passed over.
    pub(super) fn take(
        &self,
        commit: &str,
        file: &Remote,
        to: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<Option<u64>, FetchError> {
        let Some(folder) = &self.folder else {
            return Ok(None);
        };
        let path = folder.join("snapshots").join(commit).join(&file.name);
        let Ok(found) = std::fs::metadata(&path) else {
            return Ok(None);
        };
        if !found.is_file() || file.size.is_some_and(|size| size != found.len()) {
            return Ok(None);
        }
        let hash = local::copy(&path, to, progress)?;
        if file
            .sha256
            .as_ref()
            .is_some_and(|expected| *expected != hash)
        {
            progress.take_back(found.len());
            std::fs::remove_file(to).map_err(|error| FetchError::file(to, error))?;
            return Ok(None);
        }
        Ok(Some(found.len()))
    }
}

/// A large file's blob is named by its sha256.
fn blob_hash(link: &Path) -> Option<String> {
    let real = link.canonicalize().ok()?;
    super::super::download::sha_of(real.file_name()?.to_str()?)
}
